// The angles of rotary position embeddings, made once for a model.
#pragma once

#include <vector>

#include "core/model_config.h"

namespace llmfp8 {

// inv_freq [head_dim / 2], fp32: theta^(-2i/head_dim), with the llama3 scaling where the model has one.
// Source: HF transformers, modeling_rope_utils.py (_compute_llama3_parameters).
std::vector<float> rope_inv_freq(const ModelConfig& config);

// f32 [num_positions, head_dim]: cos(position * inv_freq[i]) for i < head_dim/2, then the sines. The product is rounded to
// fp32 before the cosine, as HF does: at large positions a wider product would be another model.
std::vector<float> rope_cos_sin(const ModelConfig& config, std::int64_t num_positions);

}  // namespace llmfp8
