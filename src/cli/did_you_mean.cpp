// Damerau-Levenshtein distance, then containment ("epochs" for "num_epochs").
#include "cli/did_you_mean.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace llmfp8 {
namespace {

constexpr std::size_t kLongestWord = 64;  // bounds the table for a hostile argument
constexpr std::size_t kShortestPart = 4;

std::string folded(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// Insertions, deletions, replacements and swaps of neighbours, one each.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  const std::size_t width = b.size() + 1;
  std::vector<std::size_t> table((a.size() + 1) * width);
  const auto at = [&](std::size_t i, std::size_t j) -> std::size_t& { return table[i * width + j]; };
  for (std::size_t i = 0; i <= a.size(); ++i) at(i, 0) = i;
  for (std::size_t j = 0; j <= b.size(); ++j) at(0, j) = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = at(i - 1, j - 1) + (a[i - 1] == b[j - 1] ? 0 : 1);
      at(i, j) = std::min({at(i - 1, j) + 1, at(i, j - 1) + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        at(i, j) = std::min(at(i, j), at(i - 2, j - 2) + 1);
    }
  }
  return at(a.size(), b.size());
}

}  // namespace

std::string nearest_name(std::string_view word, std::span<const std::string> names) {
  if (word.empty() || word.size() > kLongestWord) return {};
  const std::string wanted = folded(word);
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, wanted.size() / 3) + 1;
  for (const std::string& name : names) {
    const std::size_t distance = edit_distance(wanted, folded(name));
    if (distance < best_distance) {
      best_distance = distance;
      best = name;
    }
  }
  if (!best.empty() || wanted.size() < kShortestPart) return best;
  std::size_t best_length = 0;
  for (const std::string& name : names) {
    const std::string known = folded(name);
    const std::size_t shorter = std::min(known.size(), wanted.size());
    if (shorter < kShortestPart) continue;
    // The longest part in common wins; among names that hold the word, the shortest name.
    const bool contains = known.find(wanted) != std::string::npos || wanted.find(known) != std::string::npos;
    if (contains && (shorter > best_length || (shorter == best_length && name.size() < best.size()))) {
      best_length = shorter;
      best = name;
    }
  }
  return best;
}

}  // namespace llmfp8
