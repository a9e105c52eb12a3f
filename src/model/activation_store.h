// ActivationStore: the model saves what its backward pass reads by (layer, slot) and asks for it again. What is kept and
// what is recomputed is decided here, outside the model; the memory comes from the step's arena.
#pragma once

#include <array>
#include <utility>
#include <vector>

#include "backend/arena.h"
#include "core/settings.h"
#include "fp8/quantizer.h"

namespace llmfp8 {

enum class Slot : std::uint8_t {
  residual_in,     // A [T, hidden_size]: the residual stream that enters the layer
  input_rstd,      // f32 [T]
  qkv_input,       // quantised [T, hidden_size]: output of the first norm
  qkv,             // A [T, qkv_size], rotated
  attention_out,   // A [T, q_size]
  attention_lse,   // f32 [num_attention_heads, T]
  o_input,         // quantised [T, q_size]; absent where o is not quantised (attention_out serves)
  residual_mid,    // A [T, hidden_size]: after attention
  post_rstd,       // f32 [T]
  gate_up_input,   // quantised [T, hidden_size]: output of the second norm
  gate_up,         // A [T, 2 intermediate_size]
  down_input,      // quantised [T, intermediate_size]: output of SwiGLU
  head_input,      // A [T, hidden_size]: output of the final norm (layer index num_hidden_layers)
  count,
};

enum class PassKind : std::uint8_t { training, forward_only };

class ActivationStore {
 public:
  ActivationStore(Arena& arena, int num_layers, Recompute recompute, PassKind pass);

  // Storage for an activation; what is there already (a rerun for recompute) is returned as it is.
  Tensor put(int layer, Slot slot, DType dtype, Shape shape);
  // shape: [T, width].
  QTensor put(int layer, Slot slot, const Quantizer& quantizer, Shape shape, DType high_precision, const Ops& ops);

  bool has(int layer, Slot slot) const { return entry(layer, slot).present; }
  const Tensor& get(int layer, Slot slot) const;
  const QTensor& get_quantized(int layer, Slot slot) const;

  // The forward pass has read it for the last time: dropped unless it is kept. Of a kept quantised activation with both
  // layouts only the columnwise one stays, for that is what wgrad reads.
  void forward_done(int layer, Slot slot);
  // The backward pass has read it for the last time.
  void drop(int layer, Slot slot);
  // While a layer's forward stages run again in the backward pass, forward_done drops nothing.
  void set_rebuilding(bool on) { rebuilding_ = on; }

 private:
  struct Entry {
    bool present = false;
    Tensor tensor;
    QTensor quantized;
    ArenaTensor storage[4];  // plain: [0]. quantised: codes, scales, columnwise codes, columnwise scales
  };
  bool keeps(Slot slot) const;
  const Entry& entry(int layer, Slot slot) const;
  Entry& entry(int layer, Slot slot) { return const_cast<Entry&>(std::as_const(*this).entry(layer, slot)); }

  Arena& arena_;
  Recompute recompute_;
  PassKind pass_;
  bool rebuilding_ = false;
  std::vector<std::array<Entry, static_cast<std::size_t>(Slot::count)>> layers_;
};

std::string_view name(Slot slot);

}  // namespace llmfp8
