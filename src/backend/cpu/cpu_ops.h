// Ops on the CPU: a thin table from the operations to the kernels of kernels.h. Made by CpuBackend.
#pragma once

#include "backend/cpu/matmul.h"
#include "backend/ops.h"

namespace llmfp8::cpu {

// Operations run at once, on the threads of core/thread_pool.h.
class CpuOps : public Ops {
 public:
  // engine outlives the Ops. workers: threads that attention has scratch for; fixed here, so that a plan made with one
  // thread count cannot be too small for another.
  CpuOps(Arena& arena, const MatmulEngine& engine, int workers) : Ops(arena), engine_(engine), workers_(workers) {}

  Usages usages(Scaling scaling) const override;

 protected:
  std::size_t scratch_bytes(const GemmArgs& args) const override;
  std::size_t scratch_bytes(const EmbeddingBackwardArgs& args) const override;
  std::size_t scratch_bytes(const RmsnormBackwardArgs& args) const override;
  std::size_t scratch_bytes(const AttentionArgs& args) const override;
  std::size_t scratch_bytes(const AttentionBackwardArgs& args) const override;

  void do_zero(const Tensor& out) override;
  void do_copy(const Tensor& from, const Tensor& to) override;
  void do_embedding(const EmbeddingArgs& args) override;
  void do_embedding_backward(const EmbeddingBackwardArgs& args, void* scratch) override;
  void do_rmsnorm(const RmsnormArgs& args) override;
  void do_rmsnorm_backward(const RmsnormBackwardArgs& args, void* scratch) override;
  void do_rope(const RopeArgs& args) override;
  void do_swiglu(const SwigluArgs& args) override;
  void do_swiglu_backward(const SwigluBackwardArgs& args) override;
  void do_attention(const AttentionArgs& args, void* scratch) override;
  void do_attention_backward(const AttentionBackwardArgs& args, void* scratch) override;
  void do_attention_decode(const AttentionDecodeArgs& args) override;
  void do_cache_fill(const CacheFillArgs& args) override;
  void do_gemm(const GemmArgs& args, void* scratch) override;
  void do_bias_backward(const BiasBackwardArgs& args) override;
  void do_gather_rows(const GatherRowsArgs& args) override;
  void do_scatter_rows(const ScatterRowsArgs& args) override;
  void do_cross_entropy(const CrossEntropyArgs& args) override;
  void do_accumulate_loss(const Tensor& token_loss, const Tensor& count, std::int64_t row_offset,
                          StepScalars* scalars) override;
  void do_sample(const SampleArgs& args) override;
  void do_amax(const Tensor& x, const Tensor& num_rows, const Tensor& amax) override;
  void do_quantize(const Tensor& x, const Tensor& num_rows, const QTensor& out) override;
  void do_update_scales(const ScaleUpdateArgs& args) override;
  void do_accumulate_sum_of_squares(const Tensor& grad, StepScalars* scalars) override;
  void do_finish_gradient(StepScalars* scalars) override;
  void do_adamw(const AdamwArgs& args) override;
  void do_quantize_weight(const Tensor& weight, const QTensor& out, const StepScalars* scalars) override;

 private:
  const MatmulEngine& engine_;
  int workers_;
};

}  // namespace llmfp8::cpu
