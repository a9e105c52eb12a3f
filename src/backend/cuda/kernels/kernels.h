// The kernels of the CUDA backend, one launcher per operation of Ops (op_args.h has shapes and formulas). Called by
// CudaOps.
//
// Arguments are checked already; tensors lie in device memory. A launcher enqueues on `stream`, never waits, allocates
// nothing and throws Error where a launch fails, so it may run inside a stream capture. Results depend on shapes and
// values alone: no floating-point atomics anywhere, sums in a fixed order.
//
// scratch: *_scratch_bytes(args) of device memory, 16-byte aligned (256 for embedding_backward).
// workspace: kWorkspaceBytes of device memory, 256-byte aligned, contents arbitrary. Two streams must not share one.
//
// Flags (cmake/cuda.cmake): --expt-relaxed-constexpr for std::bit_cast in core/, -fmad=false because AdamW and RoPE
// give the CPU's bytes only without contraction (where a fused multiply-add is wanted the kernels say fmaf), no
// fast-math.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "backend/op_args.h"

namespace llmfp8::cuda {

inline constexpr std::size_t kWorkspaceBytes = std::size_t{4} << 20;

// rows.cu: memory, rows by index, bias gradient
void zero(const Tensor& out, cudaStream_t stream);
void copy(const Tensor& from, const Tensor& to, cudaStream_t stream);
void gather_rows(const GatherRowsArgs& args, cudaStream_t stream);
void scatter_rows(const ScatterRowsArgs& args, cudaStream_t stream);
void bias_backward(const BiasBackwardArgs& args, void* workspace, cudaStream_t stream);

// embedding.cu
void embedding(const EmbeddingArgs& args, cudaStream_t stream);
std::size_t embedding_backward_scratch_bytes(const EmbeddingBackwardArgs& args);
void embedding_backward(const EmbeddingBackwardArgs& args, void* scratch, cudaStream_t stream);

// norm.cu
void rmsnorm(const RmsnormArgs& args, cudaStream_t stream);
std::size_t rmsnorm_backward_scratch_bytes(const RmsnormBackwardArgs& args);
void rmsnorm_backward(const RmsnormBackwardArgs& args, void* scratch, cudaStream_t stream);

// rope.cu, swiglu.cu
void rope(const RopeArgs& args, cudaStream_t stream);
void swiglu(const SwigluArgs& args, cudaStream_t stream);
void swiglu_backward(const SwigluBackwardArgs& args, cudaStream_t stream);

// One pass from the activation to row-wise and transposed codes; the same bytes as the primitives. Only for per-tensor
// scaling with a scale that is known before (delayed), or no quantisation: elsewhere Ops composes the primitives.
inline bool can_fuse_quantize(const QTensor& out) {
  return !out.quantized() || (out.scaling == Scaling::tensor && !out.just_in_time);
}
void rmsnorm_quantize(const RmsnormQuantizeArgs& args, cudaStream_t stream);  // norm.cu
void swiglu_quantize(const SwigluQuantizeArgs& args, cudaStream_t stream);    // swiglu.cu
void swiglu_backward_quantize(const SwigluBackwardQuantizeArgs& args, cudaStream_t stream);
void rope_quantize(const RopeQuantizeArgs& args, cudaStream_t stream);        // rope.cu

// decode.cu
void attention_decode(const AttentionDecodeArgs& args, cudaStream_t stream);
void cache_fill(const CacheFillArgs& args, cudaStream_t stream);

// cross_entropy.cu, sample.cu
void cross_entropy(const CrossEntropyArgs& args, cudaStream_t stream);
std::size_t cross_entropy_quantize_scratch_bytes(const CrossEntropyQuantizeArgs& args);
void cross_entropy_quantize(const CrossEntropyQuantizeArgs& args, void* scratch, cudaStream_t stream);  // can_fuse_quantize
void sample(const SampleArgs& args, cudaStream_t stream);

// quantize.cu
void amax(const Tensor& x, const Tensor& num_rows, const Tensor& amax, cudaStream_t stream);
void quantize(const Tensor& x, const Tensor& num_rows, const QTensor& out, void* workspace, cudaStream_t stream);
void quantize_weight(const Tensor& weight, const QTensor& out, const StepScalars* scalars, void* workspace,
                     cudaStream_t stream);

// scales.cu
void update_scales(const ScaleUpdateArgs& args, cudaStream_t stream);
void finish_gradient(StepScalars* scalars, cudaStream_t stream);

// reduce.cu
void accumulate_loss(const Tensor& token_loss, const Tensor& count, std::int64_t row_offset, StepScalars* scalars,
                     void* workspace, cudaStream_t stream);
void accumulate_sum_of_squares(const Tensor& grad, StepScalars* scalars, void* workspace, cudaStream_t stream);

// adamw.cu
void adamw(const AdamwArgs& args, cudaStream_t stream);

}  // namespace llmfp8::cuda
