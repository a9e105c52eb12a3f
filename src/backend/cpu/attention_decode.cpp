// Attention of one new token per sequence against a cache, and filling the cache after a prefill. Called by CpuOps.
//
// A cache row is [max_len, num_kv_heads, head_dim]. A task is one sequence and kv head; keys are taken 64 at a time with
// a running maximum, so that the length needs no scratch.
#include <cmath>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

constexpr int kMaxHeadDim = 512;
constexpr int kKeys = 64;

template <typename A>
LLMFP8_INLINE void copy_head(const A* from, A* to, std::int64_t head_dim) {
  std::memcpy(static_cast<void*>(to), from, static_cast<std::size_t>(head_dim) * sizeof(A));
}

// keys, values: A [count, step apart, head_dim]; out: A [head_dim]
template <typename A>
LLMFP8_CLONES void attend(const A* query, const A* keys, const A* values, std::int64_t count, std::int64_t step,
                          const AttentionShape& shape, A* out) {
  const std::int64_t dim = shape.head_dim;
  float q[kMaxHeadDim], row[kMaxHeadDim], total[kMaxHeadDim], scores[kKeys];
  load(query, q, dim);
  std::fill_n(total, dim, 0.0f);
  float largest = -INFINITY;
  double mass = 0.0;
  for (std::int64_t first = 0; first < count; first += kKeys) {
    const std::int64_t n = std::min<std::int64_t>(kKeys, count - first);
    float block_max = -INFINITY;
    for (std::int64_t i = 0; i < n; ++i) {
      load(keys + (first + i) * step, row, dim);
      scores[i] = static_cast<float>(dot(q, row, dim)) * shape.scale;
      block_max = scores[i] > block_max ? scores[i] : block_max;
    }
    const float next = block_max > largest ? block_max : largest;
    const float shrink = first == 0 ? 0.0f : fast_exp(largest - next);
    largest = next;
    for (std::int64_t i = 0; i < n; ++i) scores[i] = fast_exp(scores[i] - largest);
    mass = mass * static_cast<double>(shrink) + sum(scores, n);
    for (std::int64_t k = 0; k < dim; ++k) total[k] *= shrink;
    for (std::int64_t i = 0; i < n; ++i) {
      const A* value = values + (first + i) * step;
      const float p = scores[i];
      for (std::int64_t k = 0; k < dim; ++k) total[k] += p * as_float(value[k]);
    }
  }
  const float inverse = static_cast<float>(1.0 / mass);
  for (std::int64_t k = 0; k < dim; ++k) out[k] = from_float<A>(total[k] * inverse);
}

template <typename A>
void decode_head(const AttentionDecodeArgs& args, std::int64_t b, std::int64_t kv_head) {
  const AttentionShape& shape = args.shape;
  const std::int64_t dim = shape.head_dim, group = shape.num_heads / shape.num_kv_heads,
                     step = shape.num_kv_heads * dim;
  const std::int64_t position = args.positions.as<std::int32_t>()[b], slot = args.slots.as<std::int32_t>()[b];
  CHECK(slot >= 0 && slot < args.k_cache.rows() && position >= 0 && (position + 1) * step <= args.k_cache.cols(),
        "attention_decode: slot {}, position {} of a cache [{}, {}]", slot, position, args.k_cache.rows(),
        args.k_cache.cols() / step);
  const A* qkv = row_of<const A>(args.qkv, b);
  A* keys = row_of<A>(args.k_cache, slot) + kv_head * dim;
  A* values = row_of<A>(args.v_cache, slot) + kv_head * dim;
  copy_head(qkv + (shape.num_heads + kv_head) * dim, keys + position * step, dim);
  copy_head(qkv + (shape.num_heads + shape.num_kv_heads + kv_head) * dim, values + position * step, dim);
  for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    attend<A>(qkv + head * dim, keys, values, position + 1, step, shape, row_of<A>(args.out, b) + head * dim);
  }
}

}  // namespace

void attention_decode(const AttentionDecodeArgs& args) {
  CHECK(args.shape.head_dim <= kMaxHeadDim, "attention_decode: head_dim {}, at most {}", args.shape.head_dim,
        kMaxHeadDim);
  const std::int64_t heads = args.shape.num_kv_heads;
  with_activation(args.qkv.dtype, [&](auto a) {
    parallel_for(args.positions.numel() * heads, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) decode_head<decltype(a)>(args, i / heads, i % heads);
    });
  });
}

void cache_fill(const CacheFillArgs& args) {
  const AttentionShape& shape = args.shape;
  const std::int64_t step = shape.num_kv_heads * shape.head_dim, docs = args.slots.numel();
  const std::int32_t* bounds = args.cu_seqlens.as<std::int32_t>();
  with_activation(args.qkv.dtype, [&](auto a) {
    using A = decltype(a);
    parallel_for(docs, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t doc = begin; doc < end; ++doc) {
        const std::int64_t length = bounds[doc + 1] - bounds[doc], slot = args.slots.as<std::int32_t>()[doc];
        if (length <= 0) continue;
        CHECK(bounds[doc] >= 0 && bounds[doc + 1] <= args.qkv.rows() && slot >= 0 && slot < args.k_cache.rows() &&
                  length * step <= args.k_cache.cols(),
              "cache_fill: {} tokens into slot {} of a cache [{}, {}]", length, slot, args.k_cache.rows(),
              args.k_cache.cols() / step);
        for (std::int64_t i = 0; i < length; ++i) {
          const A* keys = row_of<const A>(args.qkv, bounds[doc] + i) + shape.num_heads * shape.head_dim;
          copy_head(keys, row_of<A>(args.k_cache, slot) + i * step, step);
          copy_head(keys + step, row_of<A>(args.v_cache, slot) + i * step, step);
        }
      }
    });
  });
}

}  // namespace llmfp8::cpu
