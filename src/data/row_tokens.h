// A row's tokens as a reader wants to see them. Called by the trainers, which show the first row, and by `llm-fp8 data`.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "report/marked_text.h"
#include "text/tokenizer.h"

namespace llmfp8 {

// ids, labels: [length], as in TokenizedRow. Tokens that make a character only together are one piece.
std::vector<ShownToken> row_tokens(const Tokenizer& tokenizer, std::span<const std::int32_t> ids, std::span<const std::int32_t> labels);

// Whatever would move a cursor, turn the text around or not be seen, as something to see: ␛ for escape, ‹U+202E›; a line feed is
// "↵" and the line feed. Rows are anybody's text.
std::string visible_text(const std::string& text);
std::vector<ShownToken> visible(std::vector<ShownToken> tokens);

}  // namespace llmfp8
