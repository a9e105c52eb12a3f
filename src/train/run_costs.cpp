#include "train/run_costs.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/clock.h"
#include "core/error.h"
#include "core/host_memory.h"
#include "params/export.h"
#include "report/metric_names.h"
#include "train/checkpoint_saver.h"

namespace llmfp8 {
namespace {

constexpr std::int64_t kBlocks = 8;        // of each kind
constexpr std::int64_t kStepsAround = 4;   // behind a save: in them a stall would show

// As many values as a step of train_fp8 logs.
void log_like_training(Metrics& metrics, std::int64_t step, const StepResult& result) {
  const MetricNames& n = kTrainFp8Names;
  const double value = result.loss;
  metrics.log(step, {{n.loss, value}, {n.perplexity, value}, {n.learning_rate, 1e-5}, {n.grad_norm, result.grad_norm}, {n.progress, value},
                     {n.step_time_s, value}, {n.time_per_step_ms, value}, {n.gpu_memory_mb, value}, {n.tokens_per_second, value},
                     {n.supervised_tokens_per_second, value}, {n.useful_share, value}, {n.eta_s, value}, {n.utilisation, value},
                     {n.fp8_gemm_share, value}, {n.stability_loss, value}, {n.stability_gradient_norm, result.grad_norm},
                     {n.stability_learning_rate, value}});
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

void measure_logging(BenchmarkSteps& steps, std::int64_t count, Metrics& metrics, RunCosts& costs) {
  const std::int64_t block = std::max<std::int64_t>(2, count / kBlocks);
  double seconds_in_log = 0;
  std::vector<double> plain, logged, differences;
  for (std::int64_t b = 0; b < kBlocks; ++b) {
    plain.push_back(1e3 * steps.run(block) / static_cast<double>(block));
    const double with = steps.run(block, [&](const StepResult& result) {
      const double start = now_seconds();
      log_like_training(metrics, ++costs.logged_steps, result);
      seconds_in_log += now_seconds() - start;
    });
    logged.push_back(1e3 * with / static_cast<double>(block));
    differences.push_back(logged.back() - plain.back());
  }
  costs.log_ms = 1e3 * seconds_in_log / static_cast<double>(costs.logged_steps);
  costs.plain_step_ms = mean(plain);
  costs.logged_step_ms = mean(logged);
  double squares = 0;
  for (const double d : differences) squares += (d - mean(differences)) * (d - mean(differences));
  costs.difference_error_ms = std::sqrt(squares / static_cast<double>(kBlocks * (kBlocks - 1)));
}

void measure_checkpoint(Engine& engine, BenchmarkSteps& steps, const std::filesystem::path& folder, RunCosts& costs) {
  const ExportSpec model = ExportSpec::of(engine.params().table(), engine.options().dtype);
  costs.checkpoint_bytes = checkpoint_bytes({&model, &engine.params(), tensors_beside_model(engine, model), {}});
  ModelSnapshots snapshots(folder, 1, ModelSnapshots::Earlier::keep, {});
  SaverOptions options;
  options.host_bytes = [] { return available_host_bytes(); };
  CheckpointSaver saver(engine, model, snapshots, options);
  // The pipe fills and empties in the measure as it does around the save.
  const double around = steps.run(kStepsAround);
  const double start = now_seconds();
  saver.save(steps.steps_done(), nlohmann::ordered_json::object());
  const double saved = now_seconds();
  costs.copy_seconds = saved - start;
  costs.stall_ms = 1e3 * (steps.run(kStepsAround) - around);
  costs.is_beside_training = !saver.waited_for_files();
  if (costs.is_beside_training) {
    const double begin = now_seconds();
    costs.steps_beside = steps.run_until([&] { return saver.is_idle(); });
    costs.beside_step_ms = 1e3 * (now_seconds() - begin) / static_cast<double>(costs.steps_beside);
  }
  saver.wait();
  costs.write_seconds = now_seconds() - saved;
  CHECK(saver.failed().empty(), "bench: the checkpoint could not be written into {}", folder.string());
}

}  // namespace

RunCosts measure_run_costs(Engine& engine, BenchmarkSteps& steps, std::int64_t count, Metrics& metrics, const std::filesystem::path& folder) {
  RunCosts costs;
  measure_logging(steps, count, metrics, costs);
  measure_checkpoint(engine, steps, folder, costs);
  return costs;
}

}  // namespace llmfp8
