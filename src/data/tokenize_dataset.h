// Every row of a data set tokenised, in parallel, into a training and a held-out store. Called by the trainer.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "data/dataset.h"
#include "data/split.h"
#include "data/supervision.h"
#include "data/token_store.h"

namespace llmfp8 {

struct TokenizedDataset {
  TokenStore train, held_out;                             // rows in the split's order
  std::array<std::int64_t, kRowFaults> rows_by_fault{};   // [RowFault]
  std::int64_t dropped() const;
  // "3 rows left out: 2 empty, 1 not UTF-8"; empty if there are none.
  std::string fault_summary() const;
};

// Called now and then from the calling thread.
using TokenizeProgress = std::function<void(std::int64_t done, std::int64_t total)>;

// The split is made on the data set's row numbers, as HF makes it; rows that cannot be used are dropped afterwards, so
// that a faulty row does not move the others. Rows in neither part of `split` are not tokenised.
// Throws Error: no usable row in a part that has rows, no supervised token in the training part.
TokenizedDataset tokenize_dataset(const Dataset& dataset, const SplitRows& split, const RowEncoder& encoder,
                                  const TokenizeProgress& progress = {});

}  // namespace llmfp8
