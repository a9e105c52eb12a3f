// Attention of one new token per sequence against a cache, and filling the cache after a prefill. Called by CpuOps.
//
// A cache row is [max_len, num_kv_heads, head_dim]. A task is one sequence and kv head; keys are taken up to 64 at a
// time with a running maximum, so that the length needs no scratch.
#include <cmath>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

constexpr int kMaxHeadDim = 512;
constexpr int kMaxHeads = 32;           // of a group that are worked on together
constexpr int kKeys = 64;               // that are taken at a time, at most
constexpr int kBlockFloats = 64 * 128;  // of keys, or of values, in fp32: both blocks stay in the L2 cache

template <typename A>
LLMFP8_INLINE void copy_head(const A* from, A* to, std::int64_t head_dim) {
  std::memcpy(static_cast<void*>(to), from, static_cast<std::size_t>(head_dim) * sizeof(A));
}

template <typename Vector>
LLMFP8_INLINE Vector load_vector(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

// [sum of v[0], … sum of v[7]], every sum in the same order on every instruction set: elements 4 apart last.
LLMFP8_INLINE Float8 sums_of(const Float8 (&v)[8]) {
  Float8 pairs[4], fours[2];
  for (int i = 0; i < 4; ++i) {
    pairs[i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 8, 1, 9, 4, 12, 5, 13) +
               __builtin_shufflevector(v[2 * i], v[2 * i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 2; ++i) {
    fours[i] = __builtin_shufflevector(pairs[2 * i], pairs[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
               __builtin_shufflevector(pairs[2 * i], pairs[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  return __builtin_shufflevector(fours[0], fours[1], 0, 1, 2, 3, 8, 9, 10, 11) +
         __builtin_shufflevector(fours[0], fours[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

// scores[i] = scale * (q · key i) for eight keys. dim: Dim, or any where Dim is 0; keys lie dim apart.
template <int Dim>
LLMFP8_INLINE void score_eight(const float* q, const float* keys, std::int64_t dim, float scale, float* scores) {
  if constexpr (Dim > 0) dim = Dim;
  const std::int64_t whole = dim / 32 * 32;
  Float8 parts[8];
  for (int i = 0; i < 8; ++i) {
    const float* key = keys + i * dim;
    Float8 sums[4] = {};
    for (std::int64_t k = 0; k < whole; k += 32) {
      for (int c = 0; c < 4; ++c) sums[c] += load_vector<Float8>(q + k + 8 * c) * load_vector<Float8>(key + k + 8 * c);
    }
    parts[i] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
  const Float8 dots = sums_of(parts);
  for (int i = 0; i < 8; ++i) {
    float rest = 0.0f;
    for (std::int64_t k = whole; k < dim; ++k) rest += q[k] * keys[i * dim + k];
    scores[i] = (dots[i] + rest) * scale;
  }
}

// total[0 … 16 Chunks) += sum over i of p[i] * values[i]: the sums stay in registers.
template <int Chunks>
LLMFP8_INLINE void add_values(const float* p, const float* values, std::int64_t n, std::int64_t step, float* total) {
  Float16 sums[Chunks];
  for (int c = 0; c < Chunks; ++c) sums[c] = load_vector<Float16>(total + 16 * c);
  for (std::int64_t i = 0; i < n; ++i) {
    for (int c = 0; c < Chunks; ++c) sums[c] += p[i] * load_vector<Float16>(values + i * step + 16 * c);
  }
  for (int c = 0; c < Chunks; ++c) std::memcpy(total + 16 * c, &sums[c], sizeof sums[c]);
}

// Fetches `count` pieces of head_dim elements, `step` apart: the pieces of one head lie too far apart for the hardware to
// see a stream, and without this decoding mostly waits for memory.
template <typename A>
LLMFP8_INLINE void prefetch_rows(const A* from, std::int64_t count, std::int64_t step, std::int64_t head_dim) {
  constexpr std::int64_t kLine = 64 / sizeof(A);
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t k = 0; k < head_dim; k += kLine) __builtin_prefetch(from + i * step + k);
  }
}

// What one query head has summed so far.
struct Head {
  float largest = -INFINITY;  // score
  double mass = 0.0;          // of exp(score - largest)
};

// One block of n keys and values, both f32 [n rounded up to 8, dim]: the running softmax of one head takes them in.
LLMFP8_INLINE void take_block(Head& head, const float* q, const float* keys, const float* values, std::int64_t n,
                              std::int64_t dim, float scale, float* total) {
  float scores[kKeys];
  for (std::int64_t i = 0; i < n; i += 8) {
    if (dim == 64) {
      score_eight<64>(q, keys + i * dim, dim, scale, scores + i);
    } else if (dim == 128) {
      score_eight<128>(q, keys + i * dim, dim, scale, scores + i);
    } else {
      score_eight<0>(q, keys + i * dim, dim, scale, scores + i);
    }
  }
  float next = head.largest;
  for (std::int64_t i = 0; i < n; ++i) next = scores[i] > next ? scores[i] : next;
  const float shrink = head.mass == 0.0 ? 0.0f : fast_exp(head.largest - next);
  head.largest = next;
  for (std::int64_t i = 0; i < n; ++i) scores[i] = fast_exp(scores[i] - next);
  head.mass = head.mass * static_cast<double>(shrink) + sum(scores, n);
  for (std::int64_t k = 0; k < dim; ++k) total[k] *= shrink;
  std::int64_t k = 0;
  for (; k + 64 <= dim; k += 64) add_values<4>(scores, values + k, n, dim, total + k);
  for (; k + 16 <= dim; k += 16) add_values<1>(scores, values + k, n, dim, total + k);
  for (; k < dim; ++k) {
    for (std::int64_t i = 0; i < n; ++i) total[k] += scores[i] * values[i * dim + k];
  }
}

// Query heads that share one head of keys and values, and what they look at.
template <typename A>
struct Group {
  std::int64_t heads = 0;      // at most kMaxHeads, and kBlockFloats / head_dim
  const A* queries = nullptr;  // [heads, head_dim]
  const A* keys = nullptr;     // [count, step apart, head_dim]
  const A* values = nullptr;   // like keys
  std::int64_t count = 0, step = 0;
  A* out = nullptr;  // [heads, head_dim]
};

// A block of keys and values is read and widened once for all heads of the group.
template <typename A>
LLMFP8_CLONES void attend(const Group<A>& group, std::int64_t dim, float scale) {
  const std::int64_t block = std::min<std::int64_t>(kKeys, kBlockFloats / dim / 8 * 8);
  float q[kMaxHeadDim], keys[kBlockFloats], values[kBlockFloats], totals[kBlockFloats];
  Head heads[kMaxHeads];
  std::fill_n(totals, group.heads * dim, 0.0f);
  prefetch_rows(group.keys, std::min(block, group.count), group.step, dim);
  for (std::int64_t first = 0; first < group.count; first += block) {
    const std::int64_t n = std::min(block, group.count - first);
    const A *key = group.keys + first * group.step, *value = group.values + first * group.step;
    prefetch_rows(value, n, group.step, dim);
    for (std::int64_t i = 0; i < n; ++i) load(key + i * group.step, keys + i * dim, dim);
    std::fill(keys + n * dim, keys + (n + 7) / 8 * 8 * dim, 0.0f);
    prefetch_rows(key + n * group.step, std::min(block, group.count - first - n), group.step, dim);
    for (std::int64_t i = 0; i < n; ++i) load(value + i * group.step, values + i * dim, dim);
    for (std::int64_t h = 0; h < group.heads; ++h) {
      load(group.queries + h * dim, q, dim);
      take_block(heads[h], q, keys, values, n, dim, scale, totals + h * dim);
    }
  }
  for (std::int64_t h = 0; h < group.heads; ++h) {
    const float inverse = static_cast<float>(1.0 / heads[h].mass);
    for (std::int64_t k = 0; k < dim; ++k) group.out[h * dim + k] = from_float<A>(totals[h * dim + k] * inverse);
  }
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
  const std::int64_t first_head = kv_head * group, most = std::min<std::int64_t>(kMaxHeads, kBlockFloats / dim);
  for (std::int64_t h = 0; h < group; h += most) {
    const std::int64_t at = (first_head + h) * dim;
    attend<A>({std::min(most, group - h), qkv + at, keys, values, position + 1, step, row_of<A>(args.out, b) + at}, dim,
              shape.scale);
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
