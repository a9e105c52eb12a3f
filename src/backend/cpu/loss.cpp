// Rows with a label: gathering, cross-entropy, the loss's sum; and sampling. Called by CpuOps.
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"
#include "core/rng.h"
#include "core/step_scalars.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

// A vector [n] is n rows of one element.
std::int64_t row_count(const Tensor& t) { return t.shape.rank() == 1 ? t.numel() : t.rows(); }
std::int64_t row_width(const Tensor& t) { return t.shape.rank() == 1 ? 1 : t.cols(); }
std::byte* row_bytes(const Tensor& t, std::int64_t row) {
  const std::int64_t stride = t.shape.rank() == 1 ? 1 : t.row_stride;
  return t.as<std::byte>() + row * stride * static_cast<std::int64_t>(size_bytes(t.dtype));
}

// A NaN among the logits reaches the sum, and so the loss and the gradient.
template <typename A>
LLMFP8_CLONES void cross_entropy_rows(const CrossEntropyArgs& args, std::int64_t live, std::int64_t begin,
                                      std::int64_t end) {
  const std::int64_t vocab = args.logits.cols();
  float x[kChunk];
  for (std::int64_t row = begin; row < end; ++row) {
    float& loss = args.token_loss.as<float>()[row];
    if (row >= live) {
      loss = 0.0f;
      if (args.with_gradient) zero_row<A>(args.logits, row);
      continue;
    }
    A* logits = row_of<A>(args.logits, row);
    const std::int32_t label = args.labels.as<std::int32_t>()[row];
    CHECK(label >= 0 && label < vocab, "cross_entropy: label {} of row {}, the vocabulary has {}", label, row, vocab);
    float largest = -std::numeric_limits<float>::infinity();
    for (std::int64_t c = 0; c < vocab; c += kChunk) {
      const std::int64_t n = std::min<std::int64_t>(kChunk, vocab - c);
      load(logits + c, x, n);
      largest = std::max(largest, max_of(x, n));
    }
    double total = 0.0;
    for (std::int64_t c = 0; c < vocab; c += kChunk) {
      const std::int64_t n = std::min<std::int64_t>(kChunk, vocab - c);
      for (std::int64_t i = 0; i < n; ++i) x[i] = fast_exp(as_float(logits[c + i]) - largest);
      total += sum(x, n);
    }
    const double log_total = std::log(total);
    loss =
        static_cast<float>(log_total - (static_cast<double>(as_float(logits[label])) - static_cast<double>(largest)));
    if (!args.with_gradient) continue;
    const float inverse = static_cast<float>(1.0 / total);
    const float at_label = fast_exp(as_float(logits[label]) - largest) * inverse - 1.0f;
    for (std::int64_t i = 0; i < vocab; ++i)
      logits[i] = from_float<A>(fast_exp(as_float(logits[i]) - largest) * inverse);
    logits[label] = from_float<A>(at_label);
  }
}

// Uniform in [0, 1), 53 bits.
double uniform(const SampleArgs& args, std::int64_t row) {
  const Philox4 bits = philox4x32(args.key, args.draw, static_cast<std::uint64_t>(row));
  const std::uint64_t word = static_cast<std::uint64_t>(bits.x[0]) << 32 | bits.x[1];
  return static_cast<double>(word >> 11) * 0x1.0p-53;
}

template <typename A>
std::int32_t argmax(const A* logits, std::int64_t n) {
  std::int64_t best = 0;
  for (std::int64_t i = 1; i < n; ++i) {
    if (as_float(logits[i]) > as_float(logits[best])) best = i;
  }
  return static_cast<std::int32_t>(best);
}

// Tokens in order of falling probability, the lower id first among equals, up to top_p of the mass; then a draw.
template <typename A>
std::int32_t draw_token(const SampleArgs& args, const A* logits, std::int64_t row) {
  const std::int64_t vocab = args.logits.cols();
  const double largest = static_cast<double>(as_float(logits[argmax(logits, vocab)]));
  std::vector<double> mass(static_cast<std::size_t>(vocab));
  double total = 0.0;
  for (std::int64_t i = 0; i < vocab; ++i) {
    const double p =
        std::exp((static_cast<double>(as_float(logits[i])) - largest) / static_cast<double>(args.temperature));
    mass[static_cast<std::size_t>(i)] = p;
    total += p;
  }
  std::vector<std::int32_t> order(static_cast<std::size_t>(vocab));
  std::iota(order.begin(), order.end(), 0);
  std::size_t kept = order.size();
  if (args.top_p < 1.0f) {
    const auto before = [&](std::int32_t a, std::int32_t b) {
      const double pa = mass[static_cast<std::size_t>(a)], pb = mass[static_cast<std::size_t>(b)];
      return pa != pb ? pa > pb : a < b;
    };
    std::sort(order.begin(), order.end(), before);
    double sum = 0.0;
    kept = 0;
    while (kept < order.size() && (kept == 0 || sum < static_cast<double>(args.top_p) * total)) {
      sum += mass[static_cast<std::size_t>(order[kept++])];
    }
    total = sum;
  }
  double left = uniform(args, row) * total;
  for (std::size_t i = 0; i < kept; ++i) {
    left -= mass[static_cast<std::size_t>(order[i])];
    if (left < 0.0) return order[i];
  }
  return order[kept - 1];
}

}  // namespace

void gather_rows(const GatherRowsArgs& args) {
  const std::int64_t rows = row_count(args.out), live = live_rows(args.count, rows, args.row_offset);
  const std::size_t bytes = static_cast<std::size_t>(row_width(args.out)) * size_bytes(args.out.dtype);
  const std::int32_t* index = args.index.as<std::int32_t>() + args.row_offset;
  parallel_for(rows, row_grain(row_width(args.out)), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      if (row >= live) {
        std::memset(row_bytes(args.out, row), 0, bytes);
        continue;
      }
      CHECK(index[row] >= 0 && index[row] < row_count(args.x), "gather_rows: row {} of {}", index[row],
            row_count(args.x));
      std::memcpy(row_bytes(args.out, row), row_bytes(args.x, index[row]), bytes);
    }
  });
}

void scatter_rows(const ScatterRowsArgs& args) {
  const std::int64_t live = live_rows(args.count, row_count(args.x), args.row_offset);
  const std::size_t bytes = static_cast<std::size_t>(row_width(args.out)) * size_bytes(args.out.dtype);
  const std::int32_t* index = args.index.as<std::int32_t>() + args.row_offset;
  for (std::int64_t row = 0; row < live; ++row) {
    CHECK(index[row] >= 0 && index[row] < row_count(args.out), "scatter_rows: row {} of {}", index[row],
          row_count(args.out));
    std::memcpy(row_bytes(args.out, index[row]), row_bytes(args.x, row), bytes);
  }
}

void cross_entropy(const CrossEntropyArgs& args) {
  const std::int64_t rows = args.logits.rows(), live = live_rows(args.count, rows, args.row_offset);
  with_activation(args.logits.dtype, [&](auto a) {
    parallel_for(rows, row_grain(args.logits.cols()), [&](std::int64_t begin, std::int64_t end) {
      cross_entropy_rows<decltype(a)>(args, live, begin, end);
    });
  });
}

void accumulate_loss(const Tensor& token_loss, const Tensor& count, std::int64_t row_offset, StepScalars* scalars) {
  const std::int64_t live = live_rows(count, token_loss.numel(), row_offset);
  double total = 0.0;
  for (std::int64_t row = 0; row < live; ++row) total += static_cast<double>(token_loss.as<float>()[row]);
  scalars->loss_sum += total;
  scalars->num_supervised += static_cast<std::uint32_t>(live);
}

void sample(const SampleArgs& args) {
  with_activation(args.logits.dtype, [&](auto a) {
    using A = decltype(a);
    parallel_for(args.logits.rows(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const A* logits = row_of<const A>(args.logits, row);
        args.out.as<std::int32_t>()[row] =
            args.temperature > 0.0f ? draw_token(args, logits, row) : argmax(logits, args.logits.cols());
      }
    });
  });
}

}  // namespace llmfp8::cpu
