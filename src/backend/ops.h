// Ops: the abstract operations that the model, the optimizer and FP8 are written against. THE seam of this program: a
// backend is an implementation of the protected half of this class.
//
// What holds for every operation:
// - It is enqueued on the stream that the Ops is bound to, and never waits for the host. It allocates nothing: scratch
//   comes from the arena, and its size follows from shapes alone.
// - Outputs are preallocated by the caller. Shapes and dtypes are checked here, once, for every backend (ops.cpp); a
//   mismatch throws Error before anything runs.
// - Whatever changes from step to step (counts, learning rate, …) is read from device memory, so a step can be captured.
// - Rows at and beyond a count are read as zero and written as exactly zero: garbage in a tail changes no bit.
// - A fused operation gives the same bytes as its primitives: it rounds to A first, then takes the amax and casts.
// - Arithmetic is fp32 (sums of losses and squares: fp64), rounded once to the output's dtype.
// Argument structures and formulas: op_args.h. The CPU backend is the reference; tests/backend/op_cases.h holds the
// table of cases that runs on every backend.
#pragma once

#include <cstdint>
#include <utility>

#include "backend/arena.h"
#include "backend/op_args.h"
#include "backend/op_observer.h"

namespace llmfp8 {

enum class FusedOp : std::uint8_t { rmsnorm_quantize, swiglu_quantize, swiglu_backward_quantize, rope_quantize, cross_entropy_quantize };

class Ops {
 public:
  // arena: where scratch comes from; it outlives the Ops.
  explicit Ops(Arena& arena) : arena_(arena) {}
  virtual ~Ops() = default;
  Ops(const Ops&) = delete;
  Ops& operator=(const Ops&) = delete;

  Arena& arena() const { return arena_; }

  // Hears of every operation from now on; null: nobody. It outlives its use.
  void set_observer(OpObserver* observer) { observed_.observer = observer; }
  OpObserver* observer() const { return observed_.observer; }
  // For which place of the model the next operations work; see Scope.
  OpScope set_scope(const OpScope& scope) { return std::exchange(observed_.scope, scope); }

  // Which forms of a quantised matrix the products of this backend read. Where columnwise is said: fprop reads a and b
  // rowwise, dgrad a rowwise and b columnwise, wgrad both columnwise.
  virtual Usages usages(Scaling scaling) const = 0;

  // ---- memory
  void zero(const Tensor& out);
  void copy(const Tensor& from, const Tensor& to);     // same shape; f32 <-> bf16 converts (nearest even)

  // ---- embedding, norms, activations, position
  void embedding(const EmbeddingArgs& args);
  void embedding_backward(const EmbeddingBackwardArgs& args);
  void rmsnorm(const RmsnormArgs& args);
  void rmsnorm_backward(const RmsnormBackwardArgs& args);
  void rope(const RopeArgs& args);
  void swiglu(const SwigluArgs& args);
  void swiglu_backward(const SwigluBackwardArgs& args);

  // ---- attention
  void attention(const AttentionArgs& args);
  void attention_backward(const AttentionBackwardArgs& args);
  void attention_decode(const AttentionDecodeArgs& args);
  void cache_fill(const CacheFillArgs& args);

  // ---- matrix products
  void gemm(const GemmArgs& args);
  void bias_backward(const BiasBackwardArgs& args);

  // ---- loss
  void gather_rows(const GatherRowsArgs& args);
  void scatter_rows(const ScatterRowsArgs& args);
  void cross_entropy(const CrossEntropyArgs& args);
  // scalars.loss_sum += sum of token_loss (f32 [rows]); scalars.num_supervised += rows below *count - row_offset.
  void accumulate_loss(const Tensor& token_loss, const Tensor& count, std::int64_t row_offset, StepScalars* scalars);
  void sample(const SampleArgs& args);

  // ---- FP8
  // amax := max(amax, max |x|) over rows below *num_rows; NaN is ignored. x: A [rows, cols]; amax: f32 [1].
  void amax(const Tensor& x, const Tensor& num_rows, const Tensor& amax);
  // x: A [rows, cols] → every form that `out` holds; out.amax (if defined) is max-combined with the amax of x.
  // tensor scaling: casts fp32(x) * scale (just_in_time: scale and scale_inv are set from x first). mx_1x32: makes its
  // scales itself. none: copies, if out is not x already. Rows beyond the count become code 0 (scale code 0).
  void quantize(const Tensor& x, const Tensor& num_rows, const QTensor& out);
  // Delayed scaling, all matrices of the model at once, after every amax of the step is in.
  void update_scales(const ScaleUpdateArgs& args);

  // ---- fused operations: the default bodies are made of the primitives above; a backend that fuses says so
  void rmsnorm_quantize(const RmsnormQuantizeArgs& args);
  void swiglu_quantize(const SwigluQuantizeArgs& args);
  void swiglu_backward_quantize(const SwigluBackwardQuantizeArgs& args);
  void rope_quantize(const RopeQuantizeArgs& args);
  void cross_entropy_quantize(const CrossEntropyQuantizeArgs& args);

  // ---- optimizer step
  // scalars.grad_sum_squares += sum of grad^2. grad: f32 | bf16, any shape. The order of summation depends on the shape alone.
  void accumulate_sum_of_squares(const Tensor& grad, StepScalars* scalars);
  // Fills inv_denominator, grad_norm, grad_scale, step_ok from the sums and max_grad_norm.
  void finish_gradient(StepScalars* scalars);
  // AdamW as torch.optim.AdamW (decoupled weight decay); no change at all where scalars.step_ok is 0.
  void adamw(const AdamwArgs& args);
  // quantize of all rows, gated by step_ok: a weight's codes and amax change only with the weight. Its amax slot is set, not
  // combined: the weight of the last step is gone.
  void quantize_weight(const Tensor& weight, const QTensor& out, const StepScalars* scalars);

 protected:
  // ---- what a backend implements: arguments are checked; scratch is scratch_bytes(args) of arena memory
  // out: what the operation would write; a backend may fuse some forms only. Looks at shapes and formats, never at data.
  virtual bool fuses(FusedOp, const QTensor& /*out*/) const { return false; }
  virtual std::size_t scratch_bytes(const GemmArgs&) const { return 0; }
  virtual std::size_t scratch_bytes(const EmbeddingBackwardArgs&) const { return 0; }
  virtual std::size_t scratch_bytes(const RmsnormBackwardArgs&) const { return 0; }
  virtual std::size_t scratch_bytes(const AttentionArgs&) const { return 0; }
  virtual std::size_t scratch_bytes(const CrossEntropyQuantizeArgs&) const { return 0; }
  virtual std::size_t scratch_bytes(const AttentionBackwardArgs&) const { return 0; }

  virtual void do_zero(const Tensor& out) = 0;
  virtual void do_copy(const Tensor& from, const Tensor& to) = 0;
  virtual void do_embedding(const EmbeddingArgs&) = 0;
  virtual void do_embedding_backward(const EmbeddingBackwardArgs&, void* scratch) = 0;
  virtual void do_rmsnorm(const RmsnormArgs&) = 0;
  virtual void do_rmsnorm_backward(const RmsnormBackwardArgs&, void* scratch) = 0;
  virtual void do_rope(const RopeArgs&) = 0;
  virtual void do_swiglu(const SwigluArgs&) = 0;
  virtual void do_swiglu_backward(const SwigluBackwardArgs&) = 0;
  virtual void do_attention(const AttentionArgs&, void* scratch) = 0;
  virtual void do_attention_backward(const AttentionBackwardArgs&, void* scratch) = 0;
  virtual void do_attention_decode(const AttentionDecodeArgs&) = 0;
  virtual void do_cache_fill(const CacheFillArgs&) = 0;
  virtual void do_gemm(const GemmArgs&, void* scratch) = 0;
  virtual void do_bias_backward(const BiasBackwardArgs&) = 0;
  virtual void do_gather_rows(const GatherRowsArgs&) = 0;
  virtual void do_scatter_rows(const ScatterRowsArgs&) = 0;
  virtual void do_cross_entropy(const CrossEntropyArgs&) = 0;
  virtual void do_accumulate_loss(const Tensor& token_loss, const Tensor& count, std::int64_t row_offset, StepScalars*) = 0;
  virtual void do_sample(const SampleArgs&) = 0;
  virtual void do_amax(const Tensor& x, const Tensor& num_rows, const Tensor& amax) = 0;
  virtual void do_quantize(const Tensor& x, const Tensor& num_rows, const QTensor& out) = 0;
  virtual void do_update_scales(const ScaleUpdateArgs&) = 0;
  virtual void do_rmsnorm_quantize(const RmsnormQuantizeArgs&);  // called only where fuses() says so
  virtual void do_swiglu_quantize(const SwigluQuantizeArgs&);
  virtual void do_swiglu_backward_quantize(const SwigluBackwardQuantizeArgs&);
  virtual void do_rope_quantize(const RopeQuantizeArgs&);
  virtual void do_cross_entropy_quantize(const CrossEntropyQuantizeArgs&, void* scratch);
  virtual void do_accumulate_sum_of_squares(const Tensor& grad, StepScalars*) = 0;
  virtual void do_finish_gradient(StepScalars*) = 0;
  virtual void do_adamw(const AdamwArgs&) = 0;
  virtual void do_quantize_weight(const Tensor& weight, const QTensor& out, const StepScalars*) = 0;

  // For the planning Ops, which asks the real one.
  friend class PlanOps;

 private:
  friend class Observed;
  struct Observation {
    OpObserver* observer = nullptr;
    OpScope scope;
  };

  Arena& arena_;
  Observation observed_;
};

// Says for which place of the model operations work, until it goes.
class Scope {
 public:
  Scope(Ops& ops, const OpScope& scope) : ops_(ops), before_(ops.set_scope(scope)) {}
  ~Scope() { ops_.set_scope(before_); }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Ops& ops_;
  OpScope before_;
};

}  // namespace llmfp8
