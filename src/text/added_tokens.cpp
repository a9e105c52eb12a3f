// Tokens that stand beside the BPE vocabulary, found in a text before it is split. Called by the tokenizer.
#include "text/added_tokens.h"

#include <algorithm>

#include <utf8proc.h>

#include "text/utf8.h"

namespace llmfp8 {
namespace {

// \w of Rust's regex crate: alphabetic, marks, decimal digits, connector punctuation, joiners.
bool is_word_character(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: break;
  }
  const bool circled_letter = (code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
                              (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189);
  return circled_letter || code == 0x200C || code == 0x200D;
}

bool is_white_space(char32_t code) {
  return (code >= 9 && code <= 13) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

bool word_touches(std::string_view text, std::size_t begin, std::size_t end) {
  if (begin > 0 && is_word_character(code_point_at(text, code_point_start_before(text, begin)).code)) return true;
  return end < text.size() && is_word_character(code_point_at(text, end).code);
}

std::size_t without_space_before(std::string_view text, std::size_t begin) {
  while (begin > 0) {
    const std::size_t previous = code_point_start_before(text, begin);
    if (!is_white_space(code_point_at(text, previous).code)) break;
    begin = previous;
  }
  return begin;
}

std::size_t without_space_after(std::string_view text, std::size_t end) {
  while (end < text.size()) {
    const CodePoint point = code_point_at(text, end);
    if (!is_white_space(point.code)) break;
    end += point.size;
  }
  return end;
}

}  // namespace

void AddedTokenMatcher::add(const AddedToken& token, std::string_view written) {
  if (written.empty()) return;
  std::uint32_t node = 0;
  for (const char c : written) {
    const auto byte = static_cast<unsigned char>(c);
    auto& next = nodes_[node].next;
    const auto found = std::find_if(next.begin(), next.end(), [&](const auto& edge) { return edge.first == byte; });
    if (found != next.end()) {
      node = found->second;
    } else {
      const auto created = static_cast<std::uint32_t>(nodes_.size());
      next.emplace_back(byte, created);
      nodes_.emplace_back();
      node = created;
    }
  }
  if (nodes_[node].token >= 0) return;  // two tokens that normalise to one text: the first holds
  nodes_[node].token = static_cast<std::int32_t>(tokens_.size());
  tokens_.push_back(token);
  bool& first = first_[static_cast<unsigned char>(written[0])];
  if (!first) {
    first = true;
    ++first_count_;
    only_first_ = written[0];
  }
}

AddedTokenMatcher::Found AddedTokenMatcher::longest_at(std::string_view text, std::size_t begin) const {
  Found found;
  std::uint32_t node = 0;
  for (std::size_t at = begin; at < text.size(); ++at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const auto& next = nodes_[node].next;
    const auto edge = std::find_if(next.begin(), next.end(), [&](const auto& one) { return one.first == byte; });
    if (edge == next.end()) break;
    node = edge->second;
    if (nodes_[node].token >= 0) found = {at + 1, nodes_[node].token};
  }
  return found;
}

void AddedTokenMatcher::split(std::string_view text, std::vector<AddedTokenMatch>& matches) const {
  matches.clear();
  std::size_t done = 0;
  for (std::size_t at = 0; first_count_ > 0 && at < text.size();) {
    if (first_count_ == 1) {
      at = std::min(text.find(only_first_, at), text.size());
    } else {
      while (at < text.size() && !first_[static_cast<unsigned char>(text[at])]) ++at;
    }
    const Found found = longest_at(text, at);
    if (found.token < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(found.token)];
    const std::size_t match_begin = at;
    at = found.end;
    if (token.single_word && word_touches(text, match_begin, found.end)) continue;
    const std::size_t begin = token.lstrip ? std::max(without_space_before(text, match_begin), done) : match_begin;
    const std::size_t end = token.rstrip ? without_space_after(text, found.end) : found.end;
    if (done < begin) matches.push_back({-1, done, begin});
    matches.push_back({token.id, begin, end});
    done = end;
  }
  if (done < text.size()) matches.push_back({-1, done, text.size()});
}

}  // namespace llmfp8
