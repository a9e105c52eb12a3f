// The scaling state of every quantised matrix of a model: amaxes, histories and scales, each one contiguous buffer, so
// that ranks reduce all amaxes in one call and one operation updates all scales.
//
// Slots: weights first, then inputs and gradients. A weight's amax is set when the weight is quantised (end of a step)
// and must outlive the start of the next, where the other amaxes are cleared.
#pragma once

#include "backend/backend.h"
#include "fp8/recipe.h"

namespace llmfp8 {

class AmaxHistory {
 public:
  // Slots for num_layers x (qkv, o, gate_up, down) and lm_head; scales start at 1, histories empty.
  AmaxHistory(const Recipe& recipe, int num_layers, Backend& backend, Stream& stream);

  int num_slots() const { return num_slots_; }
  int slot(Site site, Role role) const;

  Tensor amax(int slot) const;       // f32 [1]
  Tensor scale(int slot) const;      // f32 [1], 16-byte aligned
  Tensor scale_inv(int slot) const;  // f32 [1], 16-byte aligned

  Tensor amaxes() const { return amax_; }        // f32 [slots]: what ranks max-reduce before update()
  Tensor histories() const { return history_; }  // f32 [slots, length]
  Tensor scales() const { return scale_; }       // f32 [slots, 4]
  Tensor scale_invs() const { return scale_inv_; }

  // Before the first micro-batch of a step: the amaxes of inputs and gradients start at 0.
  void begin_step(Ops& ops) const;
  // After the last: one update of all scales; nothing where scalars->step_ok is 0 or the recipe is not delayed.
  void update(Ops& ops, const StepScalars* scalars) const;

  std::size_t bytes() const { return buffer_.bytes(); }

 private:
  int num_layers_ = 0;
  int num_slots_ = 0;
  int history_length_ = 1;
  bool delayed_ = false;
  Buffer buffer_;
  Tensor amax_, history_, scale_, scale_inv_, format_max_;
};

}  // namespace llmfp8
