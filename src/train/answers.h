// The final answer of a worked solution, and whether two answers mean the same. Called by answer_eval.
//
// Compared are, in this order: the normalised texts; the values, as exact fractions. Normalising drops what does not
// change an answer's meaning: blanks, $ signs, commas between thousands, a final period, \text{…} around words, a unit
// behind a number, a percent sign, "x =" before it. No tolerance: 0.33 is not 1/3.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace llmfp8 {

// The content of the last \boxed{…} whose braces close, else the last number of the text; empty if there is neither.
std::string extract_answer(std::string_view text);

std::string normalize_answer(std::string_view answer);

// In lowest terms, denominator > 0.
struct Fraction {
  std::int64_t numerator = 0, denominator = 1;
  bool operator==(const Fraction&) const = default;
};

// "-3", "0.75", "3/4", "\frac{3}{4}", "1\frac{1}{2}", "1 1/2", "2.5e3" is none. Nothing where it does not fit 64 bits.
// normalized: of normalize_answer.
std::optional<Fraction> answer_value(std::string_view normalized);

// False where either is empty.
bool answers_agree(std::string_view a, std::string_view b);

}  // namespace llmfp8
