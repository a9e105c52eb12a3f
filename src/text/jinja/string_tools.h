// Splitting, replacing and padding of texts as Python does it. Called by the methods of strings and the filters.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmfp8::jinja {

class Interpreter;

// most: splits at most, negative: all.
std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, std::int64_t most);
std::vector<std::string_view> rsplit_at(std::string_view text, std::string_view separator, std::int64_t most);
std::vector<std::string_view> split_at_spaces(std::string_view text, std::int64_t most);
std::vector<std::string_view> rsplit_at_spaces(std::string_view text, std::int64_t most);
std::vector<std::string_view> lines_of(std::string_view text, bool keep_ends);
// Without the characters of `chars` at the ends.
std::string stripped(std::string_view text, std::string_view chars, bool left, bool right);
std::string replaced(Interpreter& run, const std::string& text, const std::string& from, const std::string& to,
                     std::int64_t most);
// side: 0 text at the left, 1 at the right, 2 in the middle.
std::string centered(const std::string& text, std::int64_t width, const std::string& fill, int side);

}  // namespace llmfp8::jinja
