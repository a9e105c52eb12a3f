// The shape of a Llama or Qwen2 model, as config.json and GGUF describe it. Filled by hub/, read by model/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace llmfp8 {

// rope_type "llama3": frequencies below a wavelength stay, long ones are divided by factor, with a smooth middle.
struct Llama3RopeScaling {
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  std::int64_t original_max_position_embeddings = 8192;
};

struct ModelConfig {
  std::string model_type;             // "llama" | "qwen2"
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;          // explicit in the file, else hidden_size / num_attention_heads
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000.0;
  std::optional<Llama3RopeScaling> rope_scaling;
  bool attention_bias = false;        // bias on q, k, v (Qwen2: always)
  bool tie_word_embeddings = false;
  std::int64_t bos_token_id = -1;     // -1: none
  std::vector<std::int64_t> eos_token_ids;
  DType dtype = DType::bf16;          // of the stored weights

  std::int64_t q_size() const { return num_attention_heads * head_dim; }
  std::int64_t kv_size() const { return num_key_value_heads * head_dim; }
  std::int64_t qkv_size() const { return q_size() + 2 * kv_size(); }
};

}  // namespace llmfp8
