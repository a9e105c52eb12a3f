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

// The cosines of a row's position, then its sines.
__device__ inline const float* angles_of(const std::int32_t* positions, const Matrix<const float>& cos_sin, std::int64_t row) {
  const std::int32_t position = positions[row];
  require(position >= 0 && position < cos_sin.rows);
  return cos_sin.row(position);
}

// The rotated matrix, rounded to A, of quantize_tile.cuh, as pairs: c counts the first halves of all heads, and the values
// of a pair are rotated together, so that data and angles are read once.
template <typename A>
struct RopePairs {
  static constexpr bool kVector = true, kPair = true;
  static constexpr int kBlocks = 3;
  struct Raw {
    Raw8<A> first, second;
    const float* angles;
  };
  const A* data;
  std::int64_t rows, cols, stride;
  const std::int32_t* positions;
  Matrix<const float> cos_sin;
  RopeShape shape;

  // 32-bit division: a 64-bit one would cost more than the rotation.
  __device__ std::int64_t first_column(std::int64_t c) const {
    const auto pair = static_cast<std::uint32_t>(c), half = static_cast<std::uint32_t>(shape.half);
    return pair + pair / half * half;
  }
  __device__ std::int64_t distance() const { return shape.half; }

  struct At {
    const A* first;
    std::int64_t row;
  };
  __device__ At at(std::int64_t row, std::int64_t c) const { return {data + row * stride + first_column(c), row}; }
  __device__ Raw fetch(const At& at, int r) const {
    const A* from = at.first + r * stride;
    return {fetch8(from), fetch8(from + shape.half), angles_of(positions, cos_sin, at.row + r)};
  }
  __device__ void values(const Raw& raw, std::int64_t, std::int64_t c, float (&x)[8], float (&y)[8]) const {
    unpack8(raw.first, x), unpack8(raw.second, y);
    const auto pair = static_cast<std::uint32_t>(c), half = static_cast<std::uint32_t>(shape.half);
    if (pair >= static_cast<std::uint32_t>(shape.rotated_heads) * half) return;  // a value head
    float cosine[8], sine[8];
    const float* angles = raw.angles + pair % half;
    load<8>(angles, cosine), load<8>(angles + shape.half, sine);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float s = shape.sign * sine[i], rotated = rotate_first(x[i], y[i], cosine[i], s);
      y[i] = round_to<A>(rotate_second(x[i], y[i], cosine[i], s));
      x[i] = round_to<A>(rotated);
    }
  }
};

// The same one value at a time, for head dimensions and addresses that vectors do not fit.
template <typename A>
struct RopeSource {
  static constexpr bool kVector = false, kPair = false;
  static constexpr int kBlocks = 2;
  struct Raw {};
  const A* data;
  std::int64_t rows, cols, stride;
  const std::int32_t* positions;
  Matrix<const float> cos_sin;
  RopeShape shape;

  __device__ float load1(std::int64_t row, std::int64_t col) const {
    const A* from = data + row * stride + col;
    const auto column = static_cast<std::uint32_t>(col), half = static_cast<std::uint32_t>(shape.half);
    if (column >= static_cast<std::uint32_t>(shape.rotated_heads) * 2 * half) return as_float(*from);
    const std::uint32_t index = column % (2 * half);
    const float* angles = angles_of(positions, cos_sin, row) + index % half;
    const float c = angles[0], s = shape.sign * angles[half];
    return round_to<A>(index < half ? rotate_first(as_float(*from), as_float(from[half]), c, s)
                                    : rotate_second(as_float(from[-static_cast<std::int64_t>(half)]), as_float(*from), c, s));
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
    const auto launch = [&]<typename Source>(std::type_identity<Source>) {
      const Source source{qkv.as<const A>(), qkv.rows(), qkv.cols(), qkv.row_stride,
                          args.rope.positions.as<const std::int32_t>(), matrix<const float>(args.rope.cos_sin), shape};
      launch_quantize(source, args.out, count_of(args.rope.num_tokens), true, nullptr, stream);
    };
    if (vectors_of_8(qkv.data, qkv.rows(), qkv.cols(), qkv.row_stride) && shape.half % 8 == 0 &&
        aligned(args.rope.cos_sin.data, 16) && args.rope.cos_sin.row_stride % 4 == 0) {
      launch(std::type_identity<RopePairs<A>>());
    } else {
      launch(std::type_identity<RopeSource<A>>());
    }
  });
}

}  // namespace llmfp8::cuda
