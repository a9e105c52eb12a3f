// Unicode facts where the libraries' tables and those of HF tokenizers differ. Called by the regex translator and the
// NFC normaliser.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace llmfp8 {

struct CodeRange {
  char32_t first = 0;
  char32_t last = 0;  // inclusive
};

// Members of a general category ("L", "Lu", "Nd", …) that PCRE2's tables may lack; nothing for one not held here.
std::optional<std::vector<CodeRange>> new_members_of(std::string_view category);

bool is_new_numeric(char32_t code);     // of category N, but perhaps not in the libraries' tables
bool is_unknown_to_nfc(char32_t code);  // HF's NFC leaves it, and what stands on its two sides, apart

// ranges: ascending, disjoint.
bool in_ranges(std::span<const CodeRange> ranges, char32_t code);

}  // namespace llmfp8
