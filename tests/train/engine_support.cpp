#include "train/engine_support.h"

#include "core/rng.h"
#include "hub/convert.h"
#include "hub/safetensors_writer.h"

namespace llmfp8::testing {
namespace {

std::vector<std::byte> bytes_of(Engine& engine, const Tensor& tensor) {
  std::vector<std::byte> bytes(tensor.bytes());
  engine.backend().copy_to_host(bytes.data(), tensor.data, bytes.size(), engine.stream());
  engine.backend().synchronize(engine.stream());
  return bytes;
}

}  // namespace

void write_golden_weights(const std::string& model, const std::filesystem::path& folder,
                          const std::function<DType(const std::string& name)>& dtype_of) {
  const SafetensorsFile file = SafetensorsFile::open(model_dir(model) / "model.safetensors");
  std::vector<TensorDeclaration> declarations;
  for (const std::string& name : file.names()) declarations.push_back({name, dtype_of(name), file.at(name).shape});
  std::filesystem::create_directories(folder);
  SafetensorsWriter writer(folder / "model.safetensors", declarations);
  for (const TensorDeclaration& d : declarations) {
    const std::vector<float> values = floats(file.at(d.name));
    std::vector<std::byte> converted(values.size() * size_bytes(d.dtype));
    convert_elements(values.data(), DType::f32, converted.data(), d.dtype, values.size());
    writer.write(d.name, converted.data(), converted.size());
  }
  writer.finish();
  std::filesystem::copy_file(model_dir(model) / "config.json", folder / "config.json");
}

ParityBatch random_batch(const ModelConfig& config, const std::vector<std::int64_t>& lengths, std::uint64_t seed) {
  const auto at = [&](std::size_t i) { return philox4x32(seed, i, 0).x[0]; };
  ParityBatch batch;
  batch.host.cu_seqlens = {0};
  for (const std::int64_t length : lengths) {
    const std::size_t begin = batch.host.tokens.size();
    for (std::int64_t t = 0; t < length; ++t) {
      batch.host.positions.push_back(static_cast<std::int32_t>(t));
      batch.host.tokens.push_back(static_cast<std::int32_t>(at(begin + static_cast<std::size_t>(t)) %
                                                            static_cast<std::uint64_t>(config.vocab_size)));
    }
    for (std::int64_t t = 0; t < length; ++t) {
      const std::size_t i = begin + static_cast<std::size_t>(t);
      const bool learnt = t + 1 < length && (t == 0 || at(i + 1000000) % 5 != 0);
      batch.host.labels.push_back(learnt ? batch.host.tokens[i + 1] : kIgnoreLabel);
      if (learnt) batch.host.supervised_rows.push_back(static_cast<std::int32_t>(i));
    }
    batch.host.cu_seqlens.push_back(static_cast<std::int32_t>(batch.host.tokens.size()));
    batch.host.max_doc_tokens = std::max(batch.host.max_doc_tokens, static_cast<std::int32_t>(length));
  }
  close_batch(batch.host);
  batch.rows = 1;
  batch.columns = batch.host.counts.num_tokens;
  for (std::int64_t t = 0; t < batch.columns; ++t) batch.places.push_back(t);
  return batch;
}

Fixture::Fixture(std::string model_, const std::vector<std::vector<std::int64_t>>& lengths) : model(std::move(model_)) {
  const ModelConfig config = config_of(model);
  for (std::size_t i = 0; i < lengths.size(); ++i) batches.push_back(random_batch(config, lengths[i], 100 + i));
  limits = align_batches(batches);
}

void PoisonedReducer::sum_gradients(GradTarget&, StepScalars*) {
  const Tensor& grad = engine_.grads().grad(engine_.params().table().find(kind_, 1).index);
  engine_.backend().copy_to_device(grad.as<float>() + element_, &value_, sizeof value_, engine_.stream());
  engine_.backend().synchronize(engine_.stream());
}

std::vector<std::vector<std::byte>> state_bytes(Engine& engine) {
  std::vector<std::vector<std::byte>> state;
  const auto add = [&](const Tensor& tensor) {
    if (tensor.defined()) state.push_back(bytes_of(engine, tensor));
  };
  const auto add_codes = [&](const QTensor& q) {
    for (const Tensor* part : {&q.rowwise, &q.columnwise}) add(*part);
    if (q.scaling == Scaling::mx_1x32) {
      for (const Tensor* part : {&q.rowwise_scale_inv, &q.columnwise_scale_inv}) add(*part);
    }
  };
  for (const ParamSpec& spec : engine.params().table().params()) add(engine.params().weight(spec.index));
  for (const NamedTensor& moment : engine.optimizer().state_tensors()) add(moment.tensor);
  for (int layer = 0; layer < static_cast<int>(engine.config().num_hidden_layers); ++layer) {
    const LayerWeights w = engine.params().acquire(layer, Numerics::quantized);
    for (const QTensor* q : {&w.qkv, &w.o, &w.gate_up, &w.down}) add_codes(*q);
    engine.params().release(layer);
  }
  add_codes(engine.params().lm_head(Numerics::quantized));
  // Just-in-time scales of activations belong to the pass, not to the state.
  const AmaxHistory& history = engine.fp8().history();
  add(history.histories());
  const std::int64_t weights = history.num_slots() / 3;
  const std::int64_t slots = engine.fp8().recipe().delayed() ? history.num_slots() : weights;
  add(history.scales().slice_rows(0, slots));
  add(history.scale_invs().slice_rows(0, slots));
  add(history.amaxes().reshape(Shape{history.num_slots(), 1}).slice_rows(0, weights));
  return state;
}

}  // namespace llmfp8::testing
