// WeightTable: every parameter of a model, with its shape and the HF tensors that it is made of. The table drives
// loading, memory, the optimizer and export; nobody else spells a weight's name.
//
// Products that read the same input are one parameter (q, k, v; gate, up): their HF tensors are row ranges of it.
#pragma once

#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/shape.h"

namespace llmfp8 {

enum class ParamKind : std::uint8_t {
  embedding,                 // [vocab_size, hidden_size]
  input_layernorm,           // [hidden_size]
  qkv,                       // [q_size + 2 kv_size, hidden_size]
  qkv_bias,                  // [q_size + 2 kv_size]
  o,                         // [hidden_size, q_size]
  post_attention_layernorm,  // [hidden_size]
  gate_up,                   // [2 intermediate_size, hidden_size]
  down,                      // [hidden_size, intermediate_size]
  final_norm,                // [hidden_size]
  lm_head,                   // [vocab_size, hidden_size]; absent where tied to the embedding
};

// One HF tensor: rows [row_begin, row_begin + shape[0]) of its parameter.
struct WeightSlice {
  std::string name;  // verbatim, "model.layers.3.self_attn.q_proj.weight"
  std::int64_t row_begin = 0;
  Shape shape;
};

struct ParamSpec {
  int index = 0;     // position in the table; keys random bits and checkpoints
  ParamKind kind = ParamKind::embedding;
  int layer = -1;    // -1: not of a layer
  std::string name;  // "model.layers.3.qkv"
  Shape shape;
  std::vector<WeightSlice> slices;
  // Its HF names hold "bias" or "norm": train_multi_gpu does not decay it.
  bool is_bias_or_norm = false;
};

class WeightTable {
 public:
  explicit WeightTable(const ModelConfig& config);

  const ModelConfig& config() const { return config_; }
  const std::vector<ParamSpec>& params() const { return params_; }
  // lm_head of a tied model is the embedding. Throws where the model has no such parameter.
  const ParamSpec& find(ParamKind kind, int layer = -1) const;
  bool has(ParamKind kind) const;
  std::int64_t num_parameters() const;

 private:
  ModelConfig config_;
  std::vector<ParamSpec> params_;
};

}  // namespace llmfp8
