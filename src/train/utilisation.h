// How much of what a device can do a run makes of it: the floating-point operations that its tokens need, over the rate of a
// large bf16 product on the same device. Called by the trainer.
#pragma once

#include "backend/backend.h"
#include "params/weight_table.h"

namespace llmfp8 {

// The operations of forward and backward pass that a model needs, whatever the engine does beside (batches filled up,
// activations computed again, quantisation).
class ModelFlops {
 public:
  explicit ModelFlops(const WeightTable& table);

  // pairs: of a token and one that it looks at, itself included (HostBatch::causal_pairs).
  double of(double tokens, double pairs) const { return tokens * per_token_ + pairs * per_pair_; }

 private:
  double per_token_ = 0;  // 6 for each weight of a matrix: head included, looking up an embedding is no product
  double per_pair_ = 0;   // 12 for each element of a query, in every layer
};

// FLOP/s of the best of some square bf16 products, up to 4096 wide where they are fast. Takes some hundredths of a second and
// memory for three matrices, which is given back.
double measured_matrix_rate(Backend& backend);

}  // namespace llmfp8
