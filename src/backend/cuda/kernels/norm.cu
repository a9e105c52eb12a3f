// RMSNorm forward and backward; norm_quantize.cu has the forward pass fused with the cast to FP8. Called by CudaOps.
//
// Sums run in an order that follows from the shape alone: per thread over its vectors, lanes, warps. They are fp32, but
// for the projection of the backward pass in f32 mode: its terms cancel, and dx would inherit the loss.
#include "backend/cuda/kernels/kernels.h"
#include "backend/cuda/kernels/norm.cuh"

namespace llmfp8::cuda {
namespace {

template <typename Body>
void with_per(int per, Body&& body) {
  switch (per) {
    case 2: return body(std::integral_constant<int, 2>());
    case 4: return body(std::integral_constant<int, 4>());
    default: return body(std::integral_constant<int, 0>());
  }
}

template <typename A, int N>
__device__ inline void normalize(const float (&x)[N], const A* weight, float rstd, A* to) {
  float w[N], y[N];
  load<N>(weight, w);
#pragma unroll
  for (int i = 0; i < N; ++i) y[i] = x[i] * rstd * w[i];
  store<N>(y, to);
}

// rstd = 1 / sqrt(mean(x^2) + eps), y = x * rstd * weight. A block takes a row and strides over the grid.
template <typename A, int N, int kPer>
__global__ void __launch_bounds__(512) rmsnorm_kernel(Matrix<const A> x, const A* weight, Matrix<A> y, float* rstds,
                                                      const std::int32_t* num_rows, double eps) {
  __shared__ float room[kWarp];
  const std::int64_t live = live_rows(num_rows, x.rows), vectors = x.cols / N;
  for (std::int64_t row = blockIdx.x; row < x.rows; row += gridDim.x) {
    A* to = y.row(row);
    if (row >= live) {
      for (std::int64_t i = threadIdx.x; i < vectors; i += blockDim.x) store_zero<N>(to + i * N);
      if (threadIdx.x == 0) rstds[row] = 0.0f;
      continue;
    }
    const A* from = x.row(row);
    float squares = 0.0f;
    if constexpr (kPer > 0) {
      float v[kPer][N];
#pragma unroll
      for (int p = 0; p < kPer; ++p) {
        const std::int64_t i = threadIdx.x + p * blockDim.x;
        if (i < vectors) load<N>(from + i * N, v[p]);
      }
#pragma unroll
      for (int p = 0; p < kPer; ++p) {
        if (threadIdx.x + p * blockDim.x < vectors) add_squares(v[p], squares);
      }
      const float rstd = rstd_of(block_sum(squares, room), x.cols, eps);
      if (threadIdx.x == 0) rstds[row] = rstd;
#pragma unroll
      for (int p = 0; p < kPer; ++p) {
        const std::int64_t i = threadIdx.x + p * blockDim.x;
        if (i < vectors) normalize<A>(v[p], weight + i * N, rstd, to + i * N);
      }
    } else {
      for (std::int64_t i = threadIdx.x; i < vectors; i += blockDim.x) {
        float v[N];
        load<N>(from + i * N, v);
        add_squares(v, squares);
      }
      const float rstd = rstd_of(block_sum(squares, room), x.cols, eps);
      if (threadIdx.x == 0) rstds[row] = rstd;
      for (std::int64_t i = threadIdx.x; i < vectors; i += blockDim.x) {
        float v[N];
        load<N>(from + i * N, v);
        normalize<A>(v, weight + i * N, rstd, to + i * N);
      }
    }
  }
}

// ---- backward

// The type of sum(dy * weight * x) of a row. bf16: dx is rounded far more coarsely than an fp32 sum errs.
template <typename A>
using Projection = std::conditional_t<std::is_same_v<A, float>, double, float>;

template <typename P>
__device__ inline void add_projection(float w, float dy, float x, P& projection) {
  projection = fma(static_cast<P>(w) * static_cast<P>(dy), static_cast<P>(x), projection);
}

template <typename P>
__device__ inline float shrink_of(P projection, std::int64_t cols, float rstd) {
  return static_cast<float>(projection / static_cast<P>(cols) * rstd * rstd);
}

// Blocks of the first stage: about 1024 threads on each of 132 multiprocessors. From the shape alone, since the order
// of summation follows from it.
std::int64_t backward_blocks(std::int64_t rows, std::int64_t cols) {
  const std::int64_t most = 132 * (cols <= 2048 ? 8 : (cols <= 4096 ? 4 : 2));
  return std::clamp<std::int64_t>(rows, 1, most);
}

template <typename A>
struct NormBackward {
  Matrix<const A> dy, x;
  const A* weight;
  const float* rstd;
  const std::int32_t* num_rows;
  const A* residual;  // null: none
  std::int64_t residual_stride;
  Matrix<A> dx;
  float* partials;  // f32 [blocks, cols]
};

// dx of N columns of a row. residual: zero where there is none.
template <typename A, int N>
__device__ inline void store_dx(A* to, const float (&dy)[N], const float (&x)[N], const float (&w)[N],
                                const float (&residual)[N], float rstd, float shrink) {
  float dx[N];
#pragma unroll
  for (int i = 0; i < N; ++i) dx[i] = rstd * (dy[i] * w[i] - x[i] * shrink) + residual[i];
  store<N>(dx, to);
}

// dx, and partials[block] := sum over the block's rows (block, block + grid, …) of dy * x * rstd. A thread keeps the
// weight-gradient sums of its columns in registers (kPer > 0) or in its part of `partials` (kPer 0: rows that are long
// or unaligned; slower). dx may be the residual, dy or x: a thread reads its columns of the row before it writes them.
template <typename A, int N, int kPer>
__global__ void __launch_bounds__(512) rmsnorm_backward_kernel(NormBackward<A> args) {
  __shared__ Projection<A> room[kWarp];
  const std::int64_t rows = args.x.rows, live = live_rows(args.num_rows, rows), cols = args.x.cols, vectors = cols / N;
  float* partial = args.partials + blockIdx.x * cols;
  constexpr int kHeld = kPer > 0 ? kPer : 1;
  float sums[kHeld][N] = {};
  if constexpr (kPer == 0) {
    for (std::int64_t i = threadIdx.x; i < vectors; i += blockDim.x) {
      for (int k = 0; k < N; ++k) partial[i * N + k] = 0.0f;
    }
  }
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    if (row >= live) {
      for (std::int64_t i = threadIdx.x; i < vectors; i += blockDim.x) store_zero<N>(args.dx.row(row) + i * N);
      continue;
    }
    const A* dy_row = args.dy.row(row);
    const A* x_row = args.x.row(row);
    const A* residual_row = args.residual == nullptr ? nullptr : args.residual + row * args.residual_stride;
    const float rstd = args.rstd[row];
    Projection<A> projection = 0;
    if constexpr (kPer > 0) {
      // Kept as loaded, 16 bytes each, for the registers; the residual is fetched early, too.
      uint4 raw_dy[kPer], raw_x[kPer], raw_residual[kPer];
      float dy[N], x[N], w[N], residual[N];
#pragma unroll
      for (int p = 0; p < kPer; ++p) {
        const std::int64_t i = threadIdx.x + p * blockDim.x;
        if (i >= vectors) continue;
        raw_dy[p] = *reinterpret_cast<const uint4*>(dy_row + i * N);
        raw_x[p] = *reinterpret_cast<const uint4*>(x_row + i * N);
        raw_residual[p] =
            residual_row == nullptr ? make_uint4(0, 0, 0, 0) : *reinterpret_cast<const uint4*>(residual_row + i * N);
      }
#pragma unroll
      for (int p = 0; p < kPer; ++p) {
        const std::int64_t i = threadIdx.x + p * blockDim.x;
        if (i >= vectors) continue;
        unpack(raw_dy[p], dy), unpack(raw_x[p], x), load<N>(args.weight + i * N, w);
#pragma unroll
        for (int k = 0; k < N; ++k) {
          sums[p][k] += dy[k] * (x[k] * rstd);
          add_projection(w[k], dy[k], x[k], projection);
        }
      }
      const float shrink = shrink_of(block_sum(projection, room), cols, rstd);
#pragma unroll
      for (int p = 0; p < kPer; ++p) {
        const std::int64_t i = threadIdx.x + p * blockDim.x;
        if (i >= vectors) continue;
        unpack(raw_dy[p], dy), unpack(raw_x[p], x), unpack(raw_residual[p], residual);
        load<N>(args.weight + i * N, w);
        store_dx(args.dx.row(row) + i * N, dy, x, w, residual, rstd, shrink);
      }
    } else {
      float dy[N], x[N], w[N], residual[N] = {};
      for (std::int64_t i = threadIdx.x; i < vectors; i += blockDim.x) {
        load<N>(dy_row + i * N, dy), load<N>(x_row + i * N, x), load<N>(args.weight + i * N, w);
        for (int k = 0; k < N; ++k) {
          partial[i * N + k] += dy[k] * (x[k] * rstd);
          add_projection(w[k], dy[k], x[k], projection);
        }
      }
      const float shrink = shrink_of(block_sum(projection, room), cols, rstd);
      for (std::int64_t i = threadIdx.x; i < vectors; i += blockDim.x) {
        load<N>(dy_row + i * N, dy), load<N>(x_row + i * N, x), load<N>(args.weight + i * N, w);
        if (residual_row != nullptr) load<N>(residual_row + i * N, residual);
        store_dx(args.dx.row(row) + i * N, dy, x, w, residual, rstd, shrink);
      }
    }
  }
  if constexpr (kPer > 0) {
#pragma unroll
    for (int p = 0; p < kPer; ++p) {
      const std::int64_t i = threadIdx.x + p * blockDim.x;
      if (i < vectors) store<N>(sums[p], partial + i * N);
    }
  }
}

constexpr int kSumColumns = 32, kSumLanes = 8;

// d_weight (+)= sum of the blocks' partials in fp64. A block takes 32 columns (threadIdx.x); its 8 lanes (threadIdx.y)
// take every 8th partial and are added in order.
template <typename G>
__global__ void weight_gradient_kernel(const float* partials, std::int64_t blocks, std::int64_t cols, bool accumulate,
                                       G* out) {
  __shared__ double room[kSumLanes][kSumColumns + 1];
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kSumColumns + threadIdx.x;
  double total = 0.0;
  if (column < cols) {
#pragma unroll 8
    for (std::int64_t b = threadIdx.y; b < blocks; b += kSumLanes)
      total += static_cast<double>(partials[b * cols + column]);
  }
  room[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y != 0 || column >= cols) return;
  for (int lane = 1; lane < kSumLanes; ++lane) total += room[lane][threadIdx.x];
  if (accumulate) total += static_cast<double>(as_float(out[column]));
  out[column] = from_float<G>(static_cast<float>(total));
}

}  // namespace

void rmsnorm(const RmsnormArgs& args, cudaStream_t stream) {
  if (args.x.numel() == 0) return;
  with_activation(args.x.dtype, [&](auto a) {
    using A = decltype(a);
    const bool vector = vector_rows(args.x) && vector_rows(args.y) && aligned(args.weight.data, 16);
    with_vector<A>(vector, [&](auto n) {
      const RowLayout layout = row_layout(args.x.cols() / n(), vector);
      with_per(layout.per, [&](auto per) {
        rmsnorm_kernel<A, n(), n() == 1 ? 0 : per()><<<grid_for(args.x.rows(), 1 << 20), layout.threads, 0, stream>>>(
            matrix<const A>(args.x), args.weight.as<const A>(), matrix<A>(args.y), args.rstd.as<float>(),
            count_of(args.num_rows), args.eps);
      });
    });
  });
  check_launch("rmsnorm");
}

std::size_t rmsnorm_backward_scratch_bytes(const RmsnormBackwardArgs& args) {
  return static_cast<std::size_t>(backward_blocks(args.x.rows(), args.x.cols()) * args.x.cols()) * sizeof(float);
}

void rmsnorm_backward(const RmsnormBackwardArgs& args, void* scratch, cudaStream_t stream) {
  const std::int64_t cols = args.x.cols(), blocks = backward_blocks(args.x.rows(), args.x.cols());
  if (cols == 0) return;
  float* partials = static_cast<float*>(scratch);
  const bool residual = args.d_residual.defined();
  with_activation(args.x.dtype, [&](auto a) {
    using A = decltype(a);
    const bool vector = vector_rows(args.x) && vector_rows(args.dy) && vector_rows(args.dx) && aligned(partials, 16) &&
                        aligned(args.weight.data, 16) && (!residual || vector_rows(args.d_residual));
    const NormBackward<A> kernel_args{matrix<const A>(args.dy),
                                      matrix<const A>(args.x),
                                      args.weight.as<const A>(),
                                      args.rstd.as<const float>(),
                                      count_of(args.num_rows),
                                      residual ? args.d_residual.as<const A>() : nullptr,
                                      residual ? args.d_residual.row_stride : 0,
                                      matrix<A>(args.dx),
                                      partials};
    with_vector<A>(vector, [&](auto n) {
      const RowLayout layout = row_layout(cols / n(), vector);
      with_per(layout.per, [&](auto per) {
        rmsnorm_backward_kernel<A, n(), n() == 1 ? 0 : per()>
            <<<static_cast<unsigned>(blocks), layout.threads, 0, stream>>>(kernel_args);
      });
    });
  });
  check_launch("rmsnorm_backward");
  with_activation(args.d_weight.tensor.dtype, [&](auto g) {
    using G = decltype(g);
    weight_gradient_kernel<G>
        <<<static_cast<unsigned>(ceil_div(cols, kSumColumns)), dim3(kSumColumns, kSumLanes), 0, stream>>>(
            partials, blocks, cols, args.d_weight.accumulate, args.d_weight.tensor.as<G>());
  });
  check_launch("rmsnorm_backward (weight)");
}

}  // namespace llmfp8::cuda
