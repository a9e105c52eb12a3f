// Sums over everything: of token losses and of squared gradients. Called by CudaOps.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/kernels.h"
#include "core/step_scalars.h"

namespace llmfp8::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostBlocks = 132 * 8;  // fixed: the order of summation follows from the size alone
static_assert(kMostBlocks * sizeof(double) <= kWorkspaceBytes);

// partials[block] := sum of the squares of its elements. A thread takes kAhead times N elements at a time, all loads under way
// before the first is used, and strides over the grid. In fp64: the gradient of a sum over many tokens may square beyond the
// range of fp32.
constexpr int kAhead = 4;

template <int N>
__device__ inline void add_squares(const float (&v)[N], double (&totals)[2]) {
#pragma unroll
  for (int k = 0; k < N; ++k) totals[k % 2] = fma(static_cast<double>(v[k]), static_cast<double>(v[k]), totals[k % 2]);
}

template <typename G, int N>
__global__ void __launch_bounds__(kThreads) squares_kernel(const G* grad, std::int64_t n, double* partials) {
  __shared__ double room[kWarp];
  constexpr std::int64_t kTile = kThreads * N;
  const std::int64_t step = gridDim.x * kAhead * kTile;
  double totals[2] = {};
  for (std::int64_t first = blockIdx.x * kAhead * kTile; first < n; first += step) {
    const std::int64_t at = first + threadIdx.x * N;
    if (first + kAhead * kTile <= n) {
      float v[kAhead][N];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) load<N>(grad + at + a * kTile, v[a]);
#pragma unroll
      for (int a = 0; a < kAhead; ++a) add_squares(v[a], totals);
    } else {
      for (std::int64_t i = at; i < n; i += kTile) {
        for (std::int64_t k = i; k < std::min(i + N, n); ++k) {
          const double x = static_cast<double>(as_float(grad[k]));
          totals[0] = fma(x, x, totals[0]);
        }
      }
    }
  }
  const double total = block_sum(totals[0] + totals[1], room);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// partials[block] := sum of the live losses of the block's elements, and block 0 counts the rows.
__global__ void __launch_bounds__(kThreads)
    losses_kernel(const float* token_loss, std::int64_t rows, const std::int32_t* count, std::int64_t row_offset,
                  StepScalars* scalars, double* partials) {
  __shared__ double room[kWarp];
  const std::int64_t live = live_rows(count, rows, row_offset), step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  double total = 0.0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < live; i += step) {
    total += static_cast<double>(token_loss[i]);
  }
  total = block_sum(total, room);
  if (threadIdx.x != 0) return;
  partials[blockIdx.x] = total;
  if (blockIdx.x == 0) scalars->num_supervised += static_cast<std::uint32_t>(live);
}

// *sum += the partials; one block, threads take every 256th, then the order of block_sum.
__global__ void __launch_bounds__(kThreads) add_partials_kernel(const double* partials, int count, double* sum) {
  __shared__ double room[kWarp];
  double total = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) total += partials[i];
  total = block_sum(total, room);
  if (threadIdx.x == 0) *sum += total;
}

}  // namespace

void accumulate_loss(const Tensor& token_loss, const Tensor& count, std::int64_t row_offset, StepScalars* scalars,
                     void* workspace, cudaStream_t stream) {
  const std::int64_t rows = token_loss.numel();
  if (rows == 0) return;
  double* partials = static_cast<double*>(workspace);
  const unsigned blocks = grid_for(ceil_div(rows, kThreads * 4), kMostBlocks);
  losses_kernel<<<blocks, kThreads, 0, stream>>>(token_loss.as<const float>(), rows, count_of(count), row_offset,
                                                 scalars, partials);
  check_launch("accumulate_loss");
  add_partials_kernel<<<1, kThreads, 0, stream>>>(partials, static_cast<int>(blocks), &scalars->loss_sum);
  check_launch("accumulate_loss (sum)");
}

void accumulate_sum_of_squares(const Tensor& grad, StepScalars* scalars, void* workspace, cudaStream_t stream) {
  const std::int64_t n = grad.numel();
  if (n == 0) return;
  double* partials = static_cast<double*>(workspace);
  unsigned blocks = 0;
  with_activation(grad.dtype, [&](auto g) {
    using G = decltype(g);
    with_vector<G>(aligned(grad.data, 16), [&](auto width) {
      blocks = grid_for(ceil_div(n, kThreads * kAhead * kVector<G>), kMostBlocks);
      squares_kernel<G, width()><<<blocks, kThreads, 0, stream>>>(grad.as<const G>(), n, partials);
    });
  });
  check_launch("accumulate_sum_of_squares");
  add_partials_kernel<<<1, kThreads, 0, stream>>>(partials, static_cast<int>(blocks), &scalars->grad_sum_squares);
  check_launch("accumulate_sum_of_squares (sum)");
}

}  // namespace llmfp8::cuda
