// Rotary position embedding, in place, forward and inverse; and fused with the cast to FP8. Called by CudaOps.
#include "backend/cuda/kernels/kernels.h"
#include "backend/cuda/kernels/quantize_tile.cuh"

namespace llmfp8::cuda {
namespace {

struct RopeShape {
  std::int64_t width;  // of a row of qkv: all heads
  std::int64_t rotated_heads;
  std::int64_t half;  // head_dim / 2
  float sign;
};

// x cos - y sin and y cos + x sin for x, y half a head apart; without contraction, as on the CPU.
__device__ inline float rotate_first(float x, float y, float c, float s) { return __fsub_rn(__fmul_rn(x, c), __fmul_rn(y, s)); }
__device__ inline float rotate_second(float x, float y, float c, float s) { return __fadd_rn(__fmul_rn(y, c), __fmul_rn(x, s)); }

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
        const float rotated = rotate_first(x[k], y[k], c, s);
        y[k] = rotate_second(x[k], y[k], c, s);
        x[k] = rotated;
      }
      store<N>(x, first);
      store<N>(y, second);
    }
  }
}

// The rotated matrix, rounded to A, of quantize_tile.cuh. A vector of 8 columns lies in one half of one head.
template <typename A, bool Vector>
struct RopeSource {
  static constexpr bool kVector = Vector, kPair = false;
  static constexpr int kBlocks = 2;
  struct Raw {
    Raw8<A> own, partner;  // partner: half a head away; own again where nothing is rotated
  };
  const A* data;
  std::int64_t rows, cols, stride;
  const std::int32_t* positions;
  Matrix<const float> cos_sin;
  RopeShape shape;

  // How far the partner of a column is; 0: a value head, which is not rotated.
  __device__ std::int64_t to_partner(std::int64_t col) const {
    const auto head_dim = static_cast<std::uint32_t>(2 * shape.half);
    if (col >= shape.rotated_heads * head_dim) return 0;
    return static_cast<std::uint32_t>(col) % head_dim < shape.half ? shape.half : -shape.half;
  }
  struct At {
    const A* own;
    std::int64_t partner;  // how far
  };
  __device__ At at(std::int64_t row, std::int64_t col) const { return {data + row * stride + col, to_partner(col)}; }
  __device__ Raw fetch(const At& at, int r) const {
    const A* from = at.own + r * stride;
    return {fetch8(from), fetch8(from + at.partner)};
  }
  __device__ void values(const Raw& raw, std::int64_t row, std::int64_t col, float (&v)[8]) const {
    unpack8(raw.own, v);
    const std::int64_t partner = to_partner(col);
    if (partner == 0) return;
    float other[8], c[8], s[8];
    unpack8(raw.partner, other);
    const float* angles = angles_of(row) + index_in_half(col);
    load<8>(angles, c), load<8>(angles + shape.half, s);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = rotated(partner, v[i], other[i], c[i], s[i]);
  }
  __device__ float load1(std::int64_t row, std::int64_t col) const {
    const A* from = data + row * stride + col;
    const std::int64_t partner = to_partner(col);
    if (partner == 0) return as_float(*from);
    const float* angles = angles_of(row) + index_in_half(col);
    return rotated(partner, as_float(*from), as_float(from[partner]), angles[0], angles[shape.half]);
  }

 private:
  // 32-bit division: a 64-bit one would cost more than the rotation.
  __device__ std::uint32_t index_in_half(std::int64_t col) const {
    return static_cast<std::uint32_t>(col) % static_cast<std::uint32_t>(shape.half);
  }
  // The cosines of a row, then its sines.
  __device__ const float* angles_of(std::int64_t row) const {
    const std::int32_t position = positions[row];
    require(position >= 0 && position < cos_sin.rows);
    return cos_sin.row(position);
  }
  __device__ float rotated(std::int64_t partner, float own, float other, float c, float s) const {
    s *= shape.sign;
    return round_to<A>(partner > 0 ? rotate_first(own, other, c, s) : rotate_second(other, own, c, s));
  }
};

RopeShape rope_shape(const RopeArgs& args) {
  return {args.qkv.cols(), args.num_heads + args.num_kv_heads, args.head_dim / 2, args.inverse ? -1.0f : 1.0f};
}

}  // namespace

void rope(const RopeArgs& args, cudaStream_t stream) {
  if (args.qkv.numel() == 0) return;
  const RopeShape shape = rope_shape(args);
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

void rope_quantize(const RopeQuantizeArgs& args, cudaStream_t stream) {
  const Tensor& qkv = args.rope.qkv;
  CHECK(can_fuse_quantize(args.out) && args.out.quantized(), "rope_quantize: this scaling is not fused");
  const RopeShape shape = rope_shape(args.rope);
  with_activation(qkv.dtype, [&](auto a) {
    using A = decltype(a);
    const auto launch = [&](auto vector) {
      const RopeSource<A, vector()> source{qkv.as<const A>(), qkv.rows(), qkv.cols(), qkv.row_stride,
                                           args.rope.positions.as<const std::int32_t>(), matrix<const float>(args.rope.cos_sin), shape};
      launch_quantize(source, args.out, count_of(args.rope.num_tokens), true, nullptr, stream);
    };
    if (vectors_of_8(qkv.data, qkv.rows(), qkv.cols(), qkv.row_stride) && shape.half % 8 == 0 && aligned(args.rope.cos_sin.data, 16)) {
      launch(std::true_type());
    } else {
      launch(std::false_type());
    }
  });
}

}  // namespace llmfp8::cuda
