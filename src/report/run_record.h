// A run as its folder tells it: run.json, metrics.jsonl, health.jsonl and summary.json, read back for the report and the list of runs.
// Called by `llm-fp8 report` and `llm-fp8 runs`.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "report/metric_names.h"
#include "report/run_health.h"

namespace llmfp8 {

// A curve that the report knows, in the order of the page. The same curve has several names: a style each (metric_names.h).
struct SeriesSpec {
  struct Logged {
    std::string_view name;
    double factor;  // what is logged, times factor, is in `unit`
  };
  std::string_view id, title, unit;
  std::array<Logged, 2> logged;
};

inline constexpr SeriesSpec kSeriesSpecs[] = {
    {"loss", "Training loss", "", {{{kTrainFp8Names.loss, 1}, {kTrainMultiGpuNames.loss, 1}}}},
    {"eval_loss", "Evaluation loss", "", {{{kTrainFp8Names.eval_loss, 1}, {kTrainMultiGpuNames.eval_loss, 1}}}},
    {"accuracy", "Accuracy", "", {{{kTrainFp8Names.eval_accuracy, 1}, {kTrainMultiGpuNames.eval_accuracy, 1}}}},
    {"learning_rate",
     "Learning rate",
     "",
     {{{kTrainFp8Names.learning_rate, 1}, {kTrainMultiGpuNames.learning_rate, 1}}}},
    {"grad_norm", "Gradient norm", "", {{{kTrainFp8Names.grad_norm, 1}, {kTrainMultiGpuNames.grad_norm, 1}}}},
    {"tokens_per_second",
     "Throughput",
     "tokens/s",
     {{{kTrainFp8Names.tokens_per_second, 1}, {kTrainMultiGpuNames.tokens_per_second, 1}}}},
    {"utilisation", "Utilisation", "", {{{kTrainFp8Names.utilisation, 1}, {kTrainMultiGpuNames.utilisation, 1}}}},
    {"weights_changed", "Weights changed by a step", "", {{{"health/weights_changed", 1}, {"health/weights_changed", 1}}}},
    {"shadow_loss", "Loss less bf16's", "", {{{"shadow/loss_difference", 1}, {"shadow/loss_difference", 1}}}},
    {"shadow_cosine",
     "Cosine of the gradient with bf16's",
     "",
     {{{"shadow/gradient_cosine", 1}, {"shadow/gradient_cosine", 1}}}},
    {"memory", "Memory", "MB", {{{kTrainFp8Names.gpu_memory_mb, 1}, {kTrainMultiGpuNames.gpu_memory_gb, 1000}}}},
};

struct RunFlag {
  std::string name, value, from;  // from: "default", "command line", a file
};

struct RunRecord {
  std::filesystem::path folder;
  std::string name;  // --wandb_run_name where one was given, else the folder's
  std::string state, program, model, precision, fallback, device, version;
  std::string error;                          // that ended it; "": none
  std::string model_commit, dataset_commit;   // "org/name at commit …"; "": not from the hub, or not known
  std::vector<std::string> remarks;     // of the run: its notes
  std::vector<std::string> left_out;    // of its files: what could not be read and was left out
  std::int64_t steps_done = 0;          // by the records where they know better than run.json
  std::int64_t steps_total = 0;         // 0: not known
  std::int64_t parameters = 0;          // 0: not known
  double started = kUnknown;            // seconds since 1970; the first record where run.json has none
  double memory_bytes = kUnknown;       // planned, of the whole run
  double tokens_per_second = kUnknown;  // over the whole run
  double train_seconds = kUnknown;      // in steps alone
  double tokens = kUnknown;

  std::map<std::string, SeriesPoints, std::less<>> series;  // by SeriesSpec::id; absent: never logged
  // By module ("self_attn.q_proj"): the cosine of its gradient with bf16's, over all layers; empty: never compared.
  std::map<std::string, SeriesPoints, std::less<>> shadow_cosine;
  RunHealth health;                                         // of its FP8 matrices; empty: never looked at

  std::vector<std::pair<std::string, std::int64_t>> rows;  // "train", "held_out" …
  std::vector<std::pair<std::string, double>> memory;      // bytes of each part
  std::vector<RunFlag> flags;
  nlohmann::ordered_json recipe_that_ran = nlohmann::ordered_json::object();  // product → pass → format
  // stability[series][statistic], "loss" → "mean" → 1.38
  std::map<std::string, std::map<std::string, double>> stability;

  // Null where the run has not logged it.
  const SeriesPoints* find(std::string_view id) const;
  // The last finite value; NaN where there is none.
  double last(std::string_view id) const;
  // "" where the run has no such flag.
  std::string flag(std::string_view name) const;
};

// Throws Error, one line, where `folder` is no run's: missing, without a run.json, or with a file that is not JSON. A line
// of metrics.jsonl that is broken (the last one, of a run that was killed) is left out and named in left_out.
RunRecord read_run(const std::filesystem::path& folder);

// Whether a folder looks like a run's, broken or not.
bool is_run_folder(const std::filesystem::path& folder);

}  // namespace llmfp8
