// What the ranks of a run agree on in every step. A run on one device has none; ddp and fsdp implement it. Everything is
// enqueued on the stream of the engine's Ops and reads and writes device memory in place.
#pragma once

#include "core/step_scalars.h"
#include "params/grad_target.h"

namespace llmfp8 {

class RankReducer {
 public:
  virtual ~RankReducer() = default;

  // amaxes: f32 [slots], the maximum over ranks. After the backward passes of a step, and of the calibration.
  virtual void max_amaxes(const Tensor& amaxes) = 0;
  // Gradients of the sum of token losses add up over ranks, and so do scalars->loss_sum and num_supervised.
  virtual void sum_gradients(GradTarget& grads, StepScalars* scalars) = 0;
  // scalars->grad_sum_squares, where each rank has squared only its shard.
  virtual void sum_squares(StepScalars* scalars) = 0;
};

}  // namespace llmfp8
