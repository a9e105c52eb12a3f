#include "model/mlp.h"

#include "model/linear.h"

namespace llmfp8 {

void mlp_norm(const LayerPass& l) {
  const PassContext& p = l.pass;
  const Scope scope(p.ops, {"post_attention_layernorm", l.layer});
  const Tensor rstd = p.activations.put(l.layer, Slot::post_rstd, DType::f32, Shape{p.tokens()});
  const QTensor out = p.activations.put(l.layer, Slot::gate_up_input, p.quantizer({l.layer, Product::gate_up}, Role::input),
                                        Shape{p.tokens(), l.config.hidden_size}, p.dtype(), p.ops);
  p.ops.rmsnorm_quantize({p.activations.get(l.layer, Slot::residual_mid), l.weights.post_attention_layernorm, p.num_tokens(),
                          l.config.rms_norm_eps, out, rstd});
  p.activations.forward_done(l.layer, Slot::post_rstd);
}

void mlp_gate_up(const LayerPass& l) {
  const PassContext& p = l.pass;
  const Tensor out = p.activations.put(l.layer, Slot::gate_up, p.dtype(), Shape{p.tokens(), 2 * l.config.intermediate_size});
  linear_forward(p, {{l.layer, Product::gate_up}, p.activations.get_quantized(l.layer, Slot::gate_up_input), l.weights.gate_up,
                     Tensor(), Tensor(), out},
                 token_rows(p));
  p.activations.forward_done(l.layer, Slot::gate_up_input);
}

void mlp_swiglu(const LayerPass& l) {
  const PassContext& p = l.pass;
  const Scope scope(p.ops, {"mlp", l.layer});
  const QTensor out = p.activations.put(l.layer, Slot::down_input, p.quantizer({l.layer, Product::down}, Role::input),
                                        Shape{p.tokens(), l.config.intermediate_size}, p.dtype(), p.ops);
  p.ops.swiglu_quantize({p.activations.get(l.layer, Slot::gate_up), p.num_tokens(), out});
  p.activations.forward_done(l.layer, Slot::gate_up);
}

void mlp_down(const LayerPass& l) {
  const PassContext& p = l.pass;
  const Tensor out = p.activations.put(l.layer + 1, Slot::residual_in, p.dtype(), Shape{p.tokens(), l.config.hidden_size});
  linear_forward(p, {{l.layer, Product::down}, p.activations.get_quantized(l.layer, Slot::down_input), l.weights.down, Tensor(),
                     p.activations.get(l.layer, Slot::residual_mid), out},
                 token_rows(p));
  for (Slot slot : {Slot::down_input, Slot::residual_mid}) p.activations.forward_done(l.layer, slot);
}

void mlp_backward(const LayerPass& l, GradTarget& grads, const Tensor& d_residual) {
  const PassContext& p = l.pass;
  const Scope scope(p.ops, {"mlp", l.layer});
  ActivationStore& a = p.activations;
  Arena& arena = p.ops.arena();
  const WeightTable& table = p.params.table();
  const auto param = [&](ParamKind kind) -> const ParamSpec& { return table.find(kind, l.layer); };
  const RowCount rows = token_rows(p);

  const Tensor gate_up = a.get(l.layer, Slot::gate_up);
  // gate_up is not read again: where its gradient stays in high precision it takes its place.
  const Site gate_up_site{l.layer, Product::gate_up}, down_site{l.layer, Product::down};
  const OutputGradient d_gate_up(p, gate_up_site, gate_up);
  {
    const ArenaTensor d_down_input = arena.take("d_down_input", p.dtype(), Shape{p.tokens(), l.config.intermediate_size});
    {
      const OutputGradient d_down = quantize_gradient(p, down_site, d_residual, rows);
      linear_backward(p, {down_site, d_down.get(), a.get_quantized(l.layer, Slot::down_input), l.weights.down, d_down_input,
                          grads.destination(param(ParamKind::down))},
                      rows);
    }
    grads.ready(param(ParamKind::down));
    a.drop(l.layer, Slot::down_input);
    p.ops.swiglu_backward_quantize({d_down_input, gate_up, p.num_tokens(), d_gate_up.get()});
  }
  const ArenaTensor d_normed = arena.take("d_gate_up_input", p.dtype(), Shape{p.tokens(), l.config.hidden_size});
  linear_backward(p, {gate_up_site, d_gate_up.get(), a.get_quantized(l.layer, Slot::gate_up_input), l.weights.gate_up,
                      d_normed, grads.destination(param(ParamKind::gate_up))},
                  rows);
  grads.ready(param(ParamKind::gate_up));
  for (Slot slot : {Slot::gate_up, Slot::gate_up_input}) a.drop(l.layer, slot);
  const Scope norm_scope(p.ops, {"post_attention_layernorm", l.layer});
  p.ops.rmsnorm_backward({d_normed, a.get(l.layer, Slot::residual_mid), l.weights.post_attention_layernorm,
                          a.get(l.layer, Slot::post_rstd), p.num_tokens(), d_residual, d_residual,
                          grads.destination(param(ParamKind::post_attention_layernorm))});
  grads.ready(param(ParamKind::post_attention_layernorm));
  for (Slot slot : {Slot::post_rstd, Slot::residual_mid}) a.drop(l.layer, slot);
}

}  // namespace llmfp8
