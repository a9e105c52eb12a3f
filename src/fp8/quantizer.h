// Quantizer: one matrix's place in the recipe and in the scaling state. It describes the QTensor that Ops fill; the
// storage comes from whoever keeps the matrix (arena for activations and gradients, ParamStore for weights).
#pragma once

#include <functional>
#include <string_view>

#include "fp8/amax_history.h"

namespace llmfp8 {

// Gives storage for one part of a quantised matrix: what is "codes", "codes, columnwise", "scales", …
using AllocateTensor = std::function<Tensor(std::string_view what, DType dtype, Shape shape)>;

// A QTensor of the spec's kind with storage from `allocate` for the wanted usages; amax and scales not set.
QTensor make_qtensor(const QuantSpec& spec, DType high_precision, Shape shape, Usages usages, const AllocateTensor& allocate);

class Quantizer {
 public:
  Quantizer(QuantSpec spec, const AmaxHistory* history, int slot, bool calibrating)
      : spec_(spec), history_(history), slot_(slot), calibrating_(calibrating) {}

  const QuantSpec& spec() const { return spec_; }
  bool quantizes() const { return spec_.quantized(); }

  // shape: [rows, cols]; high_precision: the dtype where the recipe leaves this matrix alone.
  QTensor create(Shape shape, DType high_precision, Usages usages, const AllocateTensor& allocate) const;

 private:
  QuantSpec spec_;
  const AmaxHistory* history_;  // null where nothing is quantised
  int slot_ = 0;
  bool calibrating_ = false;
};

// The recipe of a run with its state.
class Fp8State {
 public:
  Fp8State(Recipe recipe, int num_layers, Backend& backend, Stream& stream);

  const Recipe& recipe() const { return recipe_; }
  bool enabled() const { return recipe_.kind() != RecipeKind::none; }
  const AmaxHistory& history() const { return history_; }
  Quantizer quantizer(Site site, Role role) const;

  // While on, delayed scales are replaced by just-in-time ones: one such micro-batch fills the empty histories.
  void set_calibrating(bool on) { calibrating_ = on; }
  bool calibrating() const { return calibrating_; }

 private:
  Recipe recipe_;
  AmaxHistory history_;
  bool calibrating_ = false;
};

}  // namespace llmfp8
