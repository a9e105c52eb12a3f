// SwiGLU forward and backward: y = silu(gate) * up. Called by CpuOps.
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

template <typename A>
LLMFP8_CLONES void forward_rows(const SwigluArgs& args, std::int64_t live, std::int64_t begin, std::int64_t end) {
  const std::int64_t cols = args.y.cols();
  for (std::int64_t row = begin; row < end; ++row) {
    if (row >= live) {
      zero_row<A>(args.y, row);
      continue;
    }
    const A* __restrict gate = row_of<const A>(args.gate_up, row);
    const A* __restrict up = gate + cols;
    A* __restrict y = row_of<A>(args.y, row);
    for (std::int64_t i = 0; i < cols; ++i) {
      const float g = as_float(gate[i]);
      y[i] = from_float<A>(g / (1.0f + fast_exp(-g)) * as_float(up[i]));
    }
  }
}

// d_gate_up may be gate_up: a chunk is read whole before it is written.
template <typename A>
LLMFP8_CLONES void backward_rows(const SwigluBackwardArgs& args, std::int64_t live, std::int64_t begin,
                                 std::int64_t end) {
  const std::int64_t cols = args.dy.cols();
  float g[kChunk], u[kChunk], dy[kChunk];
  for (std::int64_t row = begin; row < end; ++row) {
    if (row >= live) {
      zero_row<A>(args.d_gate_up, row);
      continue;
    }
    const A* gate = row_of<const A>(args.gate_up, row);
    const A* d_y = row_of<const A>(args.dy, row);
    A* d_gate = row_of<A>(args.d_gate_up, row);
    for (std::int64_t c = 0; c < cols; c += kChunk) {
      const std::int64_t n = std::min<std::int64_t>(kChunk, cols - c);
      load(gate + c, g, n);
      load(gate + cols + c, u, n);
      load(d_y + c, dy, n);
      for (std::int64_t i = 0; i < n; ++i) {
        const float sigmoid = 1.0f / (1.0f + fast_exp(-g[i]));
        const float silu = g[i] * sigmoid;
        u[i] = dy[i] * u[i] * (sigmoid + silu * (1.0f - sigmoid));
        dy[i] = dy[i] * silu;
      }
      store(u, d_gate + c, n);
      store(dy, d_gate + cols + c, n);
    }
  }
}

}  // namespace

void swiglu(const SwigluArgs& args) {
  const std::int64_t rows = args.y.rows(), live = live_rows(args.num_rows, rows);
  with_activation(args.y.dtype, [&](auto a) {
    parallel_for(rows, row_grain(args.y.cols()),
                 [&](std::int64_t begin, std::int64_t end) { forward_rows<decltype(a)>(args, live, begin, end); });
  });
}

void swiglu_backward(const SwigluBackwardArgs& args) {
  const std::int64_t rows = args.dy.rows(), live = live_rows(args.num_rows, rows);
  with_activation(args.dy.dtype, [&](auto a) {
    parallel_for(rows, row_grain(args.dy.cols()),
                 [&](std::int64_t begin, std::int64_t end) { backward_rows<decltype(a)>(args, live, begin, end); });
  });
}

}  // namespace llmfp8::cpu
