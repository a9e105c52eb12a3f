// Every row of a data set tokenised, in parallel and in bounded memory, into a training and a held-out store; a large one's
// tokens are kept on the disk and found again. Called by the trainer.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "data/dataset.h"
#include "data/split.h"
#include "data/supervision.h"
#include "data/token_store.h"

namespace llmfp8 {

struct TokenizedDataset {
  TokenStore train, held_out;                             // rows in the split's order
  std::array<std::int64_t, kRowFaults> rows_by_fault{};   // [RowFault]; of the rows of both
  std::int64_t dropped() const;
  // "3 rows left out: 2 empty, 1 not UTF-8"; empty if there are none.
  std::string fault_summary() const;
};

struct TokenizeOptions {
  // Where tokens are kept (a folder for each data set and way to encode it is made in it); empty: in memory alone.
  std::filesystem::path cache;
  // Of a segment. A data set that fits into one is quickly made again: it stays in memory.
  std::int64_t segment_tokens = std::int64_t{16} << 20;
  // Called now and then from the calling thread, also while another process makes the same tokens; may throw.
  std::function<void(std::int64_t done, std::int64_t total)> progress;
};

// The split is made on the data set's row numbers, as HF makes it; rows that cannot be used are dropped afterwards, so
// that a faulty row does not move the others.
// Throws Error: no usable row in a part that has rows, no supervised token in the training part.
TokenizedDataset tokenize_dataset(const Dataset& dataset, const SplitRows& split, const RowEncoder& encoder,
                                  const TokenizeOptions& options = {});

}  // namespace llmfp8
