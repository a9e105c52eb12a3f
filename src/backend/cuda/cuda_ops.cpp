#include "backend/cuda/cuda_ops.h"

#include "backend/cuda/kernels/kernels.h"

namespace llmfp8::cuda {

// The fused kernels share one rule.
bool CudaOps::fuses(FusedOp, const QTensor& out) const { return can_fuse_quantize(out); }

std::size_t CudaOps::scratch_bytes(const GemmArgs& args) const { return gemm_scratch_bytes(args); }
std::size_t CudaOps::scratch_bytes(const EmbeddingBackwardArgs& args) const {
  return embedding_backward_scratch_bytes(args);
}
std::size_t CudaOps::scratch_bytes(const RmsnormBackwardArgs& args) const {
  return rmsnorm_backward_scratch_bytes(args);
}
std::size_t CudaOps::scratch_bytes(const AttentionArgs& args) const {
  return attention_scratch_bytes(args, *context_.attention);
}
std::size_t CudaOps::scratch_bytes(const AttentionBackwardArgs& args) const {
  return attention_scratch_bytes(args, *context_.attention);
}

std::size_t CudaOps::scratch_bytes(const CrossEntropyQuantizeArgs& args) const {
  return cross_entropy_quantize_scratch_bytes(args);
}

void CudaOps::do_zero(const Tensor& out) { cuda::zero(out, context_.stream); }
void CudaOps::do_copy(const Tensor& from, const Tensor& to) { cuda::copy(from, to, context_.stream); }
void CudaOps::do_embedding(const EmbeddingArgs& args) { cuda::embedding(args, context_.stream); }
void CudaOps::do_embedding_backward(const EmbeddingBackwardArgs& args, void* scratch) {
  cuda::embedding_backward(args, scratch, context_.stream);
}
void CudaOps::do_rmsnorm(const RmsnormArgs& args) { cuda::rmsnorm(args, context_.stream); }
void CudaOps::do_rmsnorm_backward(const RmsnormBackwardArgs& args, void* scratch) {
  cuda::rmsnorm_backward(args, scratch, context_.stream);
}
void CudaOps::do_rope(const RopeArgs& args) { cuda::rope(args, context_.stream); }
void CudaOps::do_swiglu(const SwigluArgs& args) { cuda::swiglu(args, context_.stream); }
void CudaOps::do_swiglu_backward(const SwigluBackwardArgs& args) { cuda::swiglu_backward(args, context_.stream); }
void CudaOps::do_attention(const AttentionArgs& args, void* scratch) {
  cuda::attention(args, *context_.attention, scratch, context_.stream);
}
void CudaOps::do_attention_backward(const AttentionBackwardArgs& args, void* scratch) {
  cuda::attention_backward(args, *context_.attention, scratch, context_.stream);
}
void CudaOps::do_attention_decode(const AttentionDecodeArgs& args) { cuda::attention_decode(args, context_.stream); }
void CudaOps::do_cache_fill(const CacheFillArgs& args) { cuda::cache_fill(args, context_.stream); }
void CudaOps::do_gemm(const GemmArgs& args, void* scratch) {
  context_.gemm->gemm(args, context_.gemm_workspace, scratch, context_.stream);
}
void CudaOps::do_bias_backward(const BiasBackwardArgs& args) {
  cuda::bias_backward(args, context_.kernel_workspace, context_.stream);
}
void CudaOps::do_gather_rows(const GatherRowsArgs& args) { cuda::gather_rows(args, context_.stream); }
void CudaOps::do_scatter_rows(const ScatterRowsArgs& args) { cuda::scatter_rows(args, context_.stream); }
void CudaOps::do_cross_entropy(const CrossEntropyArgs& args) { cuda::cross_entropy(args, context_.stream); }
void CudaOps::do_accumulate_loss(const Tensor& token_loss, const Tensor& count, std::int64_t row_offset,
                                 StepScalars* scalars) {
  cuda::accumulate_loss(token_loss, count, row_offset, scalars, context_.kernel_workspace, context_.stream);
}
void CudaOps::do_sample(const SampleArgs& args) { cuda::sample(args, context_.stream); }
void CudaOps::do_amax(const Tensor& x, const Tensor& num_rows, const Tensor& amax) {
  cuda::amax(x, num_rows, amax, context_.stream);
}
void CudaOps::do_quantize(const Tensor& x, const Tensor& num_rows, const QTensor& out) {
  cuda::quantize(x, num_rows, out, context_.kernel_workspace, context_.stream);
}
void CudaOps::do_update_scales(const ScaleUpdateArgs& args) { cuda::update_scales(args, context_.stream); }
void CudaOps::do_rmsnorm_quantize(const RmsnormQuantizeArgs& args) { cuda::rmsnorm_quantize(args, context_.stream); }
void CudaOps::do_swiglu_quantize(const SwigluQuantizeArgs& args) { cuda::swiglu_quantize(args, context_.stream); }
void CudaOps::do_swiglu_backward_quantize(const SwigluBackwardQuantizeArgs& args) {
  cuda::swiglu_backward_quantize(args, context_.stream);
}
void CudaOps::do_rope_quantize(const RopeQuantizeArgs& args) { cuda::rope_quantize(args, context_.stream); }
void CudaOps::do_cross_entropy_quantize(const CrossEntropyQuantizeArgs& args, void* scratch) {
  cuda::cross_entropy_quantize(args, scratch, context_.stream);
}
void CudaOps::do_accumulate_sum_of_squares(const Tensor& grad, StepScalars* scalars) {
  cuda::accumulate_sum_of_squares(grad, scalars, context_.kernel_workspace, context_.stream);
}
void CudaOps::do_finish_gradient(StepScalars* scalars) { cuda::finish_gradient(scalars, context_.stream); }
void CudaOps::do_adamw(const AdamwArgs& args) { cuda::adamw(args, context_.stream); }
void CudaOps::do_quantize_weight(const Tensor& weight, const QTensor& out, const StepScalars* scalars) {
  cuda::quantize_weight(weight, out, scalars, context_.kernel_workspace, context_.stream);
}

}  // namespace llmfp8::cuda
