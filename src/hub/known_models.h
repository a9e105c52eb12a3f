// Shapes of models that are known by name, so that speed and memory can be looked at without their files. Called by
// `llm-fp8 bench`.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/model_config.h"

namespace llmfp8 {

// "llama-3.2-1b", … in order of size.
std::vector<std::string> known_model_names();

// nullptr where the name is not known.
const ModelConfig* find_known_model(std::string_view name);

}  // namespace llmfp8
