#include "optim/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace llmfp8 {
namespace {

double at_least_one(std::int64_t steps) { return static_cast<double>(std::max<std::int64_t>(1, steps)); }

// The factor of base_lr; HF computes it first and multiplies last, which decides the last bit.
double factor(const LrSchedule& schedule, std::int64_t step) {
  if (step < schedule.warmup_steps) return static_cast<double>(step) / at_least_one(schedule.warmup_steps);
  const double decay_steps = at_least_one(schedule.total_steps - schedule.warmup_steps);
  switch (schedule.kind) {
    case LrScheduler::linear: return std::max(0.0, static_cast<double>(schedule.total_steps - step) / decay_steps);
    case LrScheduler::cosine: {
      constexpr double kNumCycles = 0.5;
      const double progress = static_cast<double>(step - schedule.warmup_steps) / decay_steps;
      return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * kNumCycles * 2.0 * progress)));
    }
    case LrScheduler::constant: break;
  }
  return 1.0;
}

}  // namespace

double learning_rate(const LrSchedule& schedule, std::int64_t step) {
  return schedule.base_lr * factor(schedule, step);
}

}  // namespace llmfp8
