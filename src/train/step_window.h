// What has run since a log, or since an epoch began. Kept by the trainer and by its checkpoints.
#pragma once

#include <cstdint>

#include "train/engine.h"

namespace llmfp8 {

struct StepWindow {
  std::int64_t steps = 0;
  std::int64_t tokens = 0;
  std::int64_t positions = 0;  // that were computed: tokens and what fills the capacities of batches
  std::int64_t supervised = 0;
  double loss_sum = 0;  // over supervised tokens
  double seconds = 0;
  std::int64_t pairs = 0;  // HostBatch::causal_pairs

  void add(const StepResult& result, double step_seconds) {
    steps += 1;
    tokens += result.num_tokens;
    positions += result.num_positions;
    pairs += result.num_pairs;
    seconds += step_seconds;
    if (!result.ok) return;  // nothing was learnt
    supervised += result.num_supervised;
    loss_sum += result.loss * static_cast<double>(result.num_supervised);
  }
};

}  // namespace llmfp8
