#include "train/parity.h"

#include <algorithm>
#include <cstring>

#include "backend/plan/planned_ops.h"
#include "hub/convert.h"
#include "hub/safetensors_writer.h"
#include "model/loss.h"

namespace llmfp8 {
namespace {

// The first `rows` rows of a device matrix as fp32.
std::vector<float> to_host(Backend& backend, Stream& stream, const Tensor& matrix, std::int64_t rows) {
  const Tensor top = matrix.slice_rows(0, rows);
  CHECK(top.contiguous(), "a trace of a strided matrix");
  std::vector<std::byte> raw(top.bytes());
  backend.copy_to_host(raw.data(), top.data, raw.size(), stream);
  backend.synchronize(stream);
  std::vector<float> values(static_cast<std::size_t>(top.numel()));
  convert_elements(raw.data(), top.dtype, values.data(), DType::f32, values.size());
  return values;
}

// The pass itself; runs once on planning Ops and once on real ones.
class Tracer {
 public:
  Tracer(Engine& engine, const HostBatch& host, const Batch& batch) : engine_(engine), host_(host), batch_(batch) {}

  void run(Ops& ops, ForwardTrace* trace) {
    Arena& arena = ops.arena();
    arena.begin_phase("trace");
    {
      ActivationStore activations(arena, static_cast<int>(engine_.config().num_hidden_layers), Recompute::none,
                                  PassKind::forward_only);
      const PassContext pass{ops,
                             batch_,
                             engine_.params(),
                             activations,
                             engine_.fp8().enabled() ? &engine_.fp8() : nullptr,
                             Numerics::quantized,
                             nullptr};
      Transformer::Observers observers;
      observers.hidden = [&](const std::string& name, const Tensor& hidden) {
        if (trace != nullptr) trace->hidden[name] = read(hidden);
      };
      engine_.transformer().forward(pass, observers);
      head(pass, trace);
    }
    arena.end_phase();
  }

 private:
  std::vector<float> read(const Tensor& matrix) {
    return to_host(engine_.backend(), engine_.stream(), matrix, host_.counts.num_tokens);
  }

  void head(const PassContext& pass, ForwardTrace* trace) {
    Arena& arena = pass.ops.arena();
    const ModelConfig& config = engine_.config();
    const ArenaTensor logits = arena.take("trace logits", pass.dtype(), Shape{batch_.capacity(), config.vocab_size});
    const ArenaTensor labels = arena.take("trace labels", DType::i32, Shape{batch_.capacity()});
    const ArenaTensor losses = arena.take("trace losses", DType::f32, Shape{batch_.capacity()});
    const Tensor& hidden = pass.activations.get(static_cast<int>(config.num_hidden_layers), Slot::head_input);
    head_logits(pass, hidden, logits);
    // Every row goes through the loss, so that it sees them in place; those without a label are told to predict 0.
    std::vector<std::int32_t> wanted(host_.labels);
    std::replace(wanted.begin(), wanted.end(), kIgnoreLabel, 0);
    if (trace != nullptr) {
      trace->logits = read(logits);
      engine_.backend().copy_to_device(labels.get().data, wanted.data(), wanted.size() * sizeof(std::int32_t),
                                       engine_.stream());
    }
    pass.ops.cross_entropy({logits, labels, batch_.num_tokens(), 0, false, losses});
    if (trace == nullptr) return;
    const auto n = static_cast<std::size_t>(host_.counts.num_tokens);
    trace->token_loss = to_host(engine_.backend(), engine_.stream(), losses.get().reshape(Shape{batch_.capacity(), 1}),
                                host_.counts.num_tokens);
    for (std::size_t t = 0; t < n; ++t) {
      if (host_.labels[t] == kIgnoreLabel) trace->token_loss[t] = 0.0f;
    }
  }

  Engine& engine_;
  const HostBatch& host_;
  const Batch& batch_;
};

template <typename TensorOf>
HfTensors hf_tensors(Engine& engine, double denominator, const TensorOf& tensor_of) {
  HfTensors tensors;
  for (const ParamSpec& spec : engine.params().table().params()) {
    const std::int64_t rows = spec.shape[0], width = spec.shape.numel() / rows;
    const Tensor whole = tensor_of(spec).reshape(Shape{rows, width});
    std::vector<float> values = to_host(engine.backend(), engine.stream(), whole, rows);
    for (float& value : values) value = static_cast<float>(static_cast<double>(value) / denominator);
    for (const WeightSlice& slice : spec.slices) {
      const auto begin = values.begin() + slice.row_begin * width;
      tensors[slice.name] = {slice.shape, std::vector<float>(begin, begin + slice.shape.numel())};
    }
  }
  return tensors;
}

// values: [num_tokens, width] → [B * S, width], zero at padding.
std::vector<float> spread(const ParityBatch& batch, const std::vector<float>& values, std::int64_t width) {
  std::vector<float> out(static_cast<std::size_t>(batch.rows * batch.columns * width), 0.0f);
  for (std::size_t t = 0; t < batch.places.size(); ++t) {
    const auto from = values.begin() + static_cast<std::int64_t>(t) * width;
    std::copy(from, from + width, out.begin() + batch.places[t] * width);
  }
  return out;
}

}  // namespace

ForwardTrace trace_forward(Engine& engine, const HostBatch& host) {
  Backend& backend = engine.backend();
  DeviceBatch device({{host.capacity}, static_cast<std::int64_t>(host.cu_seqlens.size()) - 1, host.max_doc_tokens},
                     backend);
  const Batch batch = device.upload(host, engine.stream());
  Tracer tracer(engine, host, batch);

  PlannedOps planned(backend, engine.stream(), "forward pass of parity", [&](Ops& ops) { tracer.run(ops, nullptr); });
  ForwardTrace trace;
  tracer.run(planned.ops(), &trace);
  return trace;
}

HfTensors hf_gradients(Engine& engine, double denominator) {
  return hf_tensors(engine, denominator, [&](const ParamSpec& spec) { return engine.grads().grad(spec.index); });
}

HfTensors hf_weights(Engine& engine) {
  return hf_tensors(engine, 1.0, [&](const ParamSpec& spec) { return engine.params().weight(spec.index); });
}

void write_hf_tensors(const std::filesystem::path& file, const HfTensors& tensors) {
  std::vector<TensorDeclaration> declarations;
  for (const auto& [name, tensor] : tensors) declarations.push_back({name, DType::f32, tensor.shape});
  SafetensorsWriter writer(file, declarations);
  for (const auto& [name, tensor] : tensors)
    writer.write(name, tensor.values.data(), tensor.values.size() * sizeof(float));
  writer.finish();
}

void write_parity(const std::filesystem::path& file, const ParityBatch& batch, const ForwardTrace& trace, double loss,
                  HfTensors gradients) {
  HfTensors all = std::move(gradients);
  const std::int64_t vocab = static_cast<std::int64_t>(trace.logits.size() / batch.places.size());
  all["logits"] = {Shape{batch.rows, batch.columns, vocab}, spread(batch, trace.logits, vocab)};
  all["loss"] = {Shape{1}, {static_cast<float>(loss)}};
  if (batch.columns > 1) {
    const std::vector<float> losses = spread(batch, trace.token_loss, 1);
    NamedValues shifted{Shape{batch.rows, batch.columns - 1}, {}};
    for (std::int64_t row = 0; row < batch.rows; ++row) {
      const auto begin = losses.begin() + row * batch.columns;
      shifted.values.insert(shifted.values.end(), begin, begin + batch.columns - 1);
    }
    all["token_loss"] = std::move(shifted);
  }
  for (const auto& [name, values] : trace.hidden) {
    const std::int64_t hidden = static_cast<std::int64_t>(values.size() / batch.places.size());
    std::vector<float> row = spread(batch, values, hidden);
    row.resize(static_cast<std::size_t>(batch.columns * hidden));
    all["hidden." + name] = {Shape{batch.columns, hidden}, std::move(row)};
  }
  write_hf_tensors(file, all);
}

}  // namespace llmfp8
