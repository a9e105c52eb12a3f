// Delayed scaling's update, and the scalars between gradient and optimizer. Called by CudaOps.
#include <cmath>

#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/kernels.h"

namespace llmfp8::cuda {
namespace {

// One thread a matrix: history[0] := amax, then delayed_scale_update (core/fp8_scaling.h). Grid covers n; the division
// is IEEE. history [n, length], scale and scale_inv [n, 4] f32, column 0.
__global__ void update_scales_kernel(const float* amax, Matrix<float> history, Matrix<float> scale,
                                     Matrix<float> scale_inv, const float* format_max, AmaxAlgorithm algorithm,
                                     int margin, const StepScalars* scalars) {
  if (scalars != nullptr && scalars->step_ok == 0) return;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= history.rows) return;
  const float max = format_max[i];
  if (max == 0.0f) return;
  float* window = history.row(i);
  window[0] = amax[i];
  const float next =
      delayed_scale_update(window, static_cast<int>(history.cols), algorithm, max, margin, *scale.row(i));
  *scale.row(i) = next;
  *scale_inv.row(i) = 1.0f / next;
}

// One thread; fp64 as on the CPU, so that grad_scale has the same bits for the same sums.
__global__ void finish_gradient_kernel(StepScalars* scalars) {
  StepScalars& s = *scalars;
  const double denominator = static_cast<double>(s.num_supervised);
  s.inv_denominator = s.num_supervised > 0 ? static_cast<float>(1.0 / denominator) : 0.0f;
  const double norm = s.num_supervised > 0 ? sqrt(s.grad_sum_squares) / denominator : 0.0;
  s.grad_norm = static_cast<float>(norm);
  const double bound = static_cast<double>(s.max_grad_norm) / (norm + 1e-6);
  // std::min(1.0, bound): a NaN bound gives 1.
  const double coefficient = s.max_grad_norm > 0.0f ? (bound < 1.0 ? bound : 1.0) : 1.0;
  s.grad_scale = s.num_supervised > 0 ? static_cast<float>(coefficient / denominator) : 0.0f;
  // The sum is asked too: with nothing supervised the norm is zero whatever the gradient holds.
  const bool finite = isfinite(s.loss_sum) && isfinite(s.grad_sum_squares) && isfinite(s.grad_norm);
  if (!finite) s.halted = 1u;
  s.step_ok = s.halted == 0 && s.num_supervised > 0 ? 1u : 0u;
}

}  // namespace

void update_scales(const ScaleUpdateArgs& args, cudaStream_t stream) {
  const std::int64_t n = args.amax.numel();
  if (n == 0) return;
  constexpr int kThreads = 64;
  update_scales_kernel<<<static_cast<unsigned>(ceil_div(n, kThreads)), kThreads, 0, stream>>>(
      args.amax.as<const float>(), matrix<float>(args.history), matrix<float>(args.scale),
      matrix<float>(args.scale_inv), args.format_max.as<const float>(), args.algorithm, args.margin, args.scalars);
  check_launch("update_scales");
}

void finish_gradient(StepScalars* scalars, cudaStream_t stream) {
  finish_gradient_kernel<<<1, 1, 0, stream>>>(scalars);
  check_launch("finish_gradient");
}

}  // namespace llmfp8::cuda
