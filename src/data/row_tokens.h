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

// Whatever would move a cursor, turn the text around or not be seen, as something to see: ␛ for escape, ‹U+202E›. Rows are
// anybody's text. A line feed stays one; marked, "↵" stands before it.
enum class LineFeeds { plain, marked };
std::string visible_text(const std::string& text, LineFeeds line_feeds);
std::vector<ShownToken> visible(std::vector<ShownToken> tokens, LineFeeds line_feeds);

}  // namespace llmfp8
