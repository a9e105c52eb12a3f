// Causal attention over packed documents with kernels of our own, forward and backward. Called by attention_cudnn.cpp
// for f32, for shapes that cuDNN refuses and for deterministic runs whose cuDNN workspace would be too large.
//
// Tiles ignore documents: a block owns 32 consecutive rows of the batch, and a row sees the keys from the first of its
// document to itself. So nothing about the documents has to be known on the host. Eight neighbouring lanes share a row:
// lane i takes the other side's rows i, i + 8, … of a tile, and the columns 4i..4i+3, 4(i + 8).., … of an accumulator.
// Every sum has one owner and one order: results depend on the inputs alone.
#include <algorithm>

#include "backend/cuda/attention_kernels.h"
#include "backend/cuda/check.h"
#include "core/bf16.h"

namespace llmfp8::cuda {
namespace {

constexpr int kRows = 32;  // rows of a block
constexpr int kLanes = 8;  // threads of a row
constexpr int kThreads = kRows * kLanes;
constexpr float kNegativeInfinity = -__builtin_huge_valf();

__device__ float load(const float* p) { return *p; }
__device__ float load(const bf16* p) { return to_float(*p); }
__device__ void store(float* p, float value) { *p = value; }
__device__ void store(bf16* p, float value) { *p = to_bf16(value); }

// Shared-memory rows: head_dim rounded up to 16 bytes, then to an odd number of them, so that eight rows read at one
// column hit different banks.
__host__ __device__ constexpr int padded_units(int head_dim) { return (head_dim + 3) / 4; }
__host__ __device__ constexpr int tile_stride(int head_dim) { return (padded_units(head_dim) | 1) * 4; }

struct Problem {
  const std::int32_t* cu_seqlens;  // i32 [max_docs + 1]
  const std::int32_t* num_tokens;  // i32 [1]
  int max_docs, capacity;
  int heads, kv_heads, head_dim;
  float scale;
  std::int64_t qkv_stride, out_stride, d_out_stride, d_qkv_stride;  // elements from row to row

  __device__ int kv_head(int head) const { return head / (heads / kv_heads); }
  __device__ std::int64_t k_column(int kv) const { return static_cast<std::int64_t>(heads + kv) * head_dim; }
  __device__ std::int64_t v_column(int kv) const { return static_cast<std::int64_t>(heads + kv_heads + kv) * head_dim; }
};

// Rows that lie in a document.
__device__ int live_tokens(const Problem& p) {
  return max(0, min(p.capacity, min(*p.num_tokens, p.cu_seqlens[p.max_docs])));
}

struct Span {
  int begin, end;
};

// The document of a live row; slots may be empty.
__device__ Span document_of(const Problem& p, int row, int live) {
  int low = 0, high = p.max_docs;  // the first slot boundary beyond row lies in (low, high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (p.cu_seqlens[middle] > row) {
      high = middle;
    } else {
      low = middle;
    }
  }
  return {p.cu_seqlens[low], min(p.cu_seqlens[high], live)};
}

// Rows [first, first + rows) of a matrix's columns [0, head_dim) → to [rows, stride]; rows at and beyond end are zero.
template <typename A>
__device__ void load_tile(const A* from, std::int64_t from_stride, int first, int rows, int end, int head_dim,
                          float* to) {
  const int width = padded_units(head_dim) * 4, stride = tile_stride(head_dim);
  for (int i = threadIdx.x; i < rows * width; i += kThreads) {
    const int row = i / width, column = i % width;
    const bool inside = first + row < end && column < head_dim;
    to[row * stride + column] = inside ? load(from + (first + row) * from_stride + column) : 0.0f;
  }
}

__device__ float4 read4(const float* p) { return *reinterpret_cast<const float4*>(p); }

__device__ float dot4(float4 a, float4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

__device__ void add_scaled(float4& to, float factor, float4 v) {
  to = make_float4(fmaf(factor, v.x, to.x), fmaf(factor, v.y, to.y), fmaf(factor, v.z, to.z), fmaf(factor, v.w, to.w));
}

// out[j] = mine · row (lane + 8 j) of tile, over head_dim
template <int kOthers>
__device__ void dot_rows(const float* mine, const float* tile, int lane, int head_dim, float (&out)[kOthers / kLanes]) {
  const int stride = tile_stride(head_dim);
#pragma unroll
  for (int j = 0; j < kOthers / kLanes; ++j) out[j] = 0.0f;
  for (int d = 0; d < padded_units(head_dim) * 4; d += 4) {
    const float4 a = read4(mine + d);
#pragma unroll
    for (int j = 0; j < kOthers / kLanes; ++j) out[j] = dot4(a, read4(tile + (lane + kLanes * j) * stride + d), out[j]);
  }
}

// sums += weights [kOthers] times the rows of tile, in ascending order of row
template <int kOthers, int kUnits>
__device__ void accumulate(const float* weights, const float* tile, int lane, int head_dim, float4 (&sums)[kUnits]) {
  const int stride = tile_stride(head_dim), units = padded_units(head_dim);
  for (int row = 0; row < kOthers; ++row) {
    const float weight = weights[row];
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      if (lane + kLanes * j < units) add_scaled(sums[j], weight, read4(tile + row * stride + (lane + kLanes * j) * 4));
    }
  }
}

template <int kUnits>
__device__ void clear(float4 (&sums)[kUnits]) {
#pragma unroll
  for (int j = 0; j < kUnits; ++j) sums[j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

template <int kUnits, typename A>
__device__ void store_row(const float4 (&sums)[kUnits], float factor, int lane, int head_dim, A* to) {
#pragma unroll
  for (int j = 0; j < kUnits; ++j) {
    const int column = (lane + kLanes * j) * 4;
    const float values[4] = {sums[j].x, sums[j].y, sums[j].z, sums[j].w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (column + i < head_dim) store(to + column + i, values[i] * factor);
    }
  }
}

__device__ float max_of_row(float x) {
  for (int offset = kLanes / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, offset));
  return x;
}

__device__ float sum_of_row(float x) {
  for (int offset = kLanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
  return x;
}

// How many rows of the other side a tile holds, and float4 columns of an accumulator a lane holds.
template <int kMaxDim>
struct Tiling {
  static constexpr int kUnits = kMaxDim / 4 / kLanes;
  static constexpr int kOthers = kMaxDim <= 128 ? 32 : 8;
  static constexpr int kWeightStride = kOthers + 4;
};

template <int kMaxDim>
std::size_t shared_bytes(int head_dim, int block_tiles, int other_tiles, int weights) {
  using T = Tiling<kMaxDim>;
  const int floats =
      (block_tiles * kRows + other_tiles * T::kOthers) * tile_stride(head_dim) + weights * kRows * T::kWeightStride;
  return static_cast<std::size_t>(floats) * sizeof(float);
}

// One block: 32 query rows of one head. qkv: A [T, …]; out: A [T, heads * head_dim]; lse: f32 [heads, T]
template <typename A, int kMaxDim>
__global__ void __launch_bounds__(kThreads) forward_kernel(Problem p, const A* qkv, A* out, float* lse) {
  using T = Tiling<kMaxDim>;
  extern __shared__ float4 shared4[];
  float* shared = reinterpret_cast<float*>(shared4);
  const int stride = tile_stride(p.head_dim);
  float *queries = shared, *keys = queries + kRows * stride, *values = keys + T::kOthers * stride,
        *weights = values + T::kOthers * stride;
  const int row_in_block = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const int first = blockIdx.x * kRows, row = first + row_in_block, head = blockIdx.y, kv = p.kv_head(head);
  const int live = live_tokens(p);
  A* out_row = out + row * p.out_stride + static_cast<std::int64_t>(head) * p.head_dim;
  float* lse_row = lse + static_cast<std::int64_t>(head) * p.capacity;
  float* my_weights = weights + row_in_block * T::kWeightStride;
  float4 sums[T::kUnits];
  clear(sums);
  float largest = kNegativeInfinity, total = 0.0f;
  if (first < live) {
    const int begin = row < live ? document_of(p, row, live).begin : row + 1;  // dead rows see nothing
    const int last = min(first + kRows, live);
    load_tile(qkv + static_cast<std::int64_t>(head) * p.head_dim, p.qkv_stride, first, kRows, live, p.head_dim,
              queries);
    for (int key = document_of(p, first, live).begin; key < last; key += T::kOthers) {
      __syncthreads();  // the tiles of the last round are read, and the queries are written
      load_tile(qkv + p.k_column(kv), p.qkv_stride, key, T::kOthers, last, p.head_dim, keys);
      load_tile(qkv + p.v_column(kv), p.qkv_stride, key, T::kOthers, last, p.head_dim, values);
      __syncthreads();
      float scores[T::kOthers / kLanes];
      dot_rows<T::kOthers>(queries + row_in_block * stride, keys, lane, p.head_dim, scores);
      float tile_max = kNegativeInfinity;
#pragma unroll
      for (int j = 0; j < T::kOthers / kLanes; ++j) {
        const int at = key + lane + kLanes * j;
        scores[j] = at >= begin && at <= row ? scores[j] * p.scale : kNegativeInfinity;
        tile_max = fmaxf(tile_max, scores[j]);
      }
      const float new_largest = fmaxf(largest, max_of_row(tile_max));
      // Rows that have seen no key yet: exp(-inf - 0) is 0, where -inf minus itself would be NaN.
      const float base = new_largest == kNegativeInfinity ? 0.0f : new_largest;
      float tile_total = 0.0f;
#pragma unroll
      for (int j = 0; j < T::kOthers / kLanes; ++j) {
        const float weight = expf(scores[j] - base);
        my_weights[lane + kLanes * j] = weight;
        tile_total += weight;
      }
      const float shrink = expf(largest - base);
      total = fmaf(total, shrink, sum_of_row(tile_total));
#pragma unroll
      for (int j = 0; j < T::kUnits; ++j) {
        sums[j] = make_float4(sums[j].x * shrink, sums[j].y * shrink, sums[j].z * shrink, sums[j].w * shrink);
      }
      largest = new_largest;
      __syncwarp();  // a row's lanes lie in one warp
      accumulate<T::kOthers>(my_weights, values, lane, p.head_dim, sums);
    }
  }
  if (row >= p.capacity) return;
  const bool alive = row < live;
  store_row(sums, alive ? 1.0f / total : 0.0f, lane, p.head_dim, out_row);
  if (lane == 0) lse_row[row] = alive ? largest + logf(total) : 0.0f;
}

// sums [heads, T] = the dot product of d_out and out of each row and head, zero for rows that are not live.
template <typename A>
__global__ void __launch_bounds__(kThreads) row_sums_kernel(Problem p, const A* d_out, const A* out, float* sums) {
  const int row = blockIdx.x * kRows + threadIdx.x / kLanes, lane = threadIdx.x % kLanes, head = blockIdx.y;
  float sum = 0.0f;
  if (row < live_tokens(p)) {
    const std::int64_t column = static_cast<std::int64_t>(head) * p.head_dim;
    const A *a = d_out + row * p.d_out_stride + column, *b = out + row * p.out_stride + column;
    for (int i = lane; i < p.head_dim; i += kLanes) sum = fmaf(load(a + i), load(b + i), sum);
  }
  sum = sum_of_row(sum);
  if (lane == 0 && row < p.capacity) sums[static_cast<std::int64_t>(head) * p.capacity + row] = sum;
}

// What both backward kernels read; row_sums: f32 [heads, T]
template <typename A>
struct BackwardData {
  const A *qkv, *d_out;
  const float *lse, *row_sums;
  A* d_qkv;
};

// One block: the gradient of 32 query rows of one head.
template <typename A, int kMaxDim>
__global__ void __launch_bounds__(kThreads) query_gradient_kernel(Problem p, BackwardData<A> data) {
  using T = Tiling<kMaxDim>;
  extern __shared__ float4 shared4[];
  float* shared = reinterpret_cast<float*>(shared4);
  const int stride = tile_stride(p.head_dim);
  float *queries = shared, *d_outs = queries + kRows * stride, *keys = d_outs + kRows * stride,
        *values = keys + T::kOthers * stride, *weights = values + T::kOthers * stride;
  const int row_in_block = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const int first = blockIdx.x * kRows, row = first + row_in_block, head = blockIdx.y, kv = p.kv_head(head);
  const int live = live_tokens(p);
  const std::int64_t column = static_cast<std::int64_t>(head) * p.head_dim;
  float* my_weights = weights + row_in_block * T::kWeightStride;
  float4 sums[T::kUnits];
  clear(sums);
  if (first < live) {
    const bool alive = row < live;
    const int begin = alive ? document_of(p, row, live).begin : row + 1;  // dead rows see nothing
    const int last = min(first + kRows, live);
    const float lse = alive ? data.lse[static_cast<std::int64_t>(head) * p.capacity + row] : 0.0f;
    const float row_sum = alive ? data.row_sums[static_cast<std::int64_t>(head) * p.capacity + row] : 0.0f;
    load_tile(data.qkv + column, p.qkv_stride, first, kRows, live, p.head_dim, queries);
    load_tile(data.d_out + column, p.d_out_stride, first, kRows, live, p.head_dim, d_outs);
    for (int key = document_of(p, first, live).begin; key < last; key += T::kOthers) {
      __syncthreads();
      load_tile(data.qkv + p.k_column(kv), p.qkv_stride, key, T::kOthers, last, p.head_dim, keys);
      load_tile(data.qkv + p.v_column(kv), p.qkv_stride, key, T::kOthers, last, p.head_dim, values);
      __syncthreads();
      float scores[T::kOthers / kLanes], d_weights[T::kOthers / kLanes];
      dot_rows<T::kOthers>(queries + row_in_block * stride, keys, lane, p.head_dim, scores);
      dot_rows<T::kOthers>(d_outs + row_in_block * stride, values, lane, p.head_dim, d_weights);
#pragma unroll
      for (int j = 0; j < T::kOthers / kLanes; ++j) {
        const int at = key + lane + kLanes * j;
        const bool seen = at >= begin && at <= row;
        const float weight = seen ? expf(scores[j] * p.scale - lse) : 0.0f;
        my_weights[lane + kLanes * j] = seen ? weight * (d_weights[j] - row_sum) * p.scale : 0.0f;
      }
      __syncwarp();
      accumulate<T::kOthers>(my_weights, keys, lane, p.head_dim, sums);
    }
  }
  if (row < p.capacity) store_row(sums, 1.0f, lane, p.head_dim, data.d_qkv + row * p.d_qkv_stride + column);
}

// One block: the gradients of 32 rows of keys and values of one kv head, over its query heads in ascending order.
template <typename A, int kMaxDim>
__global__ void __launch_bounds__(kThreads) key_gradient_kernel(Problem p, BackwardData<A> data) {
  using T = Tiling<kMaxDim>;
  extern __shared__ float4 shared4[];
  float* shared = reinterpret_cast<float*>(shared4);
  const int stride = tile_stride(p.head_dim);
  float *keys = shared, *values = keys + kRows * stride, *queries = values + kRows * stride,
        *d_outs = queries + T::kOthers * stride, *weights = d_outs + T::kOthers * stride,
        *d_scores = weights + kRows * T::kWeightStride;
  const int row_in_block = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const int first = blockIdx.x * kRows, row = first + row_in_block, kv = blockIdx.y, group = p.heads / p.kv_heads;
  const int live = live_tokens(p);
  float* my_weights = weights + row_in_block * T::kWeightStride;
  float* my_d_scores = d_scores + row_in_block * T::kWeightStride;
  float4 d_keys[T::kUnits], d_values[T::kUnits];
  clear(d_keys);
  clear(d_values);
  if (first < live) {
    const int end = row < live ? document_of(p, row, live).end : 0;
    const int last = document_of(p, min(first + kRows, live) - 1, live).end;
    load_tile(data.qkv + p.k_column(kv), p.qkv_stride, first, kRows, live, p.head_dim, keys);
    load_tile(data.qkv + p.v_column(kv), p.qkv_stride, first, kRows, live, p.head_dim, values);
    for (int head = kv * group; head < (kv + 1) * group; ++head) {
      const std::int64_t column = static_cast<std::int64_t>(head) * p.head_dim;
      const float* lse = data.lse + static_cast<std::int64_t>(head) * p.capacity;
      const float* row_sums = data.row_sums + static_cast<std::int64_t>(head) * p.capacity;
      for (int query = first; query < last; query += T::kOthers) {
        __syncthreads();
        load_tile(data.qkv + column, p.qkv_stride, query, T::kOthers, last, p.head_dim, queries);
        load_tile(data.d_out + column, p.d_out_stride, query, T::kOthers, last, p.head_dim, d_outs);
        __syncthreads();
        float scores[T::kOthers / kLanes], d_weights[T::kOthers / kLanes];
        dot_rows<T::kOthers>(keys + row_in_block * stride, queries, lane, p.head_dim, scores);
        dot_rows<T::kOthers>(values + row_in_block * stride, d_outs, lane, p.head_dim, d_weights);
#pragma unroll
        for (int j = 0; j < T::kOthers / kLanes; ++j) {
          const int at = query + lane + kLanes * j;
          const bool sees = at >= row && at < end;
          const float weight = sees ? expf(scores[j] * p.scale - lse[at]) : 0.0f;
          my_weights[lane + kLanes * j] = weight;
          my_d_scores[lane + kLanes * j] = sees ? weight * (d_weights[j] - row_sums[at]) * p.scale : 0.0f;
        }
        __syncwarp();
        accumulate<T::kOthers>(my_weights, d_outs, lane, p.head_dim, d_values);
        accumulate<T::kOthers>(my_d_scores, queries, lane, p.head_dim, d_keys);
      }
    }
  }
  if (row >= p.capacity) return;
  store_row(d_keys, 1.0f, lane, p.head_dim, data.d_qkv + row * p.d_qkv_stride + p.k_column(kv));
  store_row(d_values, 1.0f, lane, p.head_dim, data.d_qkv + row * p.d_qkv_stride + p.v_column(kv));
}

template <typename Args>
Problem problem_of(const Args& args) {
  const AttentionShape& shape = args.shape;
  CHECK(shape.head_dim <= kMaxOwnHeadDim, "attention: head_dim {}, at most {} on CUDA", shape.head_dim, kMaxOwnHeadDim);
  CHECK(args.qkv.rows() < std::int64_t{1} << 30, "attention: {} tokens in one batch", args.qkv.rows());
  Problem p{};
  p.cu_seqlens = args.cu_seqlens.template as<std::int32_t>();
  p.num_tokens = args.num_tokens.template as<std::int32_t>();
  p.max_docs = static_cast<int>(args.cu_seqlens.numel() - 1);
  p.capacity = static_cast<int>(args.qkv.rows());
  p.heads = static_cast<int>(shape.num_heads);
  p.kv_heads = static_cast<int>(shape.num_kv_heads);
  p.head_dim = static_cast<int>(shape.head_dim);
  p.scale = shape.scale;
  p.qkv_stride = args.qkv.row_stride;
  p.out_stride = args.out.row_stride;
  return p;
}

dim3 grid(const Problem& p, int heads) {
  return dim3(static_cast<unsigned>((p.capacity + kRows - 1) / kRows), static_cast<unsigned>(heads));
}

// body(integral_constant<int, largest head_dim of the kernel>)
template <typename Body>
void with_head_dim(int head_dim, Body body) {
  if (head_dim <= 64) {
    body(std::integral_constant<int, 64>{});
  } else if (head_dim <= 128) {
    body(std::integral_constant<int, 128>{});
  } else {
    body(std::integral_constant<int, 256>{});
  }
}

template <typename Kernel>
void allow_shared(Kernel* kernel, std::size_t bytes) {
  LLMFP8_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}

template <typename A>
void forward(const AttentionArgs& args, cudaStream_t stream) {
  const Problem p = problem_of(args);
  with_head_dim(p.head_dim, [&](auto dim) {
    constexpr int kMaxDim = decltype(dim)::value;
    const std::size_t bytes = shared_bytes<kMaxDim>(p.head_dim, 1, 2, 1);
    allow_shared(forward_kernel<A, kMaxDim>, bytes);
    forward_kernel<A, kMaxDim>
        <<<grid(p, p.heads), kThreads, bytes, stream>>>(p, args.qkv.as<A>(), args.out.as<A>(), args.lse.as<float>());
  });
  check_launch("attention");
}

template <typename A>
void backward(const AttentionBackwardArgs& args, float* row_sums, cudaStream_t stream) {
  Problem p = problem_of(args);
  p.d_out_stride = args.d_out.row_stride;
  p.d_qkv_stride = args.d_qkv.row_stride;
  const BackwardData<A> data{args.qkv.as<A>(), args.d_out.as<A>(), args.lse.as<float>(), row_sums, args.d_qkv.as<A>()};
  row_sums_kernel<A><<<grid(p, p.heads), kThreads, 0, stream>>>(p, args.d_out.as<A>(), args.out.as<A>(), row_sums);
  with_head_dim(p.head_dim, [&](auto dim) {
    constexpr int kMaxDim = decltype(dim)::value;
    const std::size_t query_bytes = shared_bytes<kMaxDim>(p.head_dim, 2, 2, 1);
    allow_shared(query_gradient_kernel<A, kMaxDim>, query_bytes);
    query_gradient_kernel<A, kMaxDim><<<grid(p, p.heads), kThreads, query_bytes, stream>>>(p, data);
    const std::size_t key_bytes = shared_bytes<kMaxDim>(p.head_dim, 2, 2, 2);
    allow_shared(key_gradient_kernel<A, kMaxDim>, key_bytes);
    key_gradient_kernel<A, kMaxDim><<<grid(p, p.kv_heads), kThreads, key_bytes, stream>>>(p, data);
  });
  check_launch("attention_backward");
}

}  // namespace

std::size_t own_attention_scratch_bytes(const AttentionBackwardArgs& args) {
  return static_cast<std::size_t>(args.shape.num_heads * args.qkv.rows()) * sizeof(float);
}

void own_attention(const AttentionArgs& args, cudaStream_t stream) {
  if (args.qkv.rows() == 0) return;
  args.qkv.dtype == DType::bf16 ? forward<bf16>(args, stream) : forward<float>(args, stream);
}

void own_attention_backward(const AttentionBackwardArgs& args, void* scratch, cudaStream_t stream) {
  if (args.qkv.rows() == 0) return;
  float* row_sums = static_cast<float*>(scratch);
  args.qkv.dtype == DType::bf16 ? backward<bf16>(args, row_sums, stream) : backward<float>(args, row_sums, stream);
}

}  // namespace llmfp8::cuda
