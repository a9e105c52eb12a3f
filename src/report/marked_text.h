// A row as text in which a reader sees what is learnt. Called by the trainers and `llm-fp8 data`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace llmfp8 {

struct ShownToken {
  std::string text;
  std::vector<std::int32_t> ids;  // several where only together they make a character
  bool is_learnt = false;
  bool is_special = false;
};

enum class Marks { grey, quotes };  // what is not learnt: grey on a terminal, or between « and »

// max_chars: bytes of the text, without its marks; what is beyond becomes "…".
std::string marked_text(std::span<const ShownToken> tokens, Marks marks, std::size_t max_chars);

}  // namespace llmfp8
