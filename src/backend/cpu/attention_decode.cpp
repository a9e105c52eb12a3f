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

using Float16 = float __attribute__((vector_size(64)));

LLMFP8_INLINE Float16 load16(const float* from) {
  Float16 v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
LLMFP8_INLINE Float16 load16(const bf16* from) {
  using Bits16 = std::uint16_t __attribute__((vector_size(32)));
  using Bits32 = std::uint32_t __attribute__((vector_size(64)));
  Bits16 bits;
  std::memcpy(&bits, from, sizeof bits);
  const Bits32 wide = __builtin_convertvector(bits, Bits32) << 16;
  Float16 v;
  std::memcpy(&v, &wide, sizeof v);
  return v;
}

// Adds halves to halves: the order is the same on every instruction set.
LLMFP8_INLINE float sum16(Float16 v) {
  float x[16];
  std::memcpy(x, &v, sizeof x);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  }
  return x[0];
}

// Sum of q[k] * key[k].
template <typename A>
LLMFP8_INLINE float score(const float* q, const A* key, std::int64_t dim) {
  Float16 even = {}, odd = {};
  std::int64_t k = 0;
  for (; k + 32 <= dim; k += 32) {
    even += load16(q + k) * load16(key + k);
    odd += load16(q + k + 16) * load16(key + k + 16);
  }
  if (k + 16 <= dim) {
    even += load16(q + k) * load16(key + k);
    k += 16;
  }
  float rest = 0.0f;
  for (; k < dim; ++k) rest += q[k] * as_float(key[k]);
  return sum16(even + odd) + rest;
}

// total[0 … 16 Chunks) += sum over i of p[i] * values[i]: the sums stay in registers.
template <int Chunks, typename A>
LLMFP8_INLINE void add_values(const float* p, const A* values, std::int64_t n, std::int64_t step, float* total) {
  Float16 sums[Chunks];
  for (int c = 0; c < Chunks; ++c) sums[c] = load16(total + 16 * c);
  for (std::int64_t i = 0; i < n; ++i) {
    for (int c = 0; c < Chunks; ++c) sums[c] += p[i] * load16(values + i * step + 16 * c);
  }
  for (int c = 0; c < Chunks; ++c) std::memcpy(total + 16 * c, &sums[c], sizeof sums[c]);
}

// Fetches `count` pieces of head_dim elements, `step` apart: the pieces of one head lie too far apart for the hardware to see a
// stream, and without this decoding mostly waits for memory.
template <typename A>
LLMFP8_INLINE void prefetch_rows(const A* from, std::int64_t count, std::int64_t step, std::int64_t head_dim) {
  constexpr std::int64_t kLine = 64 / sizeof(A);
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t k = 0; k < head_dim; k += kLine) __builtin_prefetch(from + i * step + k);
  }
}

// keys, values: A [count, step apart, head_dim]; out: A [head_dim]
template <typename A>
LLMFP8_CLONES void attend(const A* query, const A* keys, const A* values, std::int64_t count, std::int64_t step,
                          const AttentionShape& shape, A* out) {
  const std::int64_t dim = shape.head_dim;
  float q[kMaxHeadDim], total[kMaxHeadDim], scores[kKeys];
  load(query, q, dim);
  std::fill_n(total, dim, 0.0f);
  float largest = -INFINITY;
  double mass = 0.0;
  prefetch_rows(keys, std::min<std::int64_t>(kKeys, count), step, dim);
  for (std::int64_t first = 0; first < count; first += kKeys) {
    const std::int64_t n = std::min<std::int64_t>(kKeys, count - first);
    const A *key = keys + first * step, *value = values + first * step;
    prefetch_rows(value, n, step, dim);
    prefetch_rows(key + n * step, std::min<std::int64_t>(kKeys, count - first - n), step, dim);
    float block_max = -INFINITY;
    for (std::int64_t i = 0; i < n; ++i) {
      scores[i] = score(q, key + i * step, dim) * shape.scale;
      block_max = scores[i] > block_max ? scores[i] : block_max;
    }
    const float next = block_max > largest ? block_max : largest;
    const float shrink = first == 0 ? 0.0f : fast_exp(largest - next);
    largest = next;
    for (std::int64_t i = 0; i < n; ++i) scores[i] = fast_exp(scores[i] - largest);
    mass = mass * static_cast<double>(shrink) + sum(scores, n);
    for (std::int64_t k = 0; k < dim; ++k) total[k] *= shrink;
    std::int64_t k = 0;
    for (; k + 64 <= dim; k += 64) add_values<4>(scores, value + k, n, step, total + k);
    for (; k + 16 <= dim; k += 16) add_values<1>(scores, value + k, n, step, total + k);
    for (; k < dim; ++k) {
      for (std::int64_t i = 0; i < n; ++i) total[k] += scores[i] * as_float(value[i * step + k]);
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
