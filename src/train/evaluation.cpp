#include "train/evaluation.h"

#include "train/interrupt.h"

namespace llmfp8 {

void evaluate_batch(const Transformer& transformer, Ops& ops, const Batch& batch, ParamStore& params, std::size_t logits_bytes,
                    StepScalars* scalars) {
  const int layers = static_cast<int>(transformer.config().num_hidden_layers);
  ActivationStore activations(ops.arena(), layers, Recompute::none, PassKind::forward_only);
  transformer.evaluate({ops, batch, params, activations, nullptr, Numerics::high_precision, nullptr, logits_bytes}, scalars);
}

std::string evaluation_phase(const Batch& batch) { return phase_of_batch("evaluation", batch); }

std::optional<EvalResult> evaluate_rows(const BatchLoader& loader, const std::function<EvalResult(const HostBatch&)>& evaluate,
                                        Console& console) {
  const std::int64_t steps = loader.steps_per_epoch();
  EvalResult total;
  for (std::int64_t s = 0; s < steps; ++s) {
    if (interrupted()) return std::nullopt;
    const EvalResult one = evaluate(loader.load(0, s, 0));
    total.loss_sum += one.loss_sum;
    total.num_supervised += one.num_supervised;
    Progress progress;
    progress.step = s + 1;
    progress.total_steps = steps;
    progress.what = "evaluation batch";
    console.update(progress);
  }
  CHECK(total.num_supervised > 0, "the held-out rows have no supervised token");
  return total;
}

LossEvaluator::LossEvaluator(Backend& backend, const ModelConfig& config, ParamStore& params, const BatchLimits& limits)
    : backend_(backend),
      params_(params),
      stream_(backend.create_stream()),
      transformer_(config, limits.max_doc_tokens, backend, *stream_),
      batch_(limits, backend),
      scalars_buffer_(backend.allocate(sizeof(StepScalars), "evaluation sums")),
      scalars_(static_cast<StepScalars*>(scalars_buffer_.data())),
      planned_(backend, *stream_, "activations of an evaluation batch", [this](Ops& ops) {
        for (const Batch& batch : batch_.kinds()) run(ops, batch);
      }) {}

void LossEvaluator::run(Ops& ops, const Batch& batch) {
  ops.arena().begin_phase(evaluation_phase(batch));
  evaluate_batch(transformer_, ops, batch, params_, backend_.capabilities().logits_bytes, scalars_);
  ops.arena().end_phase();
}

EvalResult LossEvaluator::evaluate(const HostBatch& host) {
  const StepScalars zero;
  backend_.copy_to_device(scalars_, &zero, sizeof(zero), *stream_);
  run(planned_.ops(), batch_.upload(host, *stream_));
  StepScalars sums;
  backend_.copy_to_host(&sums, scalars_, sizeof(sums), *stream_);
  backend_.synchronize(*stream_);
  return {sums.loss_sum, sums.num_supervised};
}

}  // namespace llmfp8
