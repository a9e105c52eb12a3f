// The layout work around cuDNN's attention: document offsets and lengths, zero tails, keys' and values' gradients into
// the packed d_qkv. Called by attention_cudnn.cpp. Every row here is a multiple of 16 bytes, on a 16-byte boundary.
#include <algorithm>

#include "backend/cuda/attention_kernels.h"
#include "backend/cuda/check.h"

namespace llmfp8::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 264;  // two on each multiprocessor of an H100 or H200; any number is right

// Rows [num_tokens, num_tokens + limit) of a matrix, in 16-byte units.
struct Tail {
  uint4* data = nullptr;  // null: none
  std::int64_t rows = 0, row_units = 0, stride_units = 0, limit = 0;
};

struct Documents {
  const std::int32_t* cu_seqlens = nullptr;  // i32 [max_docs + 1]
  const std::int32_t* num_tokens = nullptr;  // i32 [1]
  std::int64_t max_docs = 0, capacity = 0;
  std::int64_t qkv_stride = 0, out_stride = 0, kv_stride = 0;
};

__device__ std::int64_t live_tokens(const Documents& documents) {
  const std::int64_t n = *documents.num_tokens;
  return n < 0 ? 0 : (n < documents.capacity ? n : documents.capacity);
}

__device__ std::int64_t bound(const Documents& documents, std::int64_t slot, std::int64_t live) {
  const std::int64_t at = documents.cu_seqlens[slot];
  return at < 0 ? 0 : (at < live ? at : live);
}

// Indices are 32 bits wide: 64-bit division would cost more than the copies. cuDNN is used below 2^31 units only.
__device__ void zero_tail(const Tail& tail, std::int64_t live, std::uint32_t thread, std::uint32_t threads) {
  const std::int64_t rows = tail.limit < tail.rows - live ? tail.limit : tail.rows - live;
  const std::uint32_t width = static_cast<std::uint32_t>(tail.row_units);
  const std::uint32_t units = tail.data == nullptr ? 0 : static_cast<std::uint32_t>(rows) * width;
  for (std::uint32_t i = thread; i < units; i += threads) {
    tail.data[(live + i / width) * tail.stride_units + i % width] = make_uint4(0, 0, 0, 0);
  }
}

// lse: f32 [heads, capacity] or null
__global__ void prepare_kernel(Documents documents, DocumentLayout layout, Tail first, Tail second, float* lse,
                               std::int64_t heads) {
  const std::int64_t live = live_tokens(documents);
  const std::uint32_t thread = blockIdx.x * kThreads + threadIdx.x, threads = gridDim.x * kThreads;
  for (std::int64_t slot = thread; slot <= documents.max_docs; slot += threads) {
    const std::int64_t at = bound(documents, slot, live);
    layout.qkv_offsets[slot] = at * documents.qkv_stride;
    layout.out_offsets[slot] = at * documents.out_stride;
    layout.kv_offsets[slot] = at * documents.kv_stride;
    layout.lse_offsets[slot] = at;
    if (slot < documents.max_docs) {
      const std::int64_t next = bound(documents, slot + 1, live);
      layout.lengths[slot] = static_cast<std::int32_t>(next > at ? next - at : 0);
    }
  }
  zero_tail(first, live, thread, threads);
  zero_tail(second, live, thread, threads);
  if (lse == nullptr) return;
  const std::uint32_t columns = static_cast<std::uint32_t>(documents.capacity - live);
  for (std::uint32_t i = thread; i < static_cast<std::uint32_t>(heads) * columns; i += threads) {
    lse[i / columns * documents.capacity + live + i % columns] = 0.0f;
  }
}

// d_k, d_v: [capacity, kv_units] in 16-byte units; d_qkv: rows of stride_units: q_units of q, then k, then v
__global__ void finish_kernel(const std::int32_t* num_tokens, std::int64_t capacity, std::int64_t q_units,
                              std::int64_t kv_units, const uint4* d_k, const uint4* d_v, uint4* d_qkv,
                              std::int64_t stride_units) {
  const std::int64_t live = min(static_cast<long long>(capacity), static_cast<long long>(max(*num_tokens, 0)));
  const std::uint32_t thread = blockIdx.x * kThreads + threadIdx.x, threads = gridDim.x * kThreads;
  const std::uint32_t width = static_cast<std::uint32_t>(2 * kv_units);
  for (std::uint32_t i = thread; i < static_cast<std::uint32_t>(live) * width; i += threads) {
    const std::int64_t row = i / width, column = i % width;
    const uint4* from = column < kv_units ? d_k + row * kv_units + column : d_v + row * kv_units + column - kv_units;
    d_qkv[row * stride_units + q_units + column] = *from;
  }
  const Tail tail{d_qkv, capacity, q_units + 2 * kv_units, stride_units, capacity};
  zero_tail(tail, live, thread, threads);
}

Tail tail_of(const Tensor& t, std::int64_t limit) {
  constexpr std::int64_t unit = 16 / 2;  // bf16 elements
  return {t.as<uint4>(), t.rows(), t.cols() / unit, t.row_stride / unit, limit};
}

Documents documents_of(const AttentionShape& shape, const Tensor& cu_seqlens, const Tensor& num_tokens,
                       const Tensor& qkv, const Tensor& out) {
  return {cu_seqlens.as<std::int32_t>(),
          num_tokens.as<std::int32_t>(),
          cu_seqlens.numel() - 1,
          qkv.rows(),
          qkv.row_stride,
          out.row_stride,
          shape.num_kv_heads * shape.head_dim};
}

}  // namespace

void prepare_attention(const AttentionArgs& args, const DocumentLayout& layout, cudaStream_t stream) {
  prepare_kernel<<<kBlocks, kThreads, 0, stream>>>(
      documents_of(args.shape, args.cu_seqlens, args.num_tokens, args.qkv, args.out), layout,
      tail_of(args.qkv, kTileRows), tail_of(args.out, args.out.rows()), args.lse.as<float>(), args.shape.num_heads);
  check_launch("attention layout");
}

void prepare_attention_backward(const AttentionBackwardArgs& args, const DocumentLayout& layout, cudaStream_t stream) {
  prepare_kernel<<<kBlocks, kThreads, 0, stream>>>(
      documents_of(args.shape, args.cu_seqlens, args.num_tokens, args.qkv, args.out), layout,
      tail_of(args.qkv, kTileRows), tail_of(args.d_out, kTileRows), nullptr, args.shape.num_heads);
  check_launch("attention_backward layout");
}

void finish_attention_backward(const AttentionBackwardArgs& args, const void* d_k, const void* d_v,
                               cudaStream_t stream) {
  constexpr std::int64_t unit = 16 / 2;
  const AttentionShape& shape = args.shape;
  finish_kernel<<<kBlocks * 4, kThreads, 0, stream>>>(
      args.num_tokens.as<std::int32_t>(), args.d_qkv.rows(), shape.num_heads * shape.head_dim / unit,
      shape.num_kv_heads * shape.head_dim / unit, static_cast<const uint4*>(d_k), static_cast<const uint4*>(d_v),
      args.d_qkv.as<uint4>(), args.d_qkv.row_stride / unit);
  check_launch("attention_backward gradients");
}

}  // namespace llmfp8::cuda
