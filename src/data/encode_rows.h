// Rows encoded on all cores. Called by tokenize_dataset, and by dataset_statistics, which wants more of each row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/thread_pool.h"
#include "data/supervision.h"

namespace llmfp8 {

struct EncodedRow {
  TokenizedRow tokens;
  RowFault fault = RowFault::none;
  std::uint64_t prompt = 0;  // a hash of what is asked, where wanted; 0: none
};

// Of a window that is read while the one before is encoded: enough rows for every core, few enough for a bar that moves.
inline std::int64_t rows_of_a_window() {
  constexpr std::int64_t kRowsOfACore = 256, kMostRows = 16384;
  return std::min(kMostRows, kRowsOfACore * std::max(2, num_threads()));
}

// A text of no tokens is of no use either.
inline EncodedRow encode_row(const RowEncoder& encoder, const DatasetRow& row) {
  EncodedRow encoded;
  encoded.fault = encoder.fault_of(row);
  if (encoded.fault != RowFault::none) return encoded;
  encoded.tokens = encoder.encode(row);
  if (encoded.tokens.ids.empty()) encoded.fault = RowFault::empty;
  return encoded;
}

// encode: from a number below `count` to an EncodedRow; called on all cores.
template <typename Encode>
std::vector<EncodedRow> encode_rows(std::int64_t count, const Encode& encode) {
  std::vector<EncodedRow> encoded(static_cast<std::size_t>(count));
  parallel_for(count, 16, [&](std::int64_t first, std::int64_t last) {
    for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i) encoded[i] = encode(i);
  });
  return encoded;
}

}  // namespace llmfp8
