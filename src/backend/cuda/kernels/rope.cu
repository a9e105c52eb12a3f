// Rotary position embedding, in place, forward and inverse. Called by CudaOps.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/kernels.h"

namespace llmfp8::cuda {
namespace {

struct RopeShape {
  std::int64_t width;  // of a row of qkv: all heads
  std::int64_t rotated_heads;
  std::int64_t half;  // head_dim / 2
  float sign;
};

// first = x cos - y sin, second = y cos + x sin for x, y half a head apart; without contraction, as on the CPU.
// A block takes a row and strides over the grid; a thread takes N pairs of a head, so it alone reads and writes them.
// Rows at and beyond the count are zeroed, the values' part included. N > 1: half is a multiple of N and rows are
// 16-byte aligned.
template <typename A, int N>
__global__ void __launch_bounds__(256)
    rope_kernel(Matrix<A> qkv, const std::int32_t* positions, const std::int32_t* num_tokens,
                Matrix<const float> cos_sin, RopeShape shape) {
  const std::int64_t live = live_rows(num_tokens, qkv.rows);
  const int per_head = static_cast<int>(shape.half / N);
  const int pieces = static_cast<int>(shape.rotated_heads) * per_head;
  for (std::int64_t row = blockIdx.x; row < qkv.rows; row += gridDim.x) {
    A* data = qkv.row(row);
    if (row >= live) {
      for (std::int64_t c = static_cast<std::int64_t>(threadIdx.x) * N; c < shape.width; c += blockDim.x * N) {
        store_zero<N>(data + c);
      }
      continue;
    }
    const std::int32_t position = positions[row];
    require(position >= 0 && position < cos_sin.rows);
    const float* cosines = cos_sin.row(position);
    const float* sines = cosines + shape.half;
    for (int piece = static_cast<int>(threadIdx.x); piece < pieces; piece += static_cast<int>(blockDim.x)) {
      const int head = piece / per_head, i = (piece - head * per_head) * N;
      A* first = data + head * (2 * shape.half) + i;
      A* second = first + shape.half;
      float x[N], y[N];
      load<N>(first, x);
      load<N>(second, y);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const float c = cosines[i + k], s = shape.sign * sines[i + k];
        const float rotated = __fsub_rn(__fmul_rn(x[k], c), __fmul_rn(y[k], s));
        y[k] = __fadd_rn(__fmul_rn(y[k], c), __fmul_rn(x[k], s));
        x[k] = rotated;
      }
      store<N>(x, first);
      store<N>(y, second);
    }
  }
}

}  // namespace

void rope(const RopeArgs& args, cudaStream_t stream) {
  if (args.qkv.numel() == 0) return;
  const RopeShape shape{args.qkv.cols(), args.num_heads + args.num_kv_heads, args.head_dim / 2,
                        args.inverse ? -1.0f : 1.0f};
  with_activation(args.qkv.dtype, [&](auto a) {
    using A = decltype(a);
    with_vector<A>(vector_rows(args.qkv) && shape.half % kVector<A> == 0, [&](auto n) {
      const std::int64_t pieces = shape.rotated_heads * shape.half / n();
      const unsigned threads =
          static_cast<unsigned>(std::clamp<std::int64_t>(ceil_div(pieces, kWarp) * kWarp, kWarp, 256));
      rope_kernel<A, n()><<<grid_for(args.qkv.rows(), 132 * 64), threads, 0, stream>>>(
          matrix<A>(args.qkv), args.positions.as<const std::int32_t>(), count_of(args.num_tokens),
          matrix<const float>(args.cos_sin), shape);
    });
  });
  check_launch("rope");
}

}  // namespace llmfp8::cuda
