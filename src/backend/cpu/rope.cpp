// Rotary position embedding, in place, forward and inverse. Called by CpuOps.
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

template <typename A>
LLMFP8_CLONES void rotate_rows(const RopeArgs& args, std::int64_t live, std::int64_t begin, std::int64_t end) {
  const std::int64_t half = args.head_dim / 2;
  const float sign = args.inverse ? -1.0f : 1.0f;
  for (std::int64_t row = begin; row < end; ++row) {
    if (row >= live) {
      zero_row<A>(args.qkv, row);
      continue;
    }
    const std::int32_t position = args.positions.as<std::int32_t>()[row];
    CHECK(position >= 0 && position < args.cos_sin.rows(), "rope: position {}, the table has {}", position,
          args.cos_sin.rows());
    const float* cosines = row_of<const float>(args.cos_sin, position);
    const float* sines = cosines + half;
    for (std::int64_t head = 0; head < args.num_heads + args.num_kv_heads; ++head) {
      A* __restrict first = row_of<A>(args.qkv, row) + head * args.head_dim;
      A* __restrict second = first + half;
      for (std::int64_t i = 0; i < half; ++i) {
        const float x = as_float(first[i]), y = as_float(second[i]), s = sign * sines[i];
        first[i] = from_float<A>(x * cosines[i] - y * s);
        second[i] = from_float<A>(y * cosines[i] + x * s);
      }
    }
  }
}

}  // namespace

void rope(const RopeArgs& args) {
  const std::int64_t rows = args.qkv.rows(), live = live_rows(args.num_tokens, rows);
  with_activation(args.qkv.dtype, [&](auto a) {
    parallel_for(rows, row_grain(args.qkv.cols()),
                 [&](std::int64_t begin, std::int64_t end) { rotate_rows<decltype(a)>(args, live, begin, end); });
  });
}

}  // namespace llmfp8::cpu
