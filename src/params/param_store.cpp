#include "params/param_store.h"

namespace llmfp8 {
namespace {

std::size_t aligned_bytes(const ParamSpec& spec, DType dtype) {
  const std::size_t bytes = static_cast<std::size_t>(spec.shape.numel()) * size_bytes(dtype);
  return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

ParamKind weight_kind(Product product) {
  switch (product) {
    case Product::qkv: return ParamKind::qkv;
    case Product::o: return ParamKind::o;
    case Product::gate_up: return ParamKind::gate_up;
    case Product::down: return ParamKind::down;
    case Product::lm_head: return ParamKind::lm_head;
  }
  fail("unknown product");
}

}  // namespace

std::size_t packed_bytes(const WeightTable& table, DType dtype) {
  std::size_t bytes = 0;
  for (const ParamSpec& spec : table.params()) bytes += aligned_bytes(spec, dtype);
  return bytes;
}

std::vector<Tensor> pack(const WeightTable& table, DType dtype, const Buffer& buffer) {
  std::vector<Tensor> tensors;
  std::size_t offset = 0;
  for (const ParamSpec& spec : table.params()) {
    tensors.push_back(buffer.tensor(dtype, spec.shape, offset));
    offset += aligned_bytes(spec, dtype);
  }
  return tensors;
}

LocalParamStore::LocalParamStore(const WeightTable& table, DType dtype, const Fp8State* fp8, const Ops& ops, Backend& backend)
    : table_(table),
      dtype_(dtype),
      fp8_(fp8),
      buffer_(backend.allocate(packed_bytes(table, dtype), "weights")),
      weights_(pack(table, dtype, buffer_)) {
  if (fp8_ == nullptr || !fp8_->enabled()) return;
  const int num_layers = static_cast<int>(table_.config().num_hidden_layers);
  quantized_.resize(static_cast<std::size_t>(num_layers * kLayerProducts + 1));
  const auto create = [&](Site site) {
    const Quantizer quantizer = fp8_->quantizer(site, Role::weight);
    if (!quantizer.quantizes()) return;
    QuantizedWeight& q = quantized_[position(site.layer, site.product)];
    const int layer = site.product == Product::lm_head ? -1 : site.layer;
    const Shape shape = table_.find(weight_kind(site.product), layer).shape;
    q.codes = quantizer.create(shape, dtype_, ops.usages(quantizer.spec().scaling()),
                               [&](std::string_view, DType part, Shape part_shape) {
                                 const auto bytes = static_cast<std::size_t>(part_shape.numel()) * size_bytes(part);
                                 q.storage.push_back(backend.allocate(bytes, "weights in FP8"));
                                 return q.storage.back().tensor(part, part_shape);
                               });
  };
  for (int layer = 0; layer < num_layers; ++layer)
    for (Product product : {Product::qkv, Product::o, Product::gate_up, Product::down}) create({layer, product});
  create({0, Product::lm_head});
}

std::size_t LocalParamStore::position(int layer, Product product) {
  // lm_head first, then the layers.
  return product == Product::lm_head ? 0 : 1 + static_cast<std::size_t>(layer * kLayerProducts + static_cast<int>(product));
}

QTensor LocalParamStore::product(int layer, Product product, ParamKind kind, Numerics numerics) const {
  if (numerics == Numerics::quantized && !quantized_.empty()) {
    const QuantizedWeight& q = quantized_[position(layer, product)];
    if (!q.storage.empty()) return q.codes;
  }
  return QTensor::high_precision(weight(table_.find(kind, product == Product::lm_head ? -1 : layer).index));
}

QTensor LocalParamStore::lm_head(Numerics numerics) { return product(0, Product::lm_head, ParamKind::lm_head, numerics); }

LayerWeights LocalParamStore::acquire(int layer, Numerics numerics) {
  LayerWeights w;
  w.input_layernorm = weight(table_.find(ParamKind::input_layernorm, layer).index);
  w.post_attention_layernorm = weight(table_.find(ParamKind::post_attention_layernorm, layer).index);
  if (table_.has(ParamKind::qkv_bias)) w.qkv_bias = weight(table_.find(ParamKind::qkv_bias, layer).index);
  w.qkv = product(layer, Product::qkv, ParamKind::qkv, numerics);
  w.o = product(layer, Product::o, ParamKind::o, numerics);
  w.gate_up = product(layer, Product::gate_up, ParamKind::gate_up, numerics);
  w.down = product(layer, Product::down, ParamKind::down, numerics);
  return w;
}

void LocalParamStore::quantize(Ops& ops, Site site, const StepScalars* scalars) const {
  if (quantized_.empty()) return;
  const QuantizedWeight& q = quantized_[position(site.layer, site.product)];
  if (q.storage.empty()) return;
  QTensor codes = q.codes;
  // At load there is no history yet: the weights' own amax makes the first scale.
  codes.just_in_time = codes.just_in_time || (fp8_->calibrating() && codes.scaling == Scaling::tensor);
  const int at = site.product == Product::lm_head ? -1 : site.layer;
  ops.quantize_weight(weight(table_.find(weight_kind(site.product), at).index), codes, scalars);
}

void LocalParamStore::quantize_layer(Ops& ops, int layer, const StepScalars* scalars) const {
  for (Product product : {Product::qkv, Product::o, Product::gate_up, Product::down}) quantize(ops, {layer, product}, scalars);
}

void LocalParamStore::quantize_head(Ops& ops, const StepScalars* scalars) const { quantize(ops, {0, Product::lm_head}, scalars); }

void LocalParamStore::quantize_weights(Ops& ops, const StepScalars* scalars) const {
  for (int layer = 0; layer < static_cast<int>(table_.config().num_hidden_layers); ++layer) quantize_layer(ops, layer, scalars);
  quantize_head(ops, scalars);
}

std::size_t LocalParamStore::quantized_bytes() const {
  std::size_t bytes = 0;
  for (const QuantizedWeight& q : quantized_)
    for (const Buffer& part : q.storage) bytes += part.bytes();
  return bytes;
}

}  // namespace llmfp8
