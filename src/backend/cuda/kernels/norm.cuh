// What the forward kernels of RMSNorm share: how a row is spread over threads, which fixes the order of its sum, and the
// factor made of it. Included by norm.cu and norm_quantize.cu.
#pragma once

#include "backend/cuda/kernels/device.cuh"

namespace llmfp8::cuda {

// How a row is spread over a block: thread t takes vectors t, t + threads, …, at most kPer of them, in registers.
// kPer 0: any number, read again from memory where they are needed a second time.
struct RowLayout {
  int threads;
  int per;
};

inline RowLayout row_layout(std::int64_t vectors, bool vector) {
  const int threads =
      static_cast<int>(std::clamp<std::int64_t>(ceil_div(ceil_div(vectors, 2), kWarp) * kWarp, kWarp, 512));
  const std::int64_t per = ceil_div(vectors, threads);
  return {threads, vector && per <= 4 ? (per <= 2 ? 2 : 4) : 0};
}

__device__ inline float rstd_of(float squares, std::int64_t cols, double eps) {
  return static_cast<float>(1.0 / sqrt(static_cast<double>(squares) / static_cast<double>(cols) + eps));
}

template <int N>
__device__ inline void add_squares(const float (&x)[N], float& squares) {
#pragma unroll
  for (int i = 0; i < N; ++i) squares = fmaf(x[i], x[i], squares);
}

}  // namespace llmfp8::cuda
