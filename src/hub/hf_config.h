// config.json and generation_config.json: read in the classic and the transformers-5 spelling, written so that both read
// them. Called by checkpoint_source (models) and by the exports of train/.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/model_config.h"

namespace llmfp8 {

// What a user may name; used in the sentence that refuses a model.
std::string supported_models_text();

// Throws Error (naming origin, the value found and the value wanted) for any model this engine would compute wrongly.
ModelConfig parse_hf_config(std::string_view config_json, const std::string& origin);

// Adds the eos ids of generation_config.json to those of config.json: chat models often state the turn's end only there.
void merge_generation_config(ModelConfig& config, std::string_view generation_config_json, const std::string& origin);

// folder/config.json and, if it is there, folder/generation_config.json.
ModelConfig read_hf_config(const std::filesystem::path& folder);

// Checks ranges and divisibility; for configs of every origin. Throws Error that names origin.
void check_model_config(const ModelConfig& config, const std::string& origin);

// The text of config.json / generation_config.json, for a model that came without (GGUF).
std::string write_hf_config(const ModelConfig& config);
std::string write_generation_config(const ModelConfig& config);

}  // namespace llmfp8
