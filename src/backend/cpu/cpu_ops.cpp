#include "backend/cpu/cpu_ops.h"

#include "backend/cpu/adamw.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"

namespace llmfp8::cpu {

// Tensor-scaled codes are decoded before the product, so the transpose is never needed; MXFP8 blocks follow the contraction.
Usages CpuOps::usages(Scaling scaling) const { return {true, scaling == Scaling::mx_1x32}; }

std::size_t CpuOps::scratch_bytes(const GemmArgs& args) const { return gemm_scratch_bytes(args, engine_); }
std::size_t CpuOps::scratch_bytes(const EmbeddingBackwardArgs& args) const {
  return embedding_backward_scratch_bytes(args);
}
std::size_t CpuOps::scratch_bytes(const RmsnormBackwardArgs& args) const {
  return rmsnorm_backward_scratch_bytes(args);
}
std::size_t CpuOps::scratch_bytes(const AttentionArgs& args) const { return attention_scratch_bytes(args, workers_); }
std::size_t CpuOps::scratch_bytes(const AttentionBackwardArgs& args) const {
  return attention_backward_scratch_bytes(args, workers_);
}

void CpuOps::do_zero(const Tensor& out) { cpu::zero(out); }
void CpuOps::do_copy(const Tensor& from, const Tensor& to) { cpu::copy(from, to); }
void CpuOps::do_embedding(const EmbeddingArgs& args) { cpu::embedding(args); }
void CpuOps::do_embedding_backward(const EmbeddingBackwardArgs& args, void* scratch) {
  cpu::embedding_backward(args, scratch);
}
void CpuOps::do_rmsnorm(const RmsnormArgs& args) { cpu::rmsnorm(args); }
void CpuOps::do_rmsnorm_backward(const RmsnormBackwardArgs& args, void* scratch) {
  cpu::rmsnorm_backward(args, scratch);
}
void CpuOps::do_rope(const RopeArgs& args) { cpu::rope(args); }
void CpuOps::do_swiglu(const SwigluArgs& args) { cpu::swiglu(args); }
void CpuOps::do_swiglu_backward(const SwigluBackwardArgs& args) { cpu::swiglu_backward(args); }
void CpuOps::do_attention(const AttentionArgs& args, void* scratch) { cpu::attention(args, scratch, workers_); }
void CpuOps::do_attention_backward(const AttentionBackwardArgs& args, void* scratch) {
  cpu::attention_backward(args, scratch, workers_);
}
void CpuOps::do_attention_decode(const AttentionDecodeArgs& args) { cpu::attention_decode(args); }
void CpuOps::do_cache_fill(const CacheFillArgs& args) { cpu::cache_fill(args); }
void CpuOps::do_gemm(const GemmArgs& args, void* scratch) { cpu::gemm(args, engine_, scratch); }
void CpuOps::do_bias_backward(const BiasBackwardArgs& args) { cpu::bias_backward(args); }
void CpuOps::do_gather_rows(const GatherRowsArgs& args) { cpu::gather_rows(args); }
void CpuOps::do_scatter_rows(const ScatterRowsArgs& args) { cpu::scatter_rows(args); }
void CpuOps::do_cross_entropy(const CrossEntropyArgs& args) { cpu::cross_entropy(args); }
void CpuOps::do_accumulate_loss(const Tensor& token_loss, const Tensor& count, std::int64_t row_offset,
                                StepScalars* scalars) {
  cpu::accumulate_loss(token_loss, count, row_offset, scalars);
}
void CpuOps::do_sample(const SampleArgs& args) { cpu::sample(args); }
void CpuOps::do_amax(const Tensor& x, const Tensor& num_rows, const Tensor& amax) {
  cpu::amax(x, live_rows(num_rows, x.rows()), amax);
}
void CpuOps::do_quantize(const Tensor& x, const Tensor& num_rows, const QTensor& out) {
  cpu::quantize(x, live_rows(num_rows, x.rows()), out);
}
void CpuOps::do_update_scales(const ScaleUpdateArgs& args) { cpu::update_scales(args); }
void CpuOps::do_accumulate_sum_of_squares(const Tensor& grad, StepScalars* scalars) {
  cpu::accumulate_sum_of_squares(grad, scalars);
}
void CpuOps::do_finish_gradient(StepScalars* scalars) { cpu::finish_gradient(scalars); }
void CpuOps::do_adamw(const AdamwArgs& args) { cpu::adamw(args); }

void CpuOps::do_quantize_weight(const Tensor& weight, const QTensor& out, const StepScalars* scalars) {
  if (scalars != nullptr && scalars->step_ok == 0) return;
  if (out.amax.defined()) *out.amax.as<float>() = 0.0f;
  cpu::quantize(weight, weight.rows(), out);
}

}  // namespace llmfp8::cpu
