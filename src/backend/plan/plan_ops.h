// Ops that checks shapes and takes scratch from a planning arena as the real backend would, and computes nothing. The
// real forward, backward and optimizer code runs on it to make the memory plan.
#pragma once

#include "backend/ops.h"

namespace llmfp8 {

class PlanOps : public Ops {
 public:
  // real: the backend's Ops that is planned for; it tells usages, fusion and scratch. arena.planning() is true.
  PlanOps(const Ops& real, Arena& arena) : Ops(arena), real_(real) {}

  Usages usages(Scaling scaling) const override { return real_.usages(scaling); }

 protected:
  bool fuses(FusedOp op, const QTensor& out) const override { return real_.fuses(op, out); }
  std::size_t scratch_bytes(const GemmArgs& args) const override { return real_.scratch_bytes(args); }
  std::size_t scratch_bytes(const EmbeddingBackwardArgs& args) const override { return real_.scratch_bytes(args); }
  std::size_t scratch_bytes(const RmsnormBackwardArgs& args) const override { return real_.scratch_bytes(args); }
  std::size_t scratch_bytes(const AttentionArgs& args) const override { return real_.scratch_bytes(args); }
  std::size_t scratch_bytes(const CrossEntropyQuantizeArgs& args) const override { return real_.scratch_bytes(args); }
  std::size_t scratch_bytes(const AttentionBackwardArgs& args) const override { return real_.scratch_bytes(args); }

  void do_zero(const Tensor&) override {}
  void do_copy(const Tensor&, const Tensor&) override {}
  void do_embedding(const EmbeddingArgs&) override {}
  void do_embedding_backward(const EmbeddingBackwardArgs&, void*) override {}
  void do_rmsnorm(const RmsnormArgs&) override {}
  void do_rmsnorm_backward(const RmsnormBackwardArgs&, void*) override {}
  void do_rope(const RopeArgs&) override {}
  void do_swiglu(const SwigluArgs&) override {}
  void do_swiglu_backward(const SwigluBackwardArgs&) override {}
  void do_attention(const AttentionArgs&, void*) override {}
  void do_attention_backward(const AttentionBackwardArgs&, void*) override {}
  void do_attention_decode(const AttentionDecodeArgs&) override {}
  void do_cache_fill(const CacheFillArgs&) override {}
  void do_gemm(const GemmArgs&, void*) override {}
  void do_bias_backward(const BiasBackwardArgs&) override {}
  void do_gather_rows(const GatherRowsArgs&) override {}
  void do_scatter_rows(const ScatterRowsArgs&) override {}
  void do_cross_entropy(const CrossEntropyArgs&) override {}
  void do_accumulate_loss(const Tensor&, const Tensor&, std::int64_t, StepScalars*) override {}
  void do_sample(const SampleArgs&) override {}
  void do_amax(const Tensor&, const Tensor&, const Tensor&) override {}
  void do_quantize(const Tensor&, const Tensor&, const QTensor&) override {}
  void do_update_scales(const ScaleUpdateArgs&) override {}
  void do_rmsnorm_quantize(const RmsnormQuantizeArgs&) override {}
  void do_swiglu_quantize(const SwigluQuantizeArgs&) override {}
  void do_swiglu_backward_quantize(const SwigluBackwardQuantizeArgs&) override {}
  void do_rope_quantize(const RopeQuantizeArgs&) override {}
  void do_cross_entropy_quantize(const CrossEntropyQuantizeArgs&, void*) override {}
  void do_accumulate_sum_of_squares(const Tensor&, StepScalars*) override {}
  void do_finish_gradient(StepScalars*) override {}
  void do_adamw(const AdamwArgs&) override {}
  void do_quantize_weight(const Tensor&, const QTensor&, const StepScalars*) override {}

 private:
  const Ops& real_;
};

}  // namespace llmfp8
