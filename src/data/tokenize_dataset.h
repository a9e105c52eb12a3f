// A data set tokenised, in parallel and in bounded memory, into a training and a held-out store; a large one's tokens are kept on
// the disk and found again. Called by the trainer.
#pragma once

#include <array>
#include <cstdint>

#include "data/dataset.h"
#include "data/split.h"
#include "data/supervision.h"
#include "data/table_builder.h"
#include "data/token_store.h"

namespace llmfp8 {

struct TokenizedDataset {
  TokenStore train, held_out;                             // rows in the split's order
  std::array<std::int64_t, kRowFaults> rows_by_fault{};   // [RowFault]; of the rows of both, of a large data set of its first ones
  std::int64_t dropped() const;
};

// The split is made on the data set's row numbers, as HF makes it; rows that cannot be used are dropped afterwards, so
// that a faulty row does not move the others; from a large data set none is dropped (see token_store.h).
// With Rows::while_used, dataset and encoder outlive what is returned.
// Throws Error: no usable row in a part that has rows, no supervised token in the training part.
TokenizedDataset tokenize_dataset(const Dataset& dataset, const SplitRows& split, const RowEncoder& encoder,
                                  const TokenizeOptions& options = {});

}  // namespace llmfp8
