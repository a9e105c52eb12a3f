// UTF-8 and GPT-2's byte alphabet, in which vocabularies write their tokens. Called throughout src/text.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace llmfp8 {

struct CodePoint {
  char32_t code = 0;
  std::size_t size = 0;  // bytes
};

// text: valid UTF-8; at: the start of a character, < text.size().
CodePoint code_point_at(std::string_view text, std::size_t at);
// The start of the character that ends at `end` (> 0).
std::size_t code_point_start_before(std::string_view text, std::size_t end);
void append_utf8(std::string& out, char32_t code);

bool is_ascii(std::string_view text);
// Byte offset of the first thing that is not UTF-8; nothing if all of it is.
std::optional<std::size_t> first_invalid_utf8(std::string_view text);
// U+FFFD for each maximal invalid part, as Rust's String::from_utf8_lossy.
std::string utf8_lossy(std::string bytes);

// Each byte as the printable character that stands for it in byte-level vocabularies (space: "Ġ").
void append_byte_alphabet(std::string& out, std::string_view bytes);
// The other way round; nothing if a character stands for no byte.
std::optional<std::string> from_byte_alphabet(std::string_view written);

}  // namespace llmfp8
