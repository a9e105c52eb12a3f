// Attention kernels of our own: the engine that takes every shape, and the layout work around cuDNN's. Called by
// attention_cudnn.cpp, which decides between the engines.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "backend/op_args.h"

namespace llmfp8::cuda {

inline constexpr std::int64_t kMaxOwnHeadDim = 256;

// The own engine: fp32 arithmetic, no atomics, one fixed order of summation; any document layout, head_dim <= 256.
std::size_t own_attention_scratch_bytes(const AttentionBackwardArgs& args);
void own_attention(const AttentionArgs& args, cudaStream_t stream);
void own_attention_backward(const AttentionBackwardArgs& args, void* scratch, cudaStream_t stream);

// What cuDNN wants to know about the documents, in device memory; offsets in elements.
struct DocumentLayout {
  std::int64_t* qkv_offsets;  // i64 [max_docs + 1]: cu_seqlens * row stride of qkv (and of d_qkv, which equals it)
  std::int64_t* out_offsets;  // i64 [max_docs + 1]: cu_seqlens * row stride of out (and of d_out, which equals it)
  std::int64_t* kv_offsets;   // i64 [max_docs + 1]: cu_seqlens * num_kv_heads * head_dim
  std::int64_t* lse_offsets;  // i64 [max_docs + 1]: cu_seqlens
  std::int32_t* lengths;      // i32 [max_docs]; 0 for unused slots
};

// Fills the layout; zeroes the rows of out and the columns of lse at and beyond num_tokens, and up to kTileRows rows of
// qkv there: cuDNN reads whole tiles, and zero times NaN is NaN.
inline constexpr std::int64_t kTileRows = 256;
void prepare_attention(const AttentionArgs& args, const DocumentLayout& layout, cudaStream_t stream);
// The same for the backward pass: up to kTileRows rows of qkv and d_out.
void prepare_attention_backward(const AttentionBackwardArgs& args, const DocumentLayout& layout, cudaStream_t stream);
// d_k, d_v: bf16 [T, num_kv_heads * head_dim] → their columns of d_qkv; its rows at and beyond num_tokens become zero.
void finish_attention_backward(const AttentionBackwardArgs& args, const void* d_k, const void* d_v,
                               cudaStream_t stream);

}  // namespace llmfp8::cuda
