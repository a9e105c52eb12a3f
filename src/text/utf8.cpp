// UTF-8 and GPT-2's byte alphabet, in which vocabularies write their tokens. Called throughout src/text.
#include "text/utf8.h"

#include <array>
#include <cstdint>
#include <cstring>

namespace llmfp8 {
namespace {

// What the bytes at `at` are: a whole character, or (valid false) an invalid part and its length.
struct Utf8Part {
  std::size_t size = 1;
  bool valid = false;
};

Utf8Part utf8_part(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, true};
  std::size_t size = 0;
  unsigned low = 0x80,
           high = 0xBF;  // allowed for the second byte: no overlong forms, no surrogates, none above U+10FFFF
  if (lead >= 0xC2 && lead <= 0xDF) {
    size = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    size = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    size = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {1, false};
  }
  if (byte(1) < low || byte(1) > high) return {1, false};
  for (std::size_t i = 2; i < size; ++i) {
    if ((byte(i) & 0xC0u) != 0x80u) return {i, false};
  }
  return {size, true};
}

struct ByteAlphabet {
  std::array<char32_t, 256> of_byte{};
  std::array<std::int16_t, 324> to_byte{};  // by code point; -1: none

  ByteAlphabet() {
    to_byte.fill(-1);
    char32_t next = 256;
    for (unsigned b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      of_byte[b] = printable ? b : next++;
      to_byte[of_byte[b]] = static_cast<std::int16_t>(b);
    }
  }
};

const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

}  // namespace

CodePoint code_point_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[at + i])); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {((lead & 0x1F) << 6) | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {((lead & 0x0F) << 12) | ((byte(1) & 0x3F) << 6) | (byte(2) & 0x3F), 3};
  return {((lead & 0x07) << 18) | ((byte(1) & 0x3F) << 12) | ((byte(2) & 0x3F) << 6) | (byte(3) & 0x3F), 4};
}

std::size_t code_point_start_before(std::string_view text, std::size_t end) {
  std::size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0u) == 0x80u) --at;
  return at;
}

void append_utf8(std::string& out, char32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

namespace {

// Where the ASCII run that starts at `at` ends.
std::size_t ascii_end(std::string_view text, std::size_t at) {
  while (at + 8 <= text.size()) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + at, 8);
    if ((word & 0x8080808080808080u) != 0) break;
    at += 8;
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
  return at;
}

}  // namespace

bool is_ascii(std::string_view text) { return ascii_end(text, 0) == text.size(); }

std::optional<std::size_t> first_invalid_utf8(std::string_view text) {
  for (std::size_t at = ascii_end(text, 0); at < text.size(); at = ascii_end(text, at)) {
    const Utf8Part part = utf8_part(text, at);
    if (!part.valid) return at;
    at += part.size;
  }
  return std::nullopt;
}

std::string utf8_lossy(std::string bytes) {
  const std::optional<std::size_t> invalid = first_invalid_utf8(bytes);
  if (!invalid) return bytes;
  const std::string_view text = bytes;
  std::string out(text.substr(0, *invalid));
  for (std::size_t at = *invalid; at < text.size();) {
    const Utf8Part part = utf8_part(text, at);
    out += part.valid ? text.substr(at, part.size) : std::string_view("\xEF\xBF\xBD");
    at += part.size;
  }
  return out;
}

void append_byte_alphabet(std::string& out, std::string_view bytes) {
  const ByteAlphabet& alphabet = byte_alphabet();
  for (const char byte : bytes) append_utf8(out, alphabet.of_byte[static_cast<unsigned char>(byte)]);
}

std::optional<std::string> from_byte_alphabet(std::string_view written) {
  const ByteAlphabet& alphabet = byte_alphabet();
  std::string bytes;
  for (std::size_t at = 0; at < written.size();) {
    const CodePoint point = code_point_at(written, at);
    if (point.code >= alphabet.to_byte.size() || alphabet.to_byte[point.code] < 0) return std::nullopt;
    bytes += static_cast<char>(alphabet.to_byte[point.code]);
    at += point.size;
  }
  return bytes;
}

}  // namespace llmfp8
