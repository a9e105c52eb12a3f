// Splits a normalised text into the words within which byte pairs are merged. Called by the tokenizer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/regex.h"

namespace llmfp8 {

enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct SplitStep {
  std::variant<Regex, std::string> pattern;  // string: searched for literally
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;  // what lies between the matches takes the matches' part
};

struct DigitsStep {
  bool individual = false;
};

struct ByteLevelStep {
  bool add_prefix_space = false;
  std::unique_ptr<Regex> regex;  // GPT-2's pattern, or null
};

using PretokenizerStep = std::variant<SplitStep, DigitsStep, ByteLevelStep>;

// A word: bytes of the text, with one space put before them or not.
struct Word {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool prefix_space = false;
};

class Pretokenizer {
 public:
  // steps: ByteLevel last, and only there.
  explicit Pretokenizer(std::vector<PretokenizerStep> steps = {}) : steps_(std::move(steps)) {}

  // text: valid UTF-8, not empty. words: overwritten.
  void split(std::string_view text, std::vector<Word>& words) const;

 private:
  std::vector<PretokenizerStep> steps_;
};

extern const std::string_view kGpt2Pattern;

}  // namespace llmfp8
