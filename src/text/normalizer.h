// Unicode normalisation of a text before it is split. Called by the tokenizer.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmfp8 {

enum class NormalizerKind { none, nfc };

class Normalizer {
 public:
  explicit Normalizer(NormalizerKind kind = NormalizerKind::none) : kind_(kind) {}

  // text: valid UTF-8. The result is text itself, or lies in buffer.
  std::string_view apply(std::string_view text, std::string& buffer) const;

  // Where each of `boundaries` (ascending byte offsets into text, ≤ text.size()) lies in the normalised text. Where the
  // characters on its two sides become one, the boundary falls inside that one.
  std::vector<std::size_t> map_boundaries(std::string_view text, std::span<const std::size_t> boundaries) const;

 private:
  NormalizerKind kind_;
};

// Canonical composition with the tables of HF tokenizers (Unicode 9).
std::string nfc(std::string_view text);

}  // namespace llmfp8
