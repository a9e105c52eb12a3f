#include "model/attention.h"

#include <cmath>

#include "model/linear.h"

namespace llmfp8 {
namespace {

// The input of o: quantised on its own, or the attention's output as it is.
QTensor o_input(const LayerPass& l) {
  const ActivationStore& a = l.pass.activations;
  if (a.has(l.layer, Slot::o_input)) return a.get_quantized(l.layer, Slot::o_input);
  return QTensor::high_precision(a.get(l.layer, Slot::attention_out));
}

AttentionShape shape_of(const LayerPass& l) {
  return attention_shape(l.config, l.pass.batch.max_doc_tokens, l.pass.batch.equal_doc_tokens);
}

RopeArgs rope_args(const LayerPass& l, const Tensor& qkv, bool inverse) {
  const ModelConfig& c = l.config;
  return {qkv, l.pass.batch.positions, l.pass.num_tokens(), l.cos_sin, c.num_attention_heads, c.num_key_value_heads, c.head_dim,
          inverse};
}

}  // namespace

AttentionShape attention_shape(const ModelConfig& c, std::int64_t max_doc_tokens, std::int64_t equal_doc_tokens) {
  return {c.num_attention_heads, c.num_key_value_heads, c.head_dim, max_doc_tokens,
          static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim))), equal_doc_tokens};
}

void attention_norm(const LayerPass& l) {
  const PassContext& p = l.pass;
  const Scope scope(p.ops, {"input_layernorm", l.layer});
  const Tensor rstd = p.activations.put(l.layer, Slot::input_rstd, DType::f32, Shape{p.tokens()});
  const QTensor out = p.activations.put(l.layer, Slot::qkv_input, p.quantizer({l.layer, Product::qkv}, Role::input),
                                        Shape{p.tokens(), l.config.hidden_size}, p.dtype(), p.ops);
  p.ops.rmsnorm_quantize({p.activations.get(l.layer, Slot::residual_in), l.weights.input_layernorm, p.num_tokens(),
                          l.config.rms_norm_eps, out, rstd});
  p.activations.forward_done(l.layer, Slot::input_rstd);
}

void attention_qkv(const LayerPass& l) {
  const PassContext& p = l.pass;
  const Scope scope(p.ops, {"self_attn", l.layer});
  const Tensor qkv = p.activations.put(l.layer, Slot::qkv, p.dtype(), Shape{p.tokens(), l.config.qkv_size()});
  linear_forward(p, {{l.layer, Product::qkv}, p.activations.get_quantized(l.layer, Slot::qkv_input), l.weights.qkv,
                     l.weights.qkv_bias, Tensor(), qkv},
                 token_rows(p));
  p.ops.rope(rope_args(l, qkv, false));
  p.activations.forward_done(l.layer, Slot::qkv_input);
}

void attention_core(const LayerPass& l) {
  const PassContext& p = l.pass;
  const Scope scope(p.ops, {"self_attn", l.layer});
  ActivationStore& a = p.activations;
  const Shape shape{p.tokens(), l.config.q_size()};
  const Tensor out = a.put(l.layer, Slot::attention_out, p.dtype(), shape);
  const Tensor lse = a.put(l.layer, Slot::attention_lse, DType::f32, Shape{l.config.num_attention_heads, p.tokens()});
  p.ops.attention({shape_of(l), a.get(l.layer, Slot::qkv), p.batch.cu_seqlens,
                   p.num_tokens(), out, lse});
  const Quantizer quantizer = p.quantizer({l.layer, Product::o}, Role::input);
  if (quantizer.quantizes()) {
    p.ops.quantize(out, p.num_tokens(), a.put(l.layer, Slot::o_input, quantizer, shape, p.dtype(), p.ops));
  }
  a.forward_done(l.layer, Slot::attention_lse);
  a.forward_done(l.layer, Slot::qkv);
}

void attention_o(const LayerPass& l) {
  const PassContext& p = l.pass;
  const Tensor out = p.activations.put(l.layer, Slot::residual_mid, p.dtype(), Shape{p.tokens(), l.config.hidden_size});
  linear_forward(p, {{l.layer, Product::o}, o_input(l), l.weights.o, Tensor(), p.activations.get(l.layer, Slot::residual_in), out},
                 token_rows(p));
  for (Slot slot : {Slot::o_input, Slot::attention_out, Slot::residual_in}) p.activations.forward_done(l.layer, slot);
}

void attention_backward(const LayerPass& l, GradTarget& grads, const Tensor& d_residual) {
  const PassContext& p = l.pass;
  const Scope scope(p.ops, {"self_attn", l.layer});
  ActivationStore& a = p.activations;
  Arena& arena = p.ops.arena();
  const WeightTable& table = p.params.table();
  const auto param = [&](ParamKind kind) -> const ParamSpec& { return table.find(kind, l.layer); };
  const RowCount rows = token_rows(p);

  ArenaTensor d_qkv;
  {
    const ArenaTensor d_out = arena.take("d_attention_out", p.dtype(), Shape{p.tokens(), l.config.q_size()});
    {
      const Site site{l.layer, Product::o};
      const OutputGradient d_o = quantize_gradient(p, site, d_residual, rows);
      linear_backward(p, {site, d_o.get(), o_input(l), l.weights.o, d_out, grads.destination(param(ParamKind::o))}, rows);
    }
    grads.ready(param(ParamKind::o));
    a.drop(l.layer, Slot::o_input);
    d_qkv = arena.take("d_qkv", p.dtype(), Shape{p.tokens(), l.config.qkv_size()});
    p.ops.attention_backward({shape_of(l), d_out, a.get(l.layer, Slot::qkv),
                              a.get(l.layer, Slot::attention_out), a.get(l.layer, Slot::attention_lse), p.batch.cu_seqlens,
                              p.num_tokens(), d_qkv});
    for (Slot slot : {Slot::attention_out, Slot::attention_lse, Slot::qkv}) a.drop(l.layer, slot);
  }
  const Site qkv_site{l.layer, Product::qkv};
  const OutputGradient d_rotated(p, qkv_site, d_qkv);
  // A bias wants its sums over the high-precision gradient.
  const bool straight = d_rotated.quantized() && !l.weights.qkv_bias.defined();
  if (straight) {
    p.ops.rope_quantize({rope_args(l, d_qkv, true), d_rotated.get()});
  } else {
    p.ops.rope(rope_args(l, d_qkv, true));
    if (d_rotated.quantized()) p.ops.quantize(d_qkv, p.num_tokens(), d_rotated.get());
  }
  if (l.weights.qkv_bias.defined()) {
    p.ops.bias_backward({d_qkv, p.num_tokens(), grads.destination(param(ParamKind::qkv_bias))});
    grads.ready(param(ParamKind::qkv_bias));
  }
  const ArenaTensor d_normed = arena.take("d_qkv_input", p.dtype(), Shape{p.tokens(), l.config.hidden_size});
  linear_backward(p, {qkv_site, d_rotated.get(), a.get_quantized(l.layer, Slot::qkv_input), l.weights.qkv, d_normed,
                      grads.destination(param(ParamKind::qkv))},
                  rows);
  grads.ready(param(ParamKind::qkv));
  a.drop(l.layer, Slot::qkv_input);
  const Scope norm_scope(p.ops, {"input_layernorm", l.layer});
  p.ops.rmsnorm_backward({d_normed, a.get(l.layer, Slot::residual_in), l.weights.input_layernorm,
                          a.get(l.layer, Slot::input_rstd), p.num_tokens(), d_residual, d_residual,
                          grads.destination(param(ParamKind::input_layernorm))});
  grads.ready(param(ParamKind::input_layernorm));
  for (Slot slot : {Slot::input_rstd, Slot::residual_in}) a.drop(l.layer, slot);
}

}  // namespace llmfp8
