// Splits a normalised text into the words within which byte pairs are merged. Called by the tokenizer.
#include "text/pretokenizer.h"

#include <algorithm>

#include <utf8proc.h>

#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace llmfp8 {

const std::string_view kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// A part of a text, and whether the pattern matched it. The parts of a text lie end to end.
struct Part {
  TextRange range;
  bool match = false;
};

// What one split needs over and over: kept so as not to allocate for every word.
struct SplitBuffers {
  std::vector<TextRange> matches;
  std::vector<Part> parts;
  std::vector<Part> merged;
  std::vector<Word> words;
  std::string text;
};

void fill_parts(const std::vector<TextRange>& matches, std::size_t size, std::vector<Part>& parts) {
  parts.clear();
  std::size_t from = 0;
  for (const TextRange& match : matches) {
    if (match.begin != from) parts.push_back({{from, match.begin}, false});
    parts.push_back({match, true});
    from = match.end;
  }
  if (from != size) parts.push_back({{from, size}, false});
}

bool is_numeric(char32_t code) {
  if (code < 0x80) return code >= '0' && code <= '9';
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO ||
         is_new_numeric(code);
}

void find_matches(const SplitStep& step, std::string_view text, std::vector<TextRange>& matches) {
  if (const auto* regex = std::get_if<Regex>(&step.pattern)) return regex->find_all(text, matches);
  const std::string& literal = std::get<std::string>(step.pattern);
  if (literal.empty()) return;
  for (std::size_t at = text.find(literal); at != std::string_view::npos;
       at = text.find(literal, at + literal.size())) {
    matches.push_back({at, at + literal.size()});
  }
}

void find_matches(const DigitsStep&, std::string_view text, std::vector<TextRange>& matches) {
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint point = code_point_at(text, at);
    if (is_numeric(point.code)) matches.push_back({at, at + point.size});
    at += point.size;
  }
}

void find_matches(const ByteLevelStep& step, std::string_view text, std::vector<TextRange>& matches) {
  if (step.regex) step.regex->find_all(text, matches);
}

SplitBehavior behavior_of(const SplitStep& step) { return step.behavior; }
SplitBehavior behavior_of(const DigitsStep& step) {
  return step.individual ? SplitBehavior::isolated : SplitBehavior::contiguous;
}
SplitBehavior behavior_of(const ByteLevelStep&) { return SplitBehavior::isolated; }

bool inverts(const SplitStep& step) { return step.invert; }
template <typename Step>
bool inverts(const Step&) {
  return false;
}

bool adds_space(const ByteLevelStep& step, std::string_view text) {
  return step.add_prefix_space && !text.starts_with(' ');
}
template <typename Step>
bool adds_space(const Step&, std::string_view) {
  return false;
}

void apply_behavior(SplitBehavior behavior, std::vector<Part>& parts, std::vector<Part>& merged) {
  merged.clear();
  bool previous = false;
  switch (behavior) {
    case SplitBehavior::isolated: return;
    case SplitBehavior::removed: std::erase_if(parts, [](const Part& part) { return part.match; }); return;
    case SplitBehavior::contiguous:
      for (const Part& part : parts) {
        if (part.match == previous && !merged.empty()) {
          merged.back().range.end = part.range.end;
        } else {
          merged.push_back(part);
        }
        previous = part.match;
      }
      break;
    case SplitBehavior::merged_with_previous:
      for (const Part& part : parts) {
        if (part.match && !previous && !merged.empty()) {
          merged.back().range.end = part.range.end;
        } else {
          merged.push_back(part);
        }
        previous = part.match;
      }
      break;
    case SplitBehavior::merged_with_next:
      for (std::size_t i = parts.size(); i-- > 0;) {
        if (parts[i].match && !previous && !merged.empty()) {
          merged.back().range.begin = parts[i].range.begin;
        } else {
          merged.push_back(parts[i]);
        }
        previous = parts[i].match;
      }
      std::reverse(merged.begin(), merged.end());
      break;
  }
  parts.swap(merged);
}

bool leaves_words_alone(const PretokenizerStep& step) {
  const auto* byte_level = std::get_if<ByteLevelStep>(&step);
  return byte_level != nullptr && !byte_level->add_prefix_space && byte_level->regex == nullptr;
}

// Splits one word; appends what becomes of it.
template <typename Step>
void split_word(const Step& step, std::string_view text, SplitBuffers& buffers, std::vector<Word>& out,
                std::size_t offset) {
  const bool space = adds_space(step, text);
  if (space) {
    buffers.text.assign(1, ' ').append(text);
    text = buffers.text;
  }
  buffers.matches.clear();
  find_matches(step, text, buffers.matches);
  fill_parts(buffers.matches, text.size(), buffers.parts);
  if (inverts(step)) {
    for (Part& part : buffers.parts) part.match = !part.match;
  }
  apply_behavior(behavior_of(step), buffers.parts, buffers.merged);
  for (const Part& part : buffers.parts) {
    if (part.range.begin == part.range.end) continue;
    const std::size_t shift = space ? 1 : 0;
    out.push_back({offset + std::max(part.range.begin, shift) - shift, offset + part.range.end - shift,
                   space && part.range.begin == 0});
  }
}

}  // namespace

void Pretokenizer::split(std::string_view text, std::vector<Word>& words) const {
  thread_local SplitBuffers buffers;
  words.assign(1, {0, text.size(), false});
  for (const PretokenizerStep& step : steps_) {
    if (leaves_words_alone(step)) continue;
    buffers.words.clear();
    std::visit(
        [&](const auto& one) {
          for (const Word& word : words) {
            split_word(one, text.substr(word.begin, word.end - word.begin), buffers, buffers.words, word.begin);
          }
        },
        step);
    words.swap(buffers.words);
  }
}

}  // namespace llmfp8
