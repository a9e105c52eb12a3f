#include "params/weight_table.h"

#include <fmt/format.h>

#include "core/error.h"

namespace llmfp8 {
namespace {

struct Builder {
  std::vector<ParamSpec>& params;

  void add(ParamKind kind, int layer, std::string name, std::vector<WeightSlice> slices) {
    ParamSpec spec;
    spec.index = static_cast<int>(params.size());
    spec.kind = kind;
    spec.layer = layer;
    spec.name = std::move(name);
    std::int64_t rows = 0;
    for (WeightSlice& slice : slices) {
      slice.row_begin = rows;
      rows += slice.shape[0];
    }
    const Shape& first = slices.front().shape;
    spec.shape = first.rank() == 1 ? Shape{rows} : Shape{rows, first[1]};
    spec.is_bias_or_norm = kind == ParamKind::qkv_bias || kind == ParamKind::input_layernorm ||
                           kind == ParamKind::post_attention_layernorm || kind == ParamKind::final_norm;
    spec.slices = std::move(slices);
    params.push_back(std::move(spec));
  }
};

}  // namespace

WeightTable::WeightTable(const ModelConfig& c) : config_(c) {
  const std::int64_t hidden = c.hidden_size, q = c.q_size(), kv = c.kv_size(), inter = c.intermediate_size;
  Builder build{params_};
  build.add(ParamKind::embedding, -1, "model.embed_tokens", {{"model.embed_tokens.weight", 0, Shape{c.vocab_size, hidden}}});
  for (int l = 0; l < c.num_hidden_layers; ++l) {
    const std::string p = fmt::format("model.layers.{}.", l);
    build.add(ParamKind::input_layernorm, l, p + "input_layernorm", {{p + "input_layernorm.weight", 0, Shape{hidden}}});
    build.add(ParamKind::qkv, l, p + "qkv",
              {{p + "self_attn.q_proj.weight", 0, Shape{q, hidden}},
               {p + "self_attn.k_proj.weight", 0, Shape{kv, hidden}},
               {p + "self_attn.v_proj.weight", 0, Shape{kv, hidden}}});
    if (c.attention_bias) {
      build.add(ParamKind::qkv_bias, l, p + "qkv_bias",
                {{p + "self_attn.q_proj.bias", 0, Shape{q}},
                 {p + "self_attn.k_proj.bias", 0, Shape{kv}},
                 {p + "self_attn.v_proj.bias", 0, Shape{kv}}});
    }
    build.add(ParamKind::o, l, p + "o", {{p + "self_attn.o_proj.weight", 0, Shape{hidden, q}}});
    build.add(ParamKind::post_attention_layernorm, l, p + "post_attention_layernorm",
              {{p + "post_attention_layernorm.weight", 0, Shape{hidden}}});
    build.add(ParamKind::gate_up, l, p + "gate_up",
              {{p + "mlp.gate_proj.weight", 0, Shape{inter, hidden}}, {p + "mlp.up_proj.weight", 0, Shape{inter, hidden}}});
    build.add(ParamKind::down, l, p + "down", {{p + "mlp.down_proj.weight", 0, Shape{hidden, inter}}});
  }
  build.add(ParamKind::final_norm, -1, "model.norm", {{"model.norm.weight", 0, Shape{hidden}}});
  if (!c.tie_word_embeddings) build.add(ParamKind::lm_head, -1, "lm_head", {{"lm_head.weight", 0, Shape{c.vocab_size, hidden}}});
}

const ParamSpec& WeightTable::find(ParamKind kind, int layer) const {
  if (kind == ParamKind::lm_head && config_.tie_word_embeddings) kind = ParamKind::embedding;
  // The embedding, then the layers one after the other, then the rest: a layer's parameters lie together.
  const std::size_t per_layer = config_.attention_bias ? 7 : 6;
  const std::size_t begin = layer < 0 ? 0 : 1 + per_layer * static_cast<std::size_t>(layer);
  for (std::size_t i = begin; i < params_.size(); ++i) {
    if (params_[i].kind == kind && params_[i].layer == layer) return params_[i];
    if (layer < 0 && i == 0) i = per_layer * static_cast<std::size_t>(config_.num_hidden_layers);
  }
  fail("the model has no parameter of kind {} in layer {}", static_cast<int>(kind), layer);
}

bool WeightTable::has(ParamKind kind) const {
  if (kind == ParamKind::qkv_bias) return config_.attention_bias;
  return kind != ParamKind::lm_head || !config_.tie_word_embeddings;
}

std::int64_t WeightTable::num_parameters() const {
  std::int64_t n = 0;
  for (const ParamSpec& spec : params_) n += spec.shape.numel();
  return n;
}

}  // namespace llmfp8
