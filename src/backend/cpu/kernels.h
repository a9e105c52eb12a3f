// The kernels of the CPU backend, one function per operation of Ops (op_args.h has shapes and formulas). Arguments are
// checked already. Called by CpuOps; scratch is *_scratch_bytes(args) of memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/op_args.h"

namespace llmfp8::cpu {

class MatmulEngine;

// memory (reduce.cpp)
void zero(const Tensor& out);
void copy(const Tensor& from, const Tensor& to);

// norm.cpp, rope.cpp, swiglu.cpp
void rmsnorm(const RmsnormArgs& args);
std::size_t rmsnorm_backward_scratch_bytes(const RmsnormBackwardArgs& args);
void rmsnorm_backward(const RmsnormBackwardArgs& args, void* scratch);
void rope(const RopeArgs& args);
void swiglu(const SwigluArgs& args);
void swiglu_backward(const SwigluBackwardArgs& args);

// embedding.cpp
void embedding(const EmbeddingArgs& args);
std::size_t embedding_backward_scratch_bytes(const EmbeddingBackwardArgs& args);
void embedding_backward(const EmbeddingBackwardArgs& args, void* scratch);

// attention.cpp, attention_backward.cpp, attention_decode.cpp. workers: threads that may work at once.
std::size_t attention_scratch_bytes(const AttentionArgs& args, int workers);
void attention(const AttentionArgs& args, void* scratch, int workers);
std::size_t attention_backward_scratch_bytes(const AttentionBackwardArgs& args, int workers);
void attention_backward(const AttentionBackwardArgs& args, void* scratch, int workers);
void attention_decode(const AttentionDecodeArgs& args);
void cache_fill(const CacheFillArgs& args);

// gemm.cpp
std::size_t gemm_scratch_bytes(const GemmArgs& args, const MatmulEngine& engine);
void gemm(const GemmArgs& args, const MatmulEngine& engine, void* scratch);

// loss.cpp
void gather_rows(const GatherRowsArgs& args);
void scatter_rows(const ScatterRowsArgs& args);
void cross_entropy(const CrossEntropyArgs& args);
void accumulate_loss(const Tensor& token_loss, const Tensor& count, std::int64_t row_offset, StepScalars* scalars);
void sample(const SampleArgs& args);

// quantize.cpp. live: rows below the count.
void amax(const Tensor& x, std::int64_t live, const Tensor& amax);
void quantize(const Tensor& x, std::int64_t live, const QTensor& out);

// reduce.cpp
void bias_backward(const BiasBackwardArgs& args);
void accumulate_sum_of_squares(const Tensor& grad, StepScalars* scalars);

// scales.cpp
void update_scales(const ScaleUpdateArgs& args);
void finish_gradient(StepScalars* scalars);

}  // namespace llmfp8::cpu
