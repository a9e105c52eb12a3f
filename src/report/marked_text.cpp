// The text of a row with marks around what is not learnt.
#include "report/marked_text.h"

#include <algorithm>

namespace llmfp8 {

std::string marked_text(std::span<const ShownToken> tokens, Marks marks, std::size_t max_chars) {
  const char* const begin = marks == Marks::grey ? "\x1b[90m" : "«";
  const char* const end = marks == Marks::grey ? "\x1b[0m" : "»";
  std::string text;
  std::size_t chars = 0;
  for (std::size_t t = 0; t < tokens.size() && chars < max_chars; ++t) {
    const bool is_marked = !tokens[t].is_learnt;
    if (is_marked && (t == 0 || tokens[t - 1].is_learnt)) text += begin;
    const std::string& part = tokens[t].text;
    std::size_t keep = std::min(part.size(), max_chars - chars);
    while (keep < part.size() && keep > 0 && (static_cast<unsigned char>(part[keep]) & 0xC0U) == 0x80U) --keep;  // not inside a character
    text.append(part, 0, keep);
    const bool is_last = keep < part.size() || chars + keep >= max_chars || t + 1 == tokens.size();
    if (keep < part.size() || (is_last && t + 1 < tokens.size())) text += "…";
    if (is_marked && (is_last || tokens[t + 1].is_learnt)) text += end;
    if (is_last) break;
    chars += keep;
  }
  return text;
}

}  // namespace llmfp8
