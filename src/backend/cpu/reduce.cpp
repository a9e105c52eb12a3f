// Zero, copy, bias gradient and sums of squares. Called by CpuOps.
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"
#include "core/step_scalars.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

template <typename From, typename To>
LLMFP8_CLONES void convert_rows(const Tensor& from, const Tensor& to, std::int64_t begin, std::int64_t end) {
  const std::int64_t cols = from.cols();
  for (std::int64_t row = begin; row < end; ++row) {
    const From* __restrict x = row_of<const From>(from, row);
    To* __restrict y = row_of<To>(to, row);
    for (std::int64_t i = 0; i < cols; ++i) y[i] = from_float<To>(as_float(x[i]));
  }
}

constexpr int kColumns = 64;  // columns of one bias task

template <typename A, typename G>
LLMFP8_CLONES void sum_columns(const BiasBackwardArgs& args, std::int64_t live, std::int64_t begin, std::int64_t end) {
  const std::int64_t cols = args.dy.cols();
  G* out = args.d_bias.tensor.as<G>();
  double total[kColumns];
  for (std::int64_t block = begin; block < end; ++block) {
    const std::int64_t c = block * kColumns, width = std::min<std::int64_t>(kColumns, cols - c);
    for (std::int64_t k = 0; k < width; ++k)
      total[k] = args.d_bias.accumulate ? static_cast<double>(as_float(out[c + k])) : 0.0;
    for (std::int64_t row = 0; row < live; ++row) {
      const A* from = row_of<const A>(args.dy, row) + c;
      for (std::int64_t k = 0; k < width; ++k) total[k] += static_cast<double>(as_float(from[k]));
    }
    for (std::int64_t k = 0; k < width; ++k) out[c + k] = from_float<G>(static_cast<float>(total[k]));
  }
}

template <typename G>
LLMFP8_CLONES double squares_of(const G* grad, std::int64_t n) {
  float x[kChunk];
  double total = 0.0;
  for (std::int64_t i = 0; i < n; i += kChunk) {
    const std::int64_t width = std::min<std::int64_t>(kChunk, n - i);
    load(grad + i, x, width);
    total += dot(x, x, width);
  }
  return total;
}

}  // namespace

void zero(const Tensor& out) {
  std::byte* data = out.as<std::byte>();
  const std::int64_t bytes = static_cast<std::int64_t>(out.bytes());
  parallel_for(bytes, 1 << 20, [&](std::int64_t begin, std::int64_t end) {
    std::memset(data + begin, 0, static_cast<std::size_t>(end - begin));
  });
}

void copy(const Tensor& from, const Tensor& to) {
  const std::int64_t rows = from.rows(), cols = from.cols();
  if (from.data == to.data && from.dtype == to.dtype && from.row_stride == to.row_stride) return;
  if (from.dtype == to.dtype) {
    const std::int64_t size = static_cast<std::int64_t>(size_bytes(from.dtype));
    parallel_for(rows, row_grain(cols), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        std::memcpy(to.as<std::byte>() + row * to.row_stride * size,
                    from.as<std::byte>() + row * from.row_stride * size, static_cast<std::size_t>(cols * size));
      }
    });
    return;
  }
  // One long row (a flat parameter) is cut as well.
  const bool flat = from.contiguous() && to.contiguous();
  const std::int64_t width = 4096, total = rows * cols;
  with_activation(from.dtype, [&](auto f) {
    with_activation(to.dtype, [&](auto t) {
      using From = decltype(f);
      using To = decltype(t);
      if (!flat) {
        parallel_for(rows, row_grain(cols),
                     [&](std::int64_t begin, std::int64_t end) { convert_rows<From, To>(from, to, begin, end); });
        return;
      }
      parallel_for((total + width - 1) / width, 4, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t first = begin * width, n = std::min(total, end * width) - first;
        convert_rows<From, To>(Tensor(from.as<From>() + first, from.dtype, Shape{n}),
                               Tensor(to.as<To>() + first, to.dtype, Shape{n}), 0, 1);
      });
    });
  });
}

void bias_backward(const BiasBackwardArgs& args) {
  const std::int64_t live = live_rows(args.num_rows, args.dy.rows());
  with_activation(args.dy.dtype, [&](auto a) {
    with_activation(args.d_bias.tensor.dtype, [&](auto g) {
      parallel_for((args.dy.cols() + kColumns - 1) / kColumns, 1, [&](std::int64_t begin, std::int64_t end) {
        sum_columns<decltype(a), decltype(g)>(args, live, begin, end);
      });
    });
  });
}

void accumulate_sum_of_squares(const Tensor& grad, StepScalars* scalars) {
  constexpr std::int64_t kParts = 256;
  const std::int64_t n = grad.numel();
  const std::int64_t part = std::max<std::int64_t>(4096, (n + kParts - 1) / kParts), parts = (n + part - 1) / part;
  double sums[kParts] = {};
  with_activation(grad.dtype, [&](auto g) {
    using G = decltype(g);
    parallel_for(parts, 4, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p)
        sums[p] = squares_of(grad.as<const G>() + p * part, std::min(part, n - p * part));
    });
  });
  double total = 0.0;
  for (std::int64_t p = 0; p < parts; ++p) total += sums[p];
  scalars->grad_sum_squares += total;
}

}  // namespace llmfp8::cpu
