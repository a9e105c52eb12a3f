// --dry_run: everything that can be said of a run without making it. Called by the trainer once all is open.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/batch_loader.h"
#include "train/engine.h"
#include "train/preflight.h"

namespace llmfp8 {

struct DryRun {
  const BatchLoader& train;
  const BatchLoader* eval = nullptr;  // null: the run does not evaluate
  std::int64_t total_steps = 0;
  std::int64_t evaluations = 0;       // of all held-out rows, in the run
  double max_grad_norm = 0;
};

// What two steps with learning rate 0 tell; the second is measured, for the first one settles choices and calibrates.
struct MeasuredRun {
  double first_loss = 0;          // of the model as it is given
  double step_seconds = 0;
  std::int64_t step_tokens = 0;
  double eval_seconds = 0;        // one evaluation of all held-out rows, from one batch
  double total_seconds = 0;       // steps and evaluations; saving is not in it
};

// The engine is of no use for training afterwards: its moments have seen two gradients.
MeasuredRun measure_run(Engine& engine, const DryRun& run);

// For the user, some lines.
std::string describe(const MeasuredRun& measured, const DryRun& run);
std::string describe(const std::vector<PreflightCheck>& checks);

}  // namespace llmfp8
