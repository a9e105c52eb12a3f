#include "hub/known_models.h"

#include <array>
#include <utility>

namespace llmfp8 {
namespace {

struct Dimensions {
  std::int64_t vocab_size, hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, positions;
  bool tied;
};

ModelConfig llama(const Dimensions& d, double rope_theta) {
  ModelConfig c;
  c.model_type = "llama";
  c.vocab_size = d.vocab_size;
  c.hidden_size = d.hidden_size;
  c.intermediate_size = d.intermediate_size;
  c.num_hidden_layers = d.layers;
  c.num_attention_heads = d.heads;
  c.num_key_value_heads = d.kv_heads;
  c.head_dim = d.head_dim;
  c.max_position_embeddings = d.positions;
  c.rope_theta = rope_theta;
  c.tie_word_embeddings = d.tied;
  return c;
}

ModelConfig llama3(const Dimensions& d, double factor) {
  ModelConfig c = llama(d, 500000.0);
  c.rope_scaling = Llama3RopeScaling{factor, 1.0, 4.0, 8192};
  return c;
}

ModelConfig qwen2(const Dimensions& d, double rms_norm_eps) {
  ModelConfig c = llama(d, 1000000.0);
  c.model_type = "qwen2";
  c.attention_bias = true;
  c.rms_norm_eps = rms_norm_eps;
  return c;
}

// From the models' published config.json files.
const auto& table() {
  static const std::array<std::pair<std::string_view, ModelConfig>, 7> models = {{
      {"smollm2-135m", llama({49152, 576, 1536, 30, 9, 3, 64, 8192, true}, 100000.0)},
      {"llama-3.2-1b", llama3({128256, 2048, 8192, 16, 32, 8, 64, 131072, true}, 32.0)},
      {"qwen2.5-1.5b", qwen2({151936, 1536, 8960, 28, 12, 2, 128, 131072, true}, 1e-6)},
      {"llama-3.2-3b", llama3({128256, 3072, 8192, 28, 24, 8, 128, 131072, true}, 32.0)},
      {"qwen2.5-7b", qwen2({152064, 3584, 18944, 28, 28, 4, 128, 131072, false}, 1e-6)},
      {"llama-3.1-8b", llama3({128256, 4096, 14336, 32, 32, 8, 128, 131072, false}, 8.0)},
      {"qwen2.5-14b", qwen2({152064, 5120, 13824, 48, 40, 8, 128, 131072, false}, 1e-5)},
  }};
  return models;
}

}  // namespace

std::vector<std::string> known_model_names() {
  std::vector<std::string> names;
  for (const auto& [name, config] : table()) names.emplace_back(name);
  return names;
}

const ModelConfig* find_known_model(std::string_view wanted) {
  for (const auto& [name, config] : table()) {
    if (name == wanted) return &config;
  }
  return nullptr;
}

}  // namespace llmfp8
