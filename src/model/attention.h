// The attention half of a decoder layer: norm, qkv, rotation, attention, o added to the residual stream.
// Stages write activation slots, so that the backward pass can run any of them again.
#pragma once

#include "model/pass_context.h"

namespace llmfp8 {

// What the stages of a layer share. cos_sin: f32 [max_positions, head_dim].
struct LayerPass {
  const PassContext& pass;
  const ModelConfig& config;
  Tensor cos_sin;
  int layer = 0;
  LayerWeights weights;
};

AttentionShape attention_shape(const ModelConfig& config, std::int64_t max_doc_tokens, std::int64_t equal_doc_tokens = 0);

void attention_norm(const LayerPass& l);   // residual_in → qkv_input, input_rstd
void attention_qkv(const LayerPass& l);    // qkv_input → qkv
void attention_core(const LayerPass& l);   // qkv → attention_out, attention_lse, o_input
void attention_o(const LayerPass& l);      // o_input, residual_in → residual_mid

// d_residual: inout A [T, hidden_size]: gradient of residual_mid, becomes that of residual_in. Drops the slots it has used.
void attention_backward(const LayerPass& l, GradTarget& grads, const Tensor& d_residual);

}  // namespace llmfp8
