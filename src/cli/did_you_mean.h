// The nearest known name to a misspelt one, for "did you mean --batch_size?". Called for flags, keys of config files,
// splits and models.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace llmfp8 {

// "" when nothing is near. Upper and lower case, and - and _, count as equal.
std::string nearest_name(std::string_view word, std::span<const std::string> names);

}  // namespace llmfp8
