// Ops on CUDA: a thin table from the operations to the launchers of kernels/kernels.h, attention.h and gemm.h. Made by
// CudaBackend.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/attention.h"
#include "backend/cuda/gemm.h"
#include "backend/ops.h"

namespace llmfp8::cuda {

// What the operations of one stream share. Everything outlives the Ops.
struct OpsContext {
  cudaStream_t stream = nullptr;
  GemmEngine* gemm = nullptr;
  AttentionContext* attention = nullptr;
  GemmWorkspace gemm_workspace;      // of this stream alone
  void* kernel_workspace = nullptr;  // kWorkspaceBytes, of this stream alone
  MxScaleLayout mx_scale_layout = MxScaleLayout::plain;  // tiles where products of MXFP8 run
};

class CudaOps : public Ops {
 public:
  CudaOps(Arena& arena, const OpsContext& context) : Ops(arena), context_(context) {}

  // Per-tensor FP8 products take both operands K-major, so a matrix is kept as it is and transposed; MXFP8 is quantised
  // along both directions.
  Usages usages(Scaling scaling) const override {
    return {true, scaling != Scaling::none, scaling == Scaling::mx_1x32 ? context_.mx_scale_layout : MxScaleLayout::plain};
  }

 protected:
  bool fuses(FusedOp op, const QTensor& out) const override;
  std::size_t scratch_bytes(const GemmArgs& args) const override;
  std::size_t scratch_bytes(const EmbeddingBackwardArgs& args) const override;
  std::size_t scratch_bytes(const RmsnormBackwardArgs& args) const override;
  std::size_t scratch_bytes(const AttentionArgs& args) const override;
  std::size_t scratch_bytes(const CrossEntropyQuantizeArgs& args) const override;
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
  void do_rmsnorm_quantize(const RmsnormQuantizeArgs& args) override;
  void do_swiglu_quantize(const SwigluQuantizeArgs& args) override;
  void do_swiglu_backward_quantize(const SwigluBackwardQuantizeArgs& args) override;
  void do_rope_quantize(const RopeQuantizeArgs& args) override;
  void do_cross_entropy_quantize(const CrossEntropyQuantizeArgs& args, void* scratch) override;
  void do_accumulate_sum_of_squares(const Tensor& grad, StepScalars* scalars) override;
  void do_finish_gradient(StepScalars* scalars) override;
  void do_adamw(const AdamwArgs& args) override;
  void do_quantize_weight(const Tensor& weight, const QTensor& out, const StepScalars* scalars) override;

 private:
  OpsContext context_;
};

}  // namespace llmfp8::cuda
