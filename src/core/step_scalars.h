// Everything that changes from one optimizer step to the next, in device memory, so that a step can be captured as a
// graph and so that a bad step is stopped on the device. The host writes the first group before a step, the backend the
// second; kernels only read.
#pragma once

#include <cstdint>

namespace llmfp8 {

struct alignas(16) StepScalars {
  // Written by the host before the step.
  float learning_rate = 0.0f;
  float bias_correction1 = 1.0f;     // 1 - beta1^t, t = 1, 2, …
  float bias_correction2 = 1.0f;     // 1 - beta2^t
  float max_grad_norm = 0.0f;        // 0: no clipping
  std::uint64_t rounding_key = 0;    // Philox key of this step's stochastic rounding
  std::uint32_t step = 0;            // t

  // Written on the device: the sums by Ops::accumulate_loss and Ops::accumulate_sum_of_squares, the rest by
  // Ops::finish_gradient. The host sets them to zero with the first group.
  std::uint32_t num_supervised = 0;  // of the step, all micro-batches and ranks
  double loss_sum = 0.0;             // sum of token losses of the step
  double grad_sum_squares = 0.0;     // of the gradient of that sum
  float inv_denominator = 0.0f;      // 1 / num_supervised; 0 where nothing is supervised
  float grad_norm = 0.0f;            // L2 norm of the gradient of the token mean, before clipping
  float grad_scale = 0.0f;           // what AdamW multiplies a gradient of the *sum* with: inv_denominator * clip coefficient
  std::uint32_t step_ok = 0;         // 1: loss and gradient norm are finite. 0: AdamW, quantisation and scales change nothing

  // Written by Ops::finish_gradient, cleared by the host once it knows; kept from step to step. 1: a step was not finite,
  // and the steps that the host had enqueued behind it before it could know do nothing either.
  std::uint32_t halted = 0;
};

}  // namespace llmfp8
