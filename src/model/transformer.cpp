#include "model/transformer.h"

#include <array>

#include "model/loss.h"
#include "model/rope_table.h"

namespace llmfp8 {
namespace {

// A layer as stages that read and write activation slots. The backward pass reruns those whose outputs were not kept;
// the last one (down) is never rerun: its output is the next layer's input, which always is kept.
struct Stage {
  void (*run)(const LayerPass&);
  std::array<Slot, 3> outputs;  // repeated where there are fewer
};
constexpr Stage kStages[] = {
    {attention_norm, {Slot::qkv_input, Slot::input_rstd, Slot::input_rstd}},
    {attention_qkv, {Slot::qkv, Slot::qkv, Slot::qkv}},
    {attention_core, {Slot::attention_out, Slot::attention_lse, Slot::attention_lse}},
    {attention_o, {Slot::residual_mid, Slot::residual_mid, Slot::residual_mid}},
    {mlp_norm, {Slot::gate_up_input, Slot::post_rstd, Slot::post_rstd}},
    {mlp_gate_up, {Slot::gate_up, Slot::gate_up, Slot::gate_up}},
    {mlp_swiglu, {Slot::down_input, Slot::down_input, Slot::down_input}},
};

}  // namespace

Transformer::Transformer(const ModelConfig& config, std::int64_t max_positions, Backend& backend, Stream& stream) : config_(config) {
  const std::vector<float> table = rope_cos_sin(config, max_positions);
  rope_buffer_ = backend.allocate(table.size() * sizeof(float), "rotation angles");
  cos_sin_ = rope_buffer_.tensor(DType::f32, Shape{max_positions, config.head_dim});
  backend.copy_to_device(cos_sin_.data, table.data(), cos_sin_.bytes(), stream);
  backend.synchronize(stream);
}

LayerPass Transformer::layer_pass(const PassContext& pass, int layer) const {
  return {pass, config_, cos_sin_, layer, pass.params.acquire(layer, pass.numerics)};
}

void Transformer::layer_forward(const LayerPass& l, const Observers& observers) const {
  attention_norm(l);
  attention_qkv(l);
  if (observers.qkv) observers.qkv(l.layer, l.pass.activations.get(l.layer, Slot::qkv));
  attention_core(l);
  attention_o(l);
  mlp_norm(l);
  mlp_gate_up(l);
  mlp_swiglu(l);
  mlp_down(l);
}

void Transformer::forward(const PassContext& pass, const Observers& observers) const {
  CHECK(pass.batch.max_doc_tokens <= max_positions(), "a document of {} tokens, positions reach {}", pass.batch.max_doc_tokens,
        max_positions());
  ActivationStore& a = pass.activations;
  const Tensor embedded = a.put(0, Slot::residual_in, pass.dtype(), Shape{pass.tokens(), config_.hidden_size});
  {
    const Scope scope(pass.ops, {"model.embed_tokens"});
    pass.ops.embedding({pass.params.embedding(), pass.batch.tokens, pass.num_tokens(), embedded});
  }
  if (observers.hidden) observers.hidden("embed", embedded);
  for (int layer = 0; layer < num_layers(); ++layer) {
    layer_forward(layer_pass(pass, layer), observers);
    pass.params.release(layer);
    if (observers.hidden) observers.hidden("layer" + std::to_string(layer), a.get(layer + 1, Slot::residual_in));
  }
  const int last = num_layers();
  const Tensor rstd = a.put(last, Slot::input_rstd, DType::f32, Shape{pass.tokens()});
  const Tensor normed = a.put(last, Slot::head_input, pass.dtype(), Shape{pass.tokens(), config_.hidden_size});
  {
    const Scope scope(pass.ops, {"model.norm"});
    pass.ops.rmsnorm({a.get(last, Slot::residual_in), pass.params.final_norm(), pass.num_tokens(), config_.rms_norm_eps, normed, rstd});
  }
  if (observers.hidden) observers.hidden("norm", normed);
}

Tensor Transformer::hidden(const PassContext& pass) const { return pass.activations.get(num_layers(), Slot::head_input); }

void Transformer::layer_backward(const LayerPass& l, GradTarget& grads, const Tensor& d_residual) const {
  ActivationStore& a = l.pass.activations;
  a.set_rebuilding(true);
  for (const Stage& stage : kStages) {
    for (Slot output : stage.outputs) {
      if (a.has(l.layer, output)) continue;
      stage.run(l);
      break;
    }
  }
  a.set_rebuilding(false);
  mlp_backward(l, grads, d_residual);
  attention_backward(l, grads, d_residual);
}

void Transformer::forward_backward(const PassContext& pass, GradTarget& grads, StepScalars* scalars) const {
  forward(pass);
  ActivationStore& a = pass.activations;
  Arena& arena = pass.ops.arena();
  const int last = num_layers();
  const WeightTable& table = pass.params.table();
  const Shape shape{pass.tokens(), config_.hidden_size};

  const ArenaTensor d_residual = arena.take("d_residual", pass.dtype(), shape);
  {
    const ArenaTensor d_normed = arena.take("d_head_input", pass.dtype(), shape);
    head_loss(pass, hidden(pass), scalars, &grads, d_normed);
    const ParamSpec& norm = table.find(ParamKind::final_norm);
    const Scope scope(pass.ops, {"model.norm"});
    pass.ops.rmsnorm_backward({d_normed, a.get(last, Slot::residual_in), pass.params.final_norm(), a.get(last, Slot::input_rstd),
                               pass.num_tokens(), Tensor(), d_residual, grads.destination(norm)});
    grads.ready(norm);
  }
  for (Slot slot : {Slot::head_input, Slot::input_rstd, Slot::residual_in}) a.drop(last, slot);
  for (int layer = last - 1; layer >= 0; --layer) {
    layer_backward(layer_pass(pass, layer), grads, d_residual);
    pass.params.release(layer);
  }
  const ParamSpec& embedding = table.find(ParamKind::embedding);
  const Scope scope(pass.ops, {"model.embed_tokens"});
  pass.ops.embedding_backward({d_residual, pass.batch.tokens, pass.num_tokens(), grads.destination(embedding)});
  grads.ready(embedding);
}

void Transformer::evaluate(const PassContext& pass, StepScalars* scalars) const {
  forward(pass);
  head_loss(pass, hidden(pass), scalars, nullptr, Tensor());
  for (Slot slot : {Slot::head_input, Slot::input_rstd, Slot::residual_in}) pass.activations.drop(num_layers(), slot);
}

}  // namespace llmfp8
