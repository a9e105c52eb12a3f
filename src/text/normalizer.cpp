// Unicode normalisation of a text before it is split, through utf8proc. Called by the tokenizer.
#include "text/normalizer.h"

#include <cstdlib>
#include <memory>

#include <utf8proc.h>

#include "core/error.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace llmfp8 {
namespace {

// Below U+0300 nothing but a combining mark can change a character, and the first mark is U+0300.
bool is_nfc_at_sight(std::string_view text) {
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0xCC) return false;  // the lead byte of U+0300 and all above
  }
  return true;
}

void append_library_nfc(std::string& out, std::string_view text) {
  if (is_nfc_at_sight(text)) {
    out += text;
    return;
  }
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &result, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
  CHECK(size >= 0, "NFC of a text failed: {}", utf8proc_errmsg(size));
  out.append(reinterpret_cast<const char*>(result), static_cast<std::size_t>(size));
}

}  // namespace

std::string nfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  // A character that the tables do not know is a starter that nothing composes with: what stands before and behind it
  // is normalised apart.
  std::size_t from = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0xDF) {  // no such character below U+07C0
      ++at;
      continue;
    }
    const CodePoint point = code_point_at(text, at);
    if (is_unknown_to_nfc(point.code)) {
      append_library_nfc(out, text.substr(from, at - from));
      out += text.substr(at, point.size);
      from = at + point.size;
    }
    at += point.size;
  }
  append_library_nfc(out, text.substr(from));
  return out;
}

std::string_view Normalizer::apply(std::string_view text, std::string& buffer) const {
  if (kind_ == NormalizerKind::none || is_nfc_at_sight(text)) return text;
  buffer = nfc(text);
  return buffer;
}

std::vector<std::size_t> Normalizer::map_boundaries(std::string_view text,
                                                    std::span<const std::size_t> boundaries) const {
  std::vector<std::size_t> mapped(boundaries.begin(), boundaries.end());
  if (kind_ == NormalizerKind::none || is_nfc_at_sight(text)) return mapped;
  std::string buffer;
  std::size_t from = 0, mapped_from = 0;  // a place where text can be cut without changing its normal form
  for (std::size_t& boundary : mapped) {
    std::size_t cut = boundary;
    // An ASCII character never joins what stands before it.
    while (cut > from && !(cut < text.size() && static_cast<unsigned char>(text[cut]) < 0x80)) --cut;
    if (cut > from) {
      mapped_from += apply(text.substr(from, cut - from), buffer).size();
      from = cut;
    }
    boundary = mapped_from + apply(text.substr(from, boundary - from), buffer).size();
  }
  return mapped;
}

}  // namespace llmfp8
