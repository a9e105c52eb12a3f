// RMSNorm forward and backward on the CPU. Called by CpuOps.
#include <cmath>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

// Rows whose weight gradients are added up together; fixed, so that the result does not depend on the threads.
constexpr std::int64_t kBlockRows = 64;

template <typename A>
LLMFP8_CLONES void forward_rows(const RmsnormArgs& args, std::int64_t live, std::int64_t begin, std::int64_t end) {
  const std::int64_t cols = args.x.cols();
  const A* weight = args.weight.as<A>();
  float* rstds = args.rstd.as<float>();
  float x[kChunk];
  for (std::int64_t row = begin; row < end; ++row) {
    if (row >= live) {
      zero_row<A>(args.y, row);
      rstds[row] = 0.0f;
      continue;
    }
    const A* from = row_of<const A>(args.x, row);
    A* to = row_of<A>(args.y, row);
    double squares = 0.0;
    for (std::int64_t c = 0; c < cols; c += kChunk) {
      const std::int64_t n = std::min<std::int64_t>(kChunk, cols - c);
      load(from + c, x, n);
      squares += dot(x, x, n);
    }
    const float rstd = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(cols) + args.eps));
    rstds[row] = rstd;
    for (std::int64_t i = 0; i < cols; ++i) to[i] = from_float<A>(as_float(from[i]) * rstd * as_float(weight[i]));
  }
}

// partial: f32 [cols], this block's sum of dy * x * rstd
template <typename A>
LLMFP8_CLONES void backward_block(const RmsnormBackwardArgs& args, std::int64_t begin, std::int64_t end,
                                  float* __restrict partial) {
  const std::int64_t cols = args.x.cols();
  const A* weight = args.weight.as<A>();
  float dy[kChunk], x[kChunk], w[kChunk];
  std::fill_n(partial, cols, 0.0f);
  for (std::int64_t row = begin; row < end; ++row) {
    const A* dy_row = row_of<const A>(args.dy, row);
    const A* x_row = row_of<const A>(args.x, row);
    const A* residual = args.d_residual.defined() ? row_of<const A>(args.d_residual, row) : nullptr;
    A* dx = row_of<A>(args.dx, row);
    const float rstd = args.rstd.as<float>()[row];
    double projection = 0.0;
    for (std::int64_t c = 0; c < cols; c += kChunk) {
      const std::int64_t n = std::min<std::int64_t>(kChunk, cols - c);
      load(dy_row + c, dy, n);
      load(x_row + c, x, n);
      load(weight + c, w, n);
      for (std::int64_t i = 0; i < n; ++i) partial[c + i] += dy[i] * (x[i] * rstd);
      for (std::int64_t i = 0; i < n; ++i) w[i] *= dy[i];
      projection += dot(w, x, n);
    }
    const float shrink = static_cast<float>(projection / static_cast<double>(cols) * rstd * rstd);
    for (std::int64_t c = 0; c < cols; c += kChunk) {
      const std::int64_t n = std::min<std::int64_t>(kChunk, cols - c);
      load(dy_row + c, dy, n);
      load(x_row + c, x, n);
      load(weight + c, w, n);
      for (std::int64_t i = 0; i < n; ++i) dy[i] = rstd * (dy[i] * w[i] - x[i] * shrink);
      if (residual != nullptr) {
        load(residual + c, x, n);
        for (std::int64_t i = 0; i < n; ++i) dy[i] += x[i];
      }
      store(dy, dx + c, n);
    }
  }
}

}  // namespace

void rmsnorm(const RmsnormArgs& args) {
  const std::int64_t rows = args.x.rows(), live = live_rows(args.num_rows, rows);
  with_activation(args.x.dtype, [&](auto a) {
    parallel_for(rows, row_grain(args.x.cols()),
                 [&](std::int64_t begin, std::int64_t end) { forward_rows<decltype(a)>(args, live, begin, end); });
  });
}

std::size_t rmsnorm_backward_scratch_bytes(const RmsnormBackwardArgs& args) {
  const std::int64_t blocks = (args.x.rows() + kBlockRows - 1) / kBlockRows;
  return static_cast<std::size_t>(blocks * args.x.cols()) * sizeof(float);
}

void rmsnorm_backward(const RmsnormBackwardArgs& args, void* scratch) {
  const std::int64_t rows = args.x.rows(), cols = args.x.cols(), live = live_rows(args.num_rows, rows);
  const std::int64_t blocks = (live + kBlockRows - 1) / kBlockRows;
  float* partials = static_cast<float*>(scratch);
  with_activation(args.x.dtype, [&](auto a) {
    using A = decltype(a);
    parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t block = begin; block < end; ++block) {
        backward_block<A>(args, block * kBlockRows, std::min(live, (block + 1) * kBlockRows), partials + block * cols);
      }
    });
    for (std::int64_t row = live; row < rows; ++row) zero_row<A>(args.dx, row);
  });
  with_activation(args.d_weight.tensor.dtype, [&](auto g) {
    using G = decltype(g);
    G* out = args.d_weight.tensor.as<G>();
    for (std::int64_t c = 0; c < cols; ++c) {
      double total = 0.0;
      for (std::int64_t block = 0; block < blocks; ++block) total += static_cast<double>(partials[block * cols + c]);
      if (args.d_weight.accumulate) total += static_cast<double>(as_float(out[c]));
      out[c] = from_float<G>(static_cast<float>(total));
    }
  });
}

}  // namespace llmfp8::cpu
