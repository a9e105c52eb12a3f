#include "train/dry_run.h"

#include <algorithm>
#include <chrono>

#include "data/step_prefetcher.h"
#include "report/console.h"
#include "report/text_table.h"
#include "train/interrupt.h"

namespace llmfp8 {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

}  // namespace

MeasuredRun measure_run(Engine& engine, const DryRun& run) {
  MeasuredRun measured;
  const std::int64_t steps = std::min<std::int64_t>(2, run.train.steps_per_epoch());
  StepPrefetcher ahead(run.train, 0, 0, steps);
  for (std::int64_t s = 0; s < steps; ++s) {
    throw_if_interrupted();
    const std::vector<HostBatch> micro_batches = ahead.next();
    const Clock::time_point begin = Clock::now();
    const StepResult result = engine.train_step(micro_batches, 0.0, run.max_grad_norm);
    measured.step_seconds = seconds_since(begin);
    measured.step_tokens = result.num_tokens;
    if (s > 0) continue;
    CHECK(result.ok || result.num_supervised == 0, "the loss or gradient norm of the first step is not finite (are the weights finite?)");
    measured.first_loss = result.loss;
  }
  if (run.eval != nullptr) {
    const Clock::time_point begin = Clock::now();
    engine.evaluate(run.eval->load(0, 0, 0));
    measured.eval_seconds = seconds_since(begin) * static_cast<double>(run.eval->steps_per_epoch());
  }
  measured.total_seconds = measured.step_seconds * static_cast<double>(run.total_steps) +
                           measured.eval_seconds * static_cast<double>(run.evaluations);
  return measured;
}

std::string describe(const MeasuredRun& measured, const DryRun& run) {
  std::string text = fmt::format("{} step{} of {:.3g} s ({:.0f} tokens/s, measured on one step)", run.total_steps,
                                 run.total_steps == 1 ? "" : "s", measured.step_seconds,
                                 static_cast<double>(measured.step_tokens) / measured.step_seconds);
  if (run.eval != nullptr && run.evaluations > 0) {
    text += fmt::format(", {} evaluation{} of about {}", run.evaluations, run.evaluations == 1 ? "" : "s", duration_text(measured.eval_seconds));
  }
  return text + fmt::format(": about {} without saving; loss of the model as given {:.4f}", duration_text(measured.total_seconds),
                            measured.first_loss);
}

std::string describe(const std::vector<PreflightCheck>& checks) {
  TextTable table({{"check", Align::left}, {"", Align::left}, {"found", Align::left}});
  for (const PreflightCheck& check : checks) table.add_row({check.what, check.warns ? "look" : "ok", check.found});
  return table.text(TableStyle::plain);
}

}  // namespace llmfp8
