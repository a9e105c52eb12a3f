// The learning rate of every optimizer step, as HF transformers' schedules give it. Called by the trainer.
#pragma once

#include <cstdint>

#include "core/settings.h"

namespace llmfp8 {

struct LrSchedule {
  LrScheduler kind = LrScheduler::linear;
  double base_lr = 0.0;
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 0;
};

// step counts from 0; steps at and beyond total_steps have rate 0 (linear), the cosine's continuation, or base_lr.
double learning_rate(const LrSchedule& schedule, std::int64_t step);

}  // namespace llmfp8
