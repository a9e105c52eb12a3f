// Strings as Python sees them, code points, over UTF-8. Called by the values, methods and filters of templates.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "text/utf8.h"

namespace llmfp8::jinja {

// Bytes of the code point at `at`; a byte that belongs to none counts as one.
std::size_t code_point_bytes(std::string_view text, std::size_t at);
std::int64_t count_code_points(std::string_view text);
std::u32string decode_text(std::string_view text);
std::string encode_text(std::u32string_view text);
// Byte offset of the code point number `index`, at most the size.
std::size_t byte_offset(std::string_view text, std::int64_t index);

// As str.isspace, str.isprintable … have it for one character.
bool is_space(char32_t code);
bool is_printable(char32_t code);
bool is_letter(char32_t code);
bool is_digit(char32_t code);
bool is_decimal(char32_t code);
bool is_numeric(char32_t code);
bool is_upper(char32_t code);
bool is_lower(char32_t code);
bool is_title(char32_t code);
inline bool is_cased(char32_t code) { return is_upper(code) || is_lower(code) || is_title(code); }
inline bool is_word(char32_t code) { return code == '_' || is_letter(code) || is_numeric(code); }

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);
std::string swapcase(std::string_view text);

std::string_view strip_left(std::string_view text);  // white space
std::string_view strip_right(std::string_view text);

}  // namespace llmfp8::jinja
