#include "model/activation_store.h"

#include <fmt/format.h>

namespace llmfp8 {

std::string_view name(Slot slot) {
  static constexpr std::string_view kNames[] = {"residual_in", "input_rstd",   "qkv_input", "qkv",
                                                "attention_out", "attention_lse", "o_input",   "residual_mid",
                                                "post_rstd",   "gate_up_input", "gate_up",   "down_input",
                                                "head_input"};
  return kNames[static_cast<std::size_t>(slot)];
}

ActivationStore::ActivationStore(Arena& arena, int num_layers, Recompute recompute, PassKind pass)
    : arena_(arena), recompute_(recompute), pass_(pass), layers_(static_cast<std::size_t>(num_layers) + 1) {}

bool ActivationStore::keeps(Slot slot) const {
  if (pass_ == PassKind::forward_only) return false;
  switch (slot) {
    case Slot::residual_in: case Slot::head_input: return true;
    case Slot::qkv_input: case Slot::gate_up_input: case Slot::down_input: return recompute_ < Recompute::norm_swiglu;
    case Slot::gate_up: return recompute_ < Recompute::mlp;
    default: return recompute_ < Recompute::block;
  }
}

const ActivationStore::Entry& ActivationStore::entry(int layer, Slot slot) const {
  CHECK(layer >= 0 && static_cast<std::size_t>(layer) < layers_.size(), "activation of layer {} of {}", layer, layers_.size() - 1);
  return layers_[static_cast<std::size_t>(layer)][static_cast<std::size_t>(slot)];
}

Tensor ActivationStore::put(int layer, Slot slot, DType dtype, Shape shape) {
  Entry& e = entry(layer, slot);
  if (!e.present) {
    e.storage[0] = arena_.take(fmt::format("layer {} {}", layer, name(slot)), dtype, shape);
    e.tensor = e.storage[0].get();
    e.present = true;
  }
  return e.tensor;
}

QTensor ActivationStore::put(int layer, Slot slot, const Quantizer& quantizer, Shape shape, DType high_precision, const Ops& ops) {
  Entry& e = entry(layer, slot);
  if (e.present) return e.quantized;
  const Scaling scaling = quantizer.spec().scaling();
  Usages usages = ops.usages(scaling);
  if (pass_ == PassKind::forward_only) usages.columnwise = false;
  bool columnwise = false;
  int part = 0;
  e.quantized = quantizer.create(shape, high_precision, usages, [&](std::string_view what, DType dtype, Shape part_shape) {
    columnwise = columnwise || what.ends_with("columnwise");
    part = (columnwise ? 2 : 0) + (what.starts_with("scales") ? 1 : 0);
    ArenaTensor& storage = e.storage[part];
    storage = arena_.take(fmt::format("layer {} {} {}", layer, name(slot), what), dtype, part_shape);
    return storage.get();
  });
  e.present = true;
  return e.quantized;
}

const Tensor& ActivationStore::get(int layer, Slot slot) const {
  const Entry& e = entry(layer, slot);
  CHECK(e.present && e.tensor.defined(), "activation {} of layer {} is not there", name(slot), layer);
  return e.tensor;
}

const QTensor& ActivationStore::get_quantized(int layer, Slot slot) const {
  const Entry& e = entry(layer, slot);
  CHECK(e.present && !e.tensor.defined(), "quantised activation {} of layer {} is not there", name(slot), layer);
  return e.quantized;
}

void ActivationStore::forward_done(int layer, Slot slot) {
  Entry& e = entry(layer, slot);
  if (!e.present || rebuilding_) return;
  if (!keeps(slot)) {
    drop(layer, slot);
  } else if (e.storage[0].defined() && e.storage[2].defined()) {
    e.storage[0].reset();
    e.storage[1].reset();
    e.quantized.rowwise = Tensor();
  }
}

void ActivationStore::drop(int layer, Slot slot) { entry(layer, slot) = Entry(); }

}  // namespace llmfp8
