// SwiGLU forward and backward: y = silu(gate) * up; and the forward pass fused with the cast to FP8. Called by CudaOps.
#include "backend/cuda/kernels/kernels.h"
#include "backend/cuda/kernels/quantize_tile.cuh"

namespace llmfp8::cuda {
namespace {

// 1 / (1 + e^-x). For bf16 results the hardware's exp2 and reciprocal (2^-22 of the result) are far below the rounding;
// with IEEE operations these kernels would be bound by arithmetic instead of memory.
template <typename A>
__device__ inline float sigmoid(float x) {
  if constexpr (std::is_same_v<A, float>) {
    return 1.0f / (1.0f + expf(-x));
  } else {
    float e, r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(x * -1.44269504088896341f));
    asm("rcp.approx.f32 %0, %1;" : "=f"(r) : "f"(1.0f + e));
    return r;
  }
}

template <typename A>
__device__ inline float swiglu_value(float gate, float up) {
  return gate * sigmoid<A>(gate) * up;
}

// gate, up: the inputs, become their gradients. d: gradient of y.
template <typename A>
__device__ inline void swiglu_gradient(float& gate, float& up, float d) {
  const float s = sigmoid<A>(gate), silu = gate * s;
  const float d_gate = d * up * (s + silu * (1.0f - s));
  up = d * silu;
  gate = d_gate;
}

// Grid: x over the columns of a row, y strides over rows; a thread takes N columns.
template <typename A, int N>
__global__ void __launch_bounds__(256)
    swiglu_kernel(Matrix<const A> gate_up, Matrix<A> y, const std::int32_t* num_rows) {
  const std::int64_t live = live_rows(num_rows, y.rows);
  const std::int64_t c = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (c >= y.cols) return;
#pragma unroll 2
  for (std::int64_t row = blockIdx.y; row < y.rows; row += gridDim.y) {
    A* to = y.row(row) + c;
    if (row >= live) {
      store_zero<N>(to);
      continue;
    }
    const A* from = gate_up.row(row) + c;
    float g[N], u[N];
    load<N>(from, g);
    load<N>(from + y.cols, u);
#pragma unroll
    for (int i = 0; i < N; ++i) g[i] = swiglu_value<A>(g[i], u[i]);
    store<N>(g, to);
  }
}

// As the forward kernel. d_gate_up may be gate_up: a thread reads its elements before it writes them.
template <typename A, int N>
__global__ void __launch_bounds__(256)
    swiglu_backward_kernel(Matrix<const A> dy, const A* gate_up, std::int64_t gate_up_stride, Matrix<A> d_gate_up,
                           const std::int32_t* num_rows) {
  const std::int64_t live = live_rows(num_rows, dy.rows);
  const std::int64_t c = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (c >= dy.cols) return;
  for (std::int64_t row = blockIdx.y; row < dy.rows; row += gridDim.y) {
    A* to = d_gate_up.row(row) + c;
    if (row >= live) {
      store_zero<N>(to);
      store_zero<N>(to + dy.cols);
      continue;
    }
    const A* from = gate_up + row * gate_up_stride + c;
    float g[N], u[N], d[N];
    load<N>(from, g);
    load<N>(from + dy.cols, u);
    load<N>(dy.row(row) + c, d);
#pragma unroll
    for (int i = 0; i < N; ++i) swiglu_gradient<A>(g[i], u[i], d[i]);
    store<N>(g, to);
    store<N>(u, to + dy.cols);
  }
}

struct Launch {
  dim3 grid;
  unsigned threads;
};

// Blocks of up to 256 threads over a row of `vectors`; enough rows of blocks for about eight blocks a multiprocessor.
Launch row_launch(std::int64_t vectors, std::int64_t rows) {
  const std::int64_t threads = std::min<std::int64_t>(256, ceil_div(vectors, kWarp) * kWarp);
  const std::int64_t across = ceil_div(vectors, threads);
  const std::int64_t down =
      std::clamp<std::int64_t>(ceil_div(132 * 32, across), 1, std::min<std::int64_t>(rows, 65535));
  return {dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)), static_cast<unsigned>(threads)};
}

// The matrix y, rounded to A, of quantize_tile.cuh.
template <typename A, bool Vector>
struct SwigluSource {
  static constexpr bool kVector = Vector, kPair = false;
  static constexpr int kBlocks = 2;
  struct Raw {
    Raw8<A> gate, up;
  };
  const A* gate_up;
  std::int64_t rows, cols, stride;

  __device__ const A* at(std::int64_t row, std::int64_t col) const { return gate_up + row * stride + col; }
  __device__ Raw fetch(const A* at, int r) const {
    const A* from = at + r * stride;
    return {fetch8(from), fetch8(from + cols)};
  }
  __device__ void values(const Raw& raw, std::int64_t, std::int64_t, float (&v)[8]) const {
    float u[8];
    unpack8(raw.gate, v), unpack8(raw.up, u);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = round_to<A>(swiglu_value<A>(v[i], u[i]));
  }
  __device__ float load1(std::int64_t row, std::int64_t col) const {
    const A* from = gate_up + row * stride + col;
    return round_to<A>(swiglu_value<A>(as_float(from[0]), as_float(from[cols])));
  }
};

// The matrix d_gate_up, rounded to A: a pair, d_gate and d_up from the same gate, up and dy.
template <typename A, bool Vector>
struct SwigluBackwardSource {
  static constexpr bool kVector = Vector, kPair = true;
  static constexpr int kBlocks = 3;
  struct Raw {
    Raw8<A> gate, up, dy;
  };
  const A* gate_up;
  const A* dy;
  std::int64_t rows, cols, stride, dy_stride;  // cols: of d_gate_up

  __device__ std::int64_t first_column(std::int64_t c) const { return c; }
  __device__ std::int64_t distance() const { return cols / 2; }
  struct At {
    const A *gate, *dy;
  };
  __device__ At at(std::int64_t row, std::int64_t col) const {
    return {gate_up + row * stride + col, dy + row * dy_stride + col};
  }
  __device__ Raw fetch(const At& at, int r) const {
    const A* from = at.gate + r * stride;
    return {fetch8(from), fetch8(from + cols / 2), fetch8(at.dy + r * dy_stride)};
  }
  __device__ void values(const Raw& raw, std::int64_t, std::int64_t, float (&d_gate)[8], float (&d_up)[8]) const {
    float d[8];
    unpack8(raw.gate, d_gate), unpack8(raw.up, d_up), unpack8(raw.dy, d);
#pragma unroll
    for (int i = 0; i < 8; ++i) backward(d_gate[i], d_up[i], d[i]);
  }
  __device__ void load_pair(std::int64_t row, std::int64_t col, float& d_gate, float& d_up) const {
    const A* from = gate_up + row * stride + col;
    d_gate = as_float(from[0]), d_up = as_float(from[cols / 2]);
    backward(d_gate, d_up, as_float(dy[row * dy_stride + col]));
  }

 private:
  static __device__ void backward(float& gate, float& up, float d) {
    swiglu_gradient<A>(gate, up, d);
    gate = round_to<A>(gate), up = round_to<A>(up);
  }
};

}  // namespace

void swiglu(const SwigluArgs& args, cudaStream_t stream) {
  if (args.y.numel() == 0) return;
  with_activation(args.y.dtype, [&](auto a) {
    using A = decltype(a);
    with_vector<A>(vector_rows(args.y) && vector_rows(args.gate_up), [&](auto n) {
      const Launch launch = row_launch(args.y.cols() / n(), args.y.rows());
      swiglu_kernel<A, n()><<<launch.grid, launch.threads, 0, stream>>>(matrix<const A>(args.gate_up),
                                                                        matrix<A>(args.y), count_of(args.num_rows));
    });
  });
  check_launch("swiglu");
}

void swiglu_backward(const SwigluBackwardArgs& args, cudaStream_t stream) {
  if (args.dy.numel() == 0) return;
  with_activation(args.dy.dtype, [&](auto a) {
    using A = decltype(a);
    const bool vector = vector_rows(args.dy) && vector_rows(args.gate_up) && vector_rows(args.d_gate_up);
    with_vector<A>(vector, [&](auto n) {
      const Launch launch = row_launch(args.dy.cols() / n(), args.dy.rows());
      swiglu_backward_kernel<A, n()><<<launch.grid, launch.threads, 0, stream>>>(
          matrix<const A>(args.dy), args.gate_up.as<const A>(), args.gate_up.row_stride, matrix<A>(args.d_gate_up),
          count_of(args.num_rows));
    });
  });
  check_launch("swiglu_backward");
}

void swiglu_quantize(const SwigluQuantizeArgs& args, cudaStream_t stream) {
  CHECK(can_fuse_quantize(args.out), "swiglu_quantize: this scaling is not fused");
  if (!args.out.quantized()) return swiglu({args.gate_up, args.num_rows, args.out.rowwise}, stream);
  const std::int64_t rows = args.gate_up.rows(), cols = args.gate_up.cols() / 2, stride = args.gate_up.row_stride;
  with_activation(args.gate_up.dtype, [&](auto a) {
    using A = decltype(a);
    const A* data = args.gate_up.as<const A>();
    if (vectors_of_8(data, rows, cols, stride)) {
      launch_quantize(SwigluSource<A, true>{data, rows, cols, stride}, args.out, count_of(args.num_rows), true, nullptr,
                      stream);
    } else {
      launch_quantize(SwigluSource<A, false>{data, rows, cols, stride}, args.out, count_of(args.num_rows), true,
                      nullptr, stream);
    }
  });
}

void swiglu_backward_quantize(const SwigluBackwardQuantizeArgs& args, cudaStream_t stream) {
  CHECK(can_fuse_quantize(args.out), "swiglu_backward_quantize: this scaling is not fused");
  if (!args.out.quantized()) return swiglu_backward({args.dy, args.gate_up, args.num_rows, args.out.rowwise}, stream);
  const std::int64_t rows = args.dy.rows(), half = args.dy.cols(), stride = args.gate_up.row_stride;
  with_activation(args.dy.dtype, [&](auto a) {
    using A = decltype(a);
    const A *gate_up = args.gate_up.as<const A>(), *dy = args.dy.as<const A>();
    const auto launch = [&](auto vector) {
      const SwigluBackwardSource<A, vector()> source{gate_up, dy, rows, 2 * half, stride, args.dy.row_stride};
      launch_quantize(source, args.out, count_of(args.num_rows), true, nullptr, stream);
    };
    if (vectors_of_8(gate_up, rows, half, stride) && vectors_of_8(dy, rows, half, args.dy.row_stride)) {
      launch(std::true_type());
    } else {
      launch(std::false_type());
    }
  });
}

}  // namespace llmfp8::cuda
