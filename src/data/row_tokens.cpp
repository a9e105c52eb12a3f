// Tokens to texts, and texts to what can be shown of them.
#include "data/row_tokens.h"

#include <algorithm>

#include <fmt/format.h>

#include "core/batch.h"
#include "text/utf8.h"

namespace llmfp8 {
namespace {

bool is_between(char32_t c, char32_t first, char32_t last) { return c >= first && c <= last; }

// C1 controls, soft hyphen, marks of direction, spaces without width, the byte order mark, tags.
bool is_unseen(char32_t c) {
  return is_between(c, 0x80, 0x9F) || c == 0xAD || c == 0x61C || is_between(c, 0x200B, 0x200F) || is_between(c, 0x2028, 0x202E) ||
         is_between(c, 0x2060, 0x206F) || c == 0xFEFF || is_between(c, 0xE0000, 0xE007F);
}

}  // namespace

std::vector<ShownToken> row_tokens(const Tokenizer& tokenizer, std::span<const std::int32_t> ids, std::span<const std::int32_t> labels) {
  constexpr std::size_t kBytesOfACharacter = 4;
  constexpr std::string_view kNoCharacter = "\xEF\xBF\xBD";
  // Token t is learnt if the position before it has to predict it.
  const auto learnt = [&](std::size_t t) { return t > 0 && labels[t - 1] != kIgnoreLabel; };
  std::vector<ShownToken> tokens;
  for (std::size_t t = 0; t < ids.size();) {
    ShownToken token{tokenizer.decode(ids.subspan(t, 1)), {ids[t]}, learnt(t), tokenizer.is_special(ids[t])};
    if (token.text.ends_with(kNoCharacter)) {
      const std::size_t most = std::min(ids.size() - t, kBytesOfACharacter);
      for (std::size_t count = 2; count <= most && learnt(t + count - 1) == token.is_learnt; ++count) {
        std::string text = tokenizer.decode(ids.subspan(t, count));
        if (text.ends_with(kNoCharacter)) continue;
        token.text = std::move(text);
        token.ids.assign(ids.begin() + static_cast<std::ptrdiff_t>(t), ids.begin() + static_cast<std::ptrdiff_t>(t + count));
        break;
      }
    }
    t += token.ids.size();
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::string visible_text(const std::string& text, LineFeeds line_feeds) {
  const std::string valid = utf8_lossy(text);
  std::string out;
  for (std::size_t at = 0; at < valid.size();) {
    const CodePoint c = code_point_at(valid, at);
    at += c.size;
    if (c.code == '\n') {
      out += line_feeds == LineFeeds::marked ? "↵\n" : "\n";
    } else if (c.code < 0x20 || c.code == 0x7F) {
      append_utf8(out, c.code == 0x7F ? 0x2421 : 0x2400 + c.code);  // Unicode's pictures of control characters
    } else if (is_unseen(c.code)) {
      out += fmt::format("‹U+{:04X}›", static_cast<std::uint32_t>(c.code));
    } else {
      append_utf8(out, c.code);
    }
  }
  return out;
}

std::vector<ShownToken> visible(std::vector<ShownToken> tokens, LineFeeds line_feeds) {
  for (ShownToken& token : tokens) token.text = visible_text(token.text, line_feeds);
  return tokens;
}

}  // namespace llmfp8
