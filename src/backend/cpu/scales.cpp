// Delayed scaling's update, and the scalars between gradient and optimizer. Called by CpuOps.
#include <cmath>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"

namespace llmfp8::cpu {

void update_scales(const ScaleUpdateArgs& args) {
  if (args.scalars != nullptr && args.scalars->step_ok == 0) return;
  const std::int64_t n = args.amax.numel();
  const int length = static_cast<int>(args.history.cols());
  for (std::int64_t i = 0; i < n; ++i) {
    const float max = args.format_max.as<float>()[i];
    if (max == 0.0f) continue;
    float* history = row_of<float>(args.history, i);
    float& scale = *row_of<float>(args.scale, i);
    history[0] = args.amax.as<float>()[i];
    scale = delayed_scale_update(history, length, args.algorithm, max, args.margin, scale);
    *row_of<float>(args.scale_inv, i) = 1.0f / scale;
  }
}

void finish_gradient(StepScalars* scalars) {
  StepScalars& s = *scalars;
  const double denominator = static_cast<double>(s.num_supervised);
  s.inv_denominator = s.num_supervised > 0 ? static_cast<float>(1.0 / denominator) : 0.0f;
  const double norm = s.num_supervised > 0 ? std::sqrt(s.grad_sum_squares) / denominator : 0.0;
  s.grad_norm = static_cast<float>(norm);
  const double coefficient =
      s.max_grad_norm > 0.0f ? std::min(1.0, static_cast<double>(s.max_grad_norm) / (norm + 1e-6)) : 1.0;
  s.grad_scale = s.num_supervised > 0 ? static_cast<float>(coefficient / denominator) : 0.0f;
  // The sum is asked too: with nothing supervised the norm is zero whatever the gradient holds.
  const bool finite = std::isfinite(s.loss_sum) && std::isfinite(s.grad_sum_squares) && std::isfinite(s.grad_norm);
  if (!finite) s.halted = 1u;
  s.step_ok = s.halted == 0 && s.num_supervised > 0 ? 1u : 0u;
}

}  // namespace llmfp8::cpu
