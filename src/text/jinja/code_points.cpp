// Code points of strings, their classes and cases through utf8proc. Called by the values, methods and filters of
// templates.
#include "text/jinja/code_points.h"

#include <utf8proc.h>

namespace llmfp8::jinja {

namespace {

utf8proc_category_t category(char32_t code) { return utf8proc_category(static_cast<utf8proc_int32_t>(code)); }

// Those that have more than one character in upper case and may be met in a text.
void append_upper(std::string& out, char32_t code) {
  switch (code) {
    case U'ß': out += "SS"; return;
    case U'ŉ': out += "ʼN"; return;
    case U'ǰ': out += "J̌"; return;
    case U'ﬀ': out += "FF"; return;
    case U'ﬁ': out += "FI"; return;
    case U'ﬂ': out += "FL"; return;
    case U'ﬃ': out += "FFI"; return;
    case U'ﬄ': out += "FFL"; return;
    case U'ﬅ':
    case U'ﬆ': out += "ST"; return;
    default: append_utf8(out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code))));
  }
}

void append_title(std::string& out, char32_t code) {
  switch (code) {
    case U'ß': out += "Ss"; return;
    case U'ﬀ': out += "Ff"; return;
    case U'ﬁ': out += "Fi"; return;
    case U'ﬂ': out += "Fl"; return;
    case U'ﬃ': out += "Ffi"; return;
    case U'ﬄ': out += "Ffl"; return;
    case U'ﬅ':
    case U'ﬆ': out += "St"; return;
    case U'ŉ':
    case U'ǰ': append_upper(out, code); return;
    default: append_utf8(out, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(code))));
  }
}

// A sigma at the end of a word has a form of its own.
bool is_final_sigma(std::u32string_view text, std::size_t at) {
  const auto ignored = [](char32_t code) {
    const auto c = category(code);
    return code == '\'' || code == U'’' || code == '.' || code == ':' || code == U'·' || code == '^' || code == '`' ||
           c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME || c == UTF8PROC_CATEGORY_CF ||
           c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_SK;
  };
  std::size_t before = at, after = at + 1;
  while (before > 0 && ignored(text[before - 1])) --before;
  if (before == 0 || !is_cased(text[before - 1])) return false;
  while (after < text.size() && ignored(text[after])) ++after;
  return after == text.size() || !is_cased(text[after]);
}

void append_lower(std::string& out, std::u32string_view text, std::size_t at) {
  const char32_t code = text[at];
  if (code == U'Σ') {
    append_utf8(out, is_final_sigma(text, at) ? U'ς' : U'σ');
  } else if (code == U'İ') {
    out += "i̇";
  } else {
    append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
  }
}

}  // namespace

std::size_t code_point_bytes(std::string_view text, std::size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  const std::size_t size = byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
  for (std::size_t i = 1; i < size; ++i)
    if (at + i >= text.size() || (static_cast<unsigned char>(text[at + i]) & 0xC0) != 0x80) return 1;
  return size;
}

std::int64_t count_code_points(std::string_view text) {
  if (is_ascii(text)) return std::ssize(text);
  std::int64_t count = 0;
  for (std::size_t at = 0; at < text.size(); at += code_point_bytes(text, at)) ++count;
  return count;
}

std::u32string decode_text(std::string_view text) {
  std::u32string codes;
  codes.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = code_point_bytes(text, at);
    auto code = static_cast<char32_t>(static_cast<unsigned char>(text[at]));
    if (size > 1) code &= 0xFFU >> (size + 1);
    for (std::size_t i = 1; i < size; ++i) code = (code << 6) | (static_cast<unsigned char>(text[at + i]) & 0x3FU);
    codes += code;
    at += size;
  }
  return codes;
}

std::string encode_text(std::u32string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (const char32_t code : text) append_utf8(bytes, code);
  return bytes;
}

std::size_t byte_offset(std::string_view text, std::int64_t index) {
  std::size_t at = 0;
  for (std::int64_t i = 0; i < index && at < text.size(); ++i) at += code_point_bytes(text, at);
  return at;
}

bool is_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F ||
         code == 0x205F || code == 0x3000;
}

bool is_printable(char32_t code) {
  if (code == ' ') return true;
  switch (category(code)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
  }
}

bool is_letter(char32_t code) {
  const auto c = category(code);
  return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT ||
         c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t code) { return category(code) == UTF8PROC_CATEGORY_ND; }

bool is_digit(char32_t code) {
  return is_decimal(code) || code == 0xB2 || code == 0xB3 || code == 0xB9 || code == 0x2070 ||
         (code >= 0x2074 && code <= 0x2079) || (code >= 0x2080 && code <= 0x2089) || (code >= 0x2460 && code <= 0x2468);
}

bool is_numeric(char32_t code) {
  const auto c = category(code);
  return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

bool is_upper(char32_t code) { return category(code) == UTF8PROC_CATEGORY_LU; }
bool is_lower(char32_t code) { return category(code) == UTF8PROC_CATEGORY_LL || code == 0xAA || code == 0xBA; }
bool is_title(char32_t code) { return category(code) == UTF8PROC_CATEGORY_LT; }

std::string upper(std::string_view text) {
  std::string out;
  for (const char32_t code : decode_text(text)) append_upper(out, code);
  return out;
}

std::string lower(std::string_view text) {
  const std::u32string codes = decode_text(text);
  std::string out;
  for (std::size_t i = 0; i < codes.size(); ++i) append_lower(out, codes, i);
  return out;
}

std::string capitalize(std::string_view text) {
  const std::u32string codes = decode_text(text);
  std::string out;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (i == 0)
      append_title(out, codes[i]);
    else
      append_lower(out, codes, i);
  }
  return out;
}

std::string title(std::string_view text) {
  const std::u32string codes = decode_text(text);
  std::string out;
  bool inside = false;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (inside)
      append_lower(out, codes, i);
    else
      append_title(out, codes[i]);
    inside = is_cased(codes[i]);
  }
  return out;
}

std::string swapcase(std::string_view text) {
  const std::u32string codes = decode_text(text);
  std::string out;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (is_upper(codes[i]))
      append_lower(out, codes, i);
    else if (is_lower(codes[i]))
      append_upper(out, codes[i]);
    else
      append_utf8(out, codes[i]);
  }
  return out;
}

std::string_view strip_left(std::string_view text) {
  while (!text.empty()) {
    const std::size_t size = code_point_bytes(text, 0);
    if (!is_space(decode_text(text.substr(0, size))[0])) break;
    text.remove_prefix(size);
  }
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    std::size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    if (at + code_point_bytes(text, at) != text.size()) break;
    if (!is_space(decode_text(text.substr(at))[0])) break;
    text = text.substr(0, at);
  }
  return text;
}

}  // namespace llmfp8::jinja
