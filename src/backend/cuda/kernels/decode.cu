// Attention of one new token per sequence against a cache, and filling the cache after a prefill. Called by CudaOps.
//
// A cache row is [max_len, num_kv_heads, head_dim].
#include <cmath>

#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/kernels.h"

namespace llmfp8::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kKeys = 4;  // that a warp has in flight
constexpr int kMaxHeadDim = 512;

__device__ inline float2 load_pair(const float* p) { return *reinterpret_cast<const float2*>(p); }
__device__ inline float2 load_pair(const bf16* p) {
  const std::uint32_t raw = *reinterpret_cast<const std::uint32_t*>(p);
  return make_float2(__uint_as_float(raw << 16), __uint_as_float(raw & 0xFFFF0000u));
}

struct DecodeShape {
  int num_heads, num_kv_heads, head_dim;
  float scale;
};

// out = softmax(scale * q·k) · v over keys 0 .. position. A block takes a query head of a sequence (grid: heads x
// batch); warp w the keys w * 4 .. w * 4 + 3, then 32 further, with a running maximum; lane l the dimensions 2l, 2l +
// 1, 2l + 64, … (kPairs pairs). The warps' parts are merged in order. The new key and value are read from qkv, for the
// block of the first query head of their group writes them into the cache meanwhile. Pairs are aligned: rows and
// head_dim are even.
template <typename A, int kPairs>
__global__ void __launch_bounds__(kThreads)
    attention_decode_kernel(DecodeShape shape, Matrix<const A> qkv, const std::int32_t* positions,
                            const std::int32_t* slots, Matrix<A> k_cache, Matrix<A> v_cache, Matrix<A> out) {
  __shared__ float largests[kWarps], masses[kWarps], totals[kWarps][kPairs * 64];
  const int head = static_cast<int>(blockIdx.x), dim = shape.head_dim, group = shape.num_heads / shape.num_kv_heads;
  const int kv_head = head / group, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t b = blockIdx.y, step = static_cast<std::int64_t>(shape.num_kv_heads) * dim;
  const std::int32_t position = positions[b], slot = slots[b];
  require(slot >= 0 && slot < k_cache.rows && position >= 0 && (position + std::int64_t{1}) * step <= k_cache.cols);
  A* keys = k_cache.row(slot) + static_cast<std::int64_t>(kv_head) * dim;
  A* values = v_cache.row(slot) + static_cast<std::int64_t>(kv_head) * dim;
  const A* query = qkv.row(b) + static_cast<std::int64_t>(head) * dim;
  const A* new_key = qkv.row(b) + static_cast<std::int64_t>(shape.num_heads + kv_head) * dim;
  const A* new_value = new_key + step;
  if (head % group == 0) {
    for (int d = static_cast<int>(threadIdx.x); d < dim; d += kThreads) {
      keys[position * step + d] = new_key[d];
      values[position * step + d] = new_value[d];
    }
  }
  float2 q[kPairs], total[kPairs];
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int d = 2 * lane + 64 * i;
    q[i] = d < dim ? load_pair(query + d) : make_float2(0.0f, 0.0f);
    total[i] = make_float2(0.0f, 0.0f);
  }
  float largest = -INFINITY, mass = 0.0f;
  for (int first = warp * kKeys; first <= position; first += kWarps * kKeys) {
    float score[kKeys];
    float2 value[kKeys][kPairs];
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      const int index = first + j;
      const A* key = index < position ? keys + index * step : new_key;
      const A* at = index < position ? values + index * step : new_value;
      score[j] = 0.0f;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const int d = 2 * lane + 64 * i;
        value[j][i] = make_float2(0.0f, 0.0f);
        if (d >= dim || index > position) continue;
        const float2 k = load_pair(key + d);
        value[j][i] = load_pair(at + d);
        score[j] = fmaf(q[i].x, k.x, fmaf(q[i].y, k.y, score[j]));
      }
    }
    float next = largest;
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      score[j] = warp_sum(score[j]) * shape.scale;
      if (first + j > position) score[j] = -INFINITY;
      next = fmaxf(next, score[j]);
    }
    const float shrink = expf(largest - next);  // the first time exp(-infinity) = 0
    largest = next;
    mass *= shrink;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) total[i].x *= shrink, total[i].y *= shrink;
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
      const float p = expf(score[j] - largest);
      mass += p;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        total[i].x = fmaf(p, value[j][i].x, total[i].x);
        total[i].y = fmaf(p, value[j][i].y, total[i].y);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    totals[warp][2 * lane + 64 * i] = total[i].x;
    totals[warp][2 * lane + 64 * i + 1] = total[i].y;
  }
  if (lane == 0) largests[warp] = largest, masses[warp] = mass;
  __syncthreads();
  float most = -INFINITY, mass_of_all = 0.0f;
  for (int w = 0; w < kWarps; ++w) most = fmaxf(most, largests[w]);
  for (int w = 0; w < kWarps; ++w) mass_of_all += masses[w] * expf(largests[w] - most);
  A* to = out.row(b) + static_cast<std::int64_t>(head) * dim;
  for (int d = static_cast<int>(threadIdx.x); d < dim; d += kThreads) {
    float sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) sum = fmaf(totals[w][d], expf(largests[w] - most), sum);
    to[d] = from_float<A>(sum / mass_of_all);
  }
}

// Copies keys and values of a document's tokens into its cache row. Grid: documents x strides over the tokens; a block
// takes a token at a time. step, query_width: words of all kv heads and of all query heads. Word: u16, u32 or uint4.
template <typename Word>
__global__ void __launch_bounds__(kThreads)
    cache_fill_kernel(Matrix<const Word> qkv, const std::int32_t* cu_seqlens, const std::int32_t* slots,
                      std::int64_t step, std::int64_t query_width, Matrix<Word> k_cache, Matrix<Word> v_cache) {
  const std::int64_t doc = blockIdx.x, begin = cu_seqlens[doc], length = cu_seqlens[doc + 1] - begin;
  if (length <= 0) return;
  const std::int64_t slot = slots[doc];
  require(begin >= 0 && begin + length <= qkv.rows && slot >= 0 && slot < k_cache.rows &&
          length * step <= k_cache.cols);
  for (std::int64_t i = blockIdx.y; i < length; i += gridDim.y) {
    const Word* from = qkv.row(begin + i) + query_width;
    Word* keys = k_cache.row(slot) + i * step;
    Word* values = v_cache.row(slot) + i * step;
    for (std::int64_t c = threadIdx.x; c < step; c += blockDim.x) {
      keys[c] = from[c];
      values[c] = from[step + c];
    }
  }
}

template <typename Word>
void launch_cache_fill(const CacheFillArgs& args, cudaStream_t stream) {
  const std::int64_t size = static_cast<std::int64_t>(size_bytes(args.qkv.dtype)), word = sizeof(Word);
  const auto view = [&](const Tensor& t) {
    return Matrix<Word>{static_cast<Word*>(t.data), t.rows(), t.cols() * size / word, t.row_stride * size / word};
  };
  const Matrix<Word> qkv = view(args.qkv);
  const std::int64_t dim = args.shape.head_dim * size;
  const dim3 grid(static_cast<unsigned>(args.slots.numel()),
                  static_cast<unsigned>(std::clamp<std::int64_t>(args.qkv.rows(), 1, 256)));
  cache_fill_kernel<Word><<<grid, kThreads, 0, stream>>>(
      Matrix<const Word>{qkv.data, qkv.rows, qkv.cols, qkv.stride}, args.cu_seqlens.as<const std::int32_t>(),
      args.slots.as<const std::int32_t>(), args.shape.num_kv_heads * dim / word, args.shape.num_heads * dim / word,
      view(args.k_cache), view(args.v_cache));
  check_launch("cache_fill");
}

bool even_rows(const Tensor& t) { return aligned(t.data, 2 * size_bytes(t.dtype)) && t.row_stride % 2 == 0; }

}  // namespace

void attention_decode(const AttentionDecodeArgs& args, cudaStream_t stream) {
  const std::int64_t batch = args.positions.numel();
  if (batch == 0) return;
  CHECK(args.shape.head_dim <= kMaxHeadDim, "attention_decode: head_dim {}, at most {}", args.shape.head_dim,
        kMaxHeadDim);
  CHECK(even_rows(args.qkv) && even_rows(args.k_cache) && even_rows(args.v_cache),
        "attention_decode: rows of odd length");
  const DecodeShape shape{static_cast<int>(args.shape.num_heads), static_cast<int>(args.shape.num_kv_heads),
                          static_cast<int>(args.shape.head_dim), args.shape.scale};
  const dim3 grid(static_cast<unsigned>(shape.num_heads), static_cast<unsigned>(batch));
  with_activation(args.qkv.dtype, [&](auto a) {
    using A = decltype(a);
    const auto launch = [&](auto pairs) {
      attention_decode_kernel<A, pairs()><<<grid, kThreads, 0, stream>>>(
          shape, matrix<const A>(args.qkv), args.positions.as<const std::int32_t>(),
          args.slots.as<const std::int32_t>(), matrix<A>(args.k_cache), matrix<A>(args.v_cache), matrix<A>(args.out));
    };
    if (shape.head_dim <= 64) {
      launch(std::integral_constant<int, 1>());
    } else if (shape.head_dim <= 128) {
      launch(std::integral_constant<int, 2>());
    } else if (shape.head_dim <= 256) {
      launch(std::integral_constant<int, 4>());
    } else {
      launch(std::integral_constant<int, 8>());
    }
  });
  check_launch("attention_decode");
}

void cache_fill(const CacheFillArgs& args, cudaStream_t stream) {
  if (args.slots.numel() == 0 || args.qkv.rows() == 0) return;
  const std::int64_t size = static_cast<std::int64_t>(size_bytes(args.qkv.dtype));
  const auto fits = [&](std::int64_t word) {
    const auto tensor = [&](const Tensor& t) {
      return aligned(t.data, static_cast<std::size_t>(word)) && t.row_stride * size % word == 0 &&
             t.cols() * size % word == 0;
    };
    return args.shape.head_dim * size % word == 0 && tensor(args.qkv) && tensor(args.k_cache) && tensor(args.v_cache);
  };
  if (fits(16)) return launch_cache_fill<uint4>(args, stream);
  if (fits(4)) return launch_cache_fill<std::uint32_t>(args, stream);
  launch_cache_fill<std::uint16_t>(args, stream);
}

}  // namespace llmfp8::cuda
