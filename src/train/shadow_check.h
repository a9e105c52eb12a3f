// ShadowCheck: how far a recipe's loss and gradient are from bf16's, for one micro-batch with the same weights. Run by
// the engine within a step, asked for now and then by the trainer.
//
// It keeps no second gradient. With g the recipe's gradient and b that of bf16, three sums of squares say everything:
// |b|^2, |g + b|^2 (both passes add up in the step's own buffer) and |g|^2 (the step's own pass, which begins anew). So
// a checked step runs its first micro-batch twice more. Sums are fp64 of elements rounded once more than the gradients
// are: cosines are good to 1e-7 with fp32 gradients; with bf16 ones to some 1e-4, less the more elements count.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "params/grad_target.h"
#include "report/metrics.h"

namespace llmfp8 {

struct GradientSums {
  double own = 0, reference = 0, both = 0;  // |g|^2, |b|^2, |g + b|^2

  GradientSums& operator+=(const GradientSums& other);
};

// Where b is zero, nothing is known of the second and third (NaN); where g or b is zero, the cosine is 0, where both
// are, NaN. NaN and infinities give NaN.
struct GradientMatch {
  double cosine = 0;           // of g and b
  double norm_difference = 0;  // |g| / |b| - 1
  double difference = 0;       // |g - b| / |b|
};
GradientMatch match(const GradientSums& sums);

struct ShadowReport {
  std::int64_t step = 0;
  std::int64_t num_supervised = 0;                           // of the micro-batch; 0: there was nothing to compare
  double loss = 0, reference_loss = 0;                       // token means: of the recipe, of bf16
  GradientMatch gradient;                                    // of all parameters together
  std::vector<std::pair<std::string, GradientMatch>> kinds;  // over all layers: "self_attn.q_proj", "norm"
  std::string worst;                                         // the matrix of the lowest cosine, by its HF name
  double worst_cosine = 1;

  // "shadow/loss_difference", "shadow/gradient_cosine", "shadow/gradient_cosine/self_attn.q_proj", …; what is not known
  // is left out.
  MetricValues values() const;
  // One line for the user.
  std::string text() const;
};

class ShadowCheck {
 public:
  // reference: in bf16 alone. both: the recipe's gradient on top of it. own: the recipe's alone.
  enum class Pass : std::uint8_t { reference, both, own };

  // All of it outlives this.
  ShadowCheck(const WeightTable& table, Backend& backend, Stream& stream);
  ~ShadowCheck();
  ShadowCheck(const ShadowCheck&) = delete;
  ShadowCheck& operator=(const ShadowCheck&) = delete;

  // The engine's next step is checked. One at a time: take() or drop() before the next.
  void ask(std::int64_t step);
  bool is_asked() const { return asked_; }

  // For the engine, in this order: begin(), every pass with its loss and then its gradient, end().
  void begin(Ops& ops) const;
  StepScalars* loss(Pass pass) const;  // device
  void measure(Pass pass, Ops& ops, const LocalGradTarget& grads) const;
  void end();

  bool is_pending() const { return pending_; }
  std::int64_t step() const { return step_; }
  // Waits until the device has passed the check.
  ShadowReport take();
  // Forgets it: the step is done again.
  void drop();

  std::size_t bytes() const { return sums_.bytes(); }

 private:
  StepScalars* at(Pass pass, std::size_t tensor) const;

  const WeightTable& table_;
  Backend& backend_;
  Stream& stream_;
  std::size_t tensors_ = 0;  // HF tensors of the model
  Buffer sums_, host_;  // StepScalars [3, tensors_ + 1]: grad_sum_squares of each tensor; the last one has the loss
  std::unique_ptr<Event> passed_;
  std::int64_t step_ = 0;
  bool asked_ = false, pending_ = false;
};

}  // namespace llmfp8
