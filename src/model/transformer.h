// Transformer: Llama and Qwen2, written once against Ops. It holds the model's constants (rotation angles) and no
// weights: those come from a ParamStore, gradients go to a GradTarget, activations to an ActivationStore.
#pragma once

#include <functional>

#include "model/mlp.h"

namespace llmfp8 {

class Transformer {
 public:
  // max_positions: the longest document that will be seen.
  Transformer(const ModelConfig& config, std::int64_t max_positions, Backend& backend, Stream& stream);

  const ModelConfig& config() const { return config_; }
  std::int64_t max_positions() const { return cos_sin_.rows(); }
  const Tensor& cos_sin() const { return cos_sin_; }  // f32 [max_positions, head_dim]

  // Sees the residual stream [T, hidden_size] after the embedding ("embed"), each layer ("layer0", …) and the final norm ("norm").
  using Observer = std::function<void(const std::string& name, const Tensor& hidden)>;
  // Sees the rotated [T, qkv_size] of each layer (to fill a KV cache).
  using QkvObserver = std::function<void(int layer, const Tensor& qkv)>;
  struct Observers {
    Observer hidden;
    QkvObserver qkv;
  };

  // Ends with the final norm's output in slot head_input of layer num_hidden_layers.
  void forward(const PassContext& pass, const Observers& observers = {}) const;
  // Forward, loss and gradients of the sum of token losses. Adds to scalars (device).
  void forward_backward(const PassContext& pass, GradTarget& grads, StepScalars* scalars) const;
  // Forward and loss.
  void evaluate(const PassContext& pass, StepScalars* scalars) const;

 private:
  void layer_forward(const LayerPass& l, const Observers& observers) const;
  void layer_backward(const LayerPass& l, GradTarget& grads, const Tensor& d_residual) const;
  Tensor hidden(const PassContext& pass) const;
  LayerPass layer_pass(const PassContext& pass, int layer) const;
  int num_layers() const { return static_cast<int>(config_.num_hidden_layers); }

  ModelConfig config_;
  Buffer rope_buffer_;
  Tensor cos_sin_;
};

}  // namespace llmfp8
