// The loss of a model over rows, in high precision whatever the recipe. Engine and Trainer evaluate with it during a run;
// LossEvaluator does the same for `llm-fp8 eval`, without the memory that training needs.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "backend/plan/planned_ops.h"
#include "data/batch_loader.h"
#include "model/transformer.h"
#include "report/console.h"
#include "train/device_batch.h"

namespace llmfp8 {

struct EvalResult {
  double loss_sum = 0;
  std::int64_t num_supervised = 0;

  double loss() const { return loss_sum / static_cast<double>(num_supervised); }  // NaN where nothing is supervised
};

// The forward pass of one batch, planned or run: the sum of its token losses and their number come to `scalars` (device).
void evaluate_batch(const Transformer& transformer, Ops& ops, const Batch& batch, ParamStore& params, std::size_t logits_bytes,
                    StepScalars* scalars);

// The name of such a batch's phase in the arena.
std::string evaluation_phase(const Batch& batch);

// Every batch of the loader in order. Nothing where a signal asks to stop: the mean of a part would look like the whole.
// Throws Error where no token is supervised.
std::optional<EvalResult> evaluate_rows(const BatchLoader& loader, const std::function<EvalResult(const HostBatch&)>& evaluate,
                                        Console& console);

class LossEvaluator {
 public:
  // backend and params outlive it. Allocates all that batches within these limits need; throws OutOfMemory.
  LossEvaluator(Backend& backend, const ModelConfig& config, ParamStore& params, const BatchLimits& limits);

  EvalResult evaluate(const HostBatch& batch);

 private:
  void run(Ops& ops, const Batch& batch);

  Backend& backend_;
  ParamStore& params_;
  std::unique_ptr<Stream> stream_;
  Transformer transformer_;
  DeviceBatch batch_;
  Buffer scalars_buffer_;
  StepScalars* scalars_ = nullptr;  // device
  PlannedOps planned_;
};

}  // namespace llmfp8
