// What a data set is made of, row by row and in bounded memory: lengths, what is cut, what is learnt, what stands there twice.
// Called by `llm-fp8 data`.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "data/dataset.h"
#include "data/supervision.h"
#include "data/token_store.h"

namespace llmfp8 {

// Things that are equal to an earlier one, by 64 bits of hash.
struct Repeats {
  std::int64_t count = 0;                                     // of rows that are equal to one before
  std::vector<std::pair<std::int64_t, std::int64_t>> pairs;  // the first few: a row, and the first one that it is equal to
};

struct DatasetStatistics {
  std::int64_t rows = 0;                                 // with those left out
  std::array<std::int64_t, kRowFaults> rows_by_fault{};  // [RowFault]; none: the usable ones
  std::map<std::int64_t, std::int64_t> rows_by_length;   // before truncation; usable rows alone, as all below
  std::int64_t tokens = 0;                               // after truncation
  std::int64_t supervised = 0;
  std::int64_t truncated_rows = 0, truncated_tokens = 0;
  std::int64_t unsupervised_rows = 0;  // rows without a single label
  Repeats repeated_rows;               // the same tokens, after truncation
  std::int64_t prompts = 0;            // rows that ask something; 0 for plain text
  Repeats repeated_prompts;

  std::int64_t usable() const { return rows_by_fault[0]; }
  double supervised_share() const { return tokens == 0 ? 0.0 : static_cast<double>(supervised) / static_cast<double>(tokens); }
  LengthQuantiles length_quantiles() const;
};

// Memory: two windows of text, 12 bytes for each row's tokens and again for its prompt.
// progress: called now and then from the calling thread; may throw. Throws Error as RowEncoder::encode does.
DatasetStatistics measure_dataset(const Dataset& dataset, const RowEncoder& encoder,
                                  const std::function<void(std::int64_t done, std::int64_t total)>& progress = {});

// Rows of consecutive lengths. The last bar has what is longer, where few rows are much longer than the others.
struct LengthBar {
  std::int64_t from = 0, to = 0;  // tokens, both within
  std::int64_t rows = 0, cut_rows = 0;  // cut_rows: of them, longer than max_seq_length
};
// At most `most` + 1 bars of one width, 1, 2 or 5 times a power of ten; none without a usable row.
std::vector<LengthBar> length_bars(const DatasetStatistics& statistics, std::int64_t max_seq_length, std::int64_t most);

}  // namespace llmfp8
