// Rows encoded on all cores. Called by tokenize_dataset, and by dataset_statistics, which wants more of each row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <future>
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

inline void add_row(SegmentBuilder& builder, const EncodedRow& row) {
  if (row.fault == RowFault::none) {
    builder.add(row.tokens);
  } else {
    builder.add_faulty(row.fault);
  }
}

// own_threads: beside whatever the pool is used for, which has one caller at a time.
enum class Cores { pool, own_threads };

// encode: from a number below `count` to an EncodedRow; called on all cores.
template <typename Encode>
std::vector<EncodedRow> encode_rows(std::int64_t count, const Encode& encode, Cores cores = Cores::pool) {
  std::vector<EncodedRow> encoded(static_cast<std::size_t>(count));
  const auto encode_some = [&](std::int64_t first, std::int64_t last) {
    for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i) encoded[i] = encode(i);
  };
  if (cores == Cores::pool) {
    parallel_for(count, 16, encode_some);
    return encoded;
  }
  const std::int64_t pieces = num_threads();
  std::vector<std::future<void>> others;
  for (std::int64_t piece = 1; piece < pieces; ++piece)
    others.push_back(std::async(std::launch::async, encode_some, count * piece / pieces, count * (piece + 1) / pieces));
  encode_some(0, count / pieces);
  for (std::future<void>& other : others) other.get();
  return encoded;
}

}  // namespace llmfp8
