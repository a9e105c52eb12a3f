#include "cli/commands/model_session.h"

#include <algorithm>

#include "backend/registry.h"
#include "core/bf16.h"
#include "core/error.h"
#include "params/load.h"
#include "train/downloads.h"
#include "train/interrupt.h"
#include "train/run_inputs.h"

namespace llmfp8 {
void declare_model_flags(FlagSet& flags, ModelChoice& choice) {
  flags.text("model", "NAME", &choice.model, "a hub name, a folder or a .gguf file",
             Presence::required);
  flags.choice("device", {"auto", "cpu", "cuda"}, &choice.device, "where it runs");
  flags.choice("dtype", {"bf16", "f32"}, &choice.dtype, "of weights and activations");
  flags.text("chat_template", "NAME", &choice.chat_template,
             "auto|model|llama3|chatml|legacy or a file; auto: the model's own");
  flags.text("template_date", "TEXT", &choice.template_date, "date (2024-07-26) for a template that writes one; without it, its own constant, else today");
  flags.text("weights_cache_dir", "DIR", &choice.weights_cache_dir,
             "folder of downloaded models; without it, the hub's default");
  flags.whole("batch_size", {1, 1024}, &choice.batch_size, "sequences generated at once");
}

Tokenizer open_tokenizer_at(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return Tokenizer::from_folder(path);
  return open_tokenizer(*open_model(path));
}

namespace {

std::filesystem::path fetched(const ModelChoice& choice) {
  Console console;
  return fetch_model(choice.model, choice.weights_cache_dir, console);
}

}  // namespace

ModelSession::ModelSession(const ModelChoice& choice)
    : choice_(choice),
      source_(open_model(fetched(choice))),
      tokenizer_(open_tokenizer(*source_)) {
  CHECK(tokenizer_.vocab_size() <= config().vocab_size, "{}: the tokenizer has {} ids, the model's embedding {} rows",
        source_->origin(), tokenizer_.vocab_size(), config().vocab_size);
}

ModelSession::~ModelSession() = default;

const ChatTemplate& ModelSession::chat_template() const {
  if (!chat_template_)
    chat_template_ = std::make_unique<ChatTemplate>(ChatTemplate::choose(choice_.chat_template, tokenizer_, choice_.template_date));
  return *chat_template_;
}

std::string ModelSession::device() const { return backend_ ? backend_->capabilities().device : ""; }

void ModelSession::load() {
  if (params_) return;
  backend_ = create_backend(choice_.device);
  stream_ = backend_->create_stream();
  const DType dtype = choice_.dtype == "f32" ? DType::f32 : DType::bf16;
  Arena none;
  const std::unique_ptr<Ops> ops = backend_->create_ops(*stream_, none);
  params_ = std::make_unique<LocalParamStore>(WeightTable(config()), dtype, nullptr, *ops, *backend_);
  // fp32 and fp16 checkpoints in a bf16 store: rounded to nearest even, as loading them in bf16 elsewhere does.
  load_weights(*source_, *params_, *backend_, *stream_, [&](const ParamSpec& spec, const float* values) {
    const Tensor weight = params_->weight(spec.index);
    std::vector<bf16> rounded(static_cast<std::size_t>(weight.numel()));
    for (std::size_t i = 0; i < rounded.size(); ++i) rounded[i] = to_bf16(values[i]);
    backend_->copy_to_device(weight.data, rounded.data(), weight.bytes(), *stream_);
    backend_->synchronize(*stream_);
  });
}

std::vector<Generation> ModelSession::generate(const std::vector<std::vector<std::int32_t>>& prompts,
                                               const GenerateOptions& options) {
  if (prompts.empty()) return {};
  const GeneratorLimits limits = limits_for(prompts, config(), choice_.batch_size, options.max_new_tokens);
  load();
  const Transformer transformer(config(), limits.max_len, *backend_, *stream_);
  Generator generator(*backend_, transformer, *params_, limits);
  auto results = generator.generate(prompts, options);
  times_ = generator.times();
  return results;
}

EvalResult ModelSession::loss(const BatchLoader& loader, Console& console) {
  load();
  LossEvaluator evaluator(*backend_, config(), *params_, BatchLimits::of(loader));
  const auto result = evaluate_rows(loader, [&](const HostBatch& batch) { return evaluator.evaluate(batch); }, console);
  console.finish();
  if (!result) throw Interrupted();
  return *result;
}

std::string speed_text(const GenerateTimes& times) {
  const auto rate = [](std::int64_t tokens, double seconds) {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
  };
  return fmt::format(
      "prompts: {} tokens in {:.1f} s ({:.0f} tokens/s); decoding: {} tokens in {:.1f} s ({:.0f} tokens/s)",
      times.prompt_tokens, times.prefill_seconds, rate(times.prompt_tokens, times.prefill_seconds),
      times.decoded_tokens, times.decode_seconds, rate(times.decoded_tokens, times.decode_seconds));
}

}  // namespace llmfp8
