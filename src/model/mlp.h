// The MLP half of a decoder layer: norm, gate and up, SwiGLU, down added to the residual stream.
#pragma once

#include "model/attention.h"

namespace llmfp8 {

void mlp_norm(const LayerPass& l);      // residual_mid → gate_up_input, post_rstd
void mlp_gate_up(const LayerPass& l);   // gate_up_input → gate_up
void mlp_swiglu(const LayerPass& l);    // gate_up → down_input
void mlp_down(const LayerPass& l);      // down_input, residual_mid → residual_in of the next layer

// d_residual: inout A [T, hidden_size]: gradient of the next layer's residual_in, becomes that of residual_mid.
void mlp_backward(const LayerPass& l, GradTarget& grads, const Tensor& d_residual);

}  // namespace llmfp8
