// Folders of runs, written as the trainer writes them, for the tests of the report.
#pragma once

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include <nlohmann/json.hpp>

#include "report/metrics.h"

namespace llmfp8::testing {

struct FakeRun {
  std::string precision = "bf16";
  int steps = 100;
  double loss_offset = 0;  // on every loss
  double tokens_per_second = 1000;
  double memory_mb = 100;
  std::string name = {};  // --wandb_run_name
  int batch_size = 8;

  // Loss 5 / (1 + step / 20) + loss_offset, an evaluation at the end.
  std::filesystem::path write(const std::filesystem::path& folder) const {
    std::filesystem::create_directories(folder);
    using Json = nlohmann::ordered_json;
    const auto flag = [](const Json& value, const char* from) { return Json{{"value", value}, {"from", from}}; };
    Json run = {{"state", "finished"},
                {"program", "train_fp8"},
                {"started", 1700000000.0},
                {"versions", {{"llm-fp8", "0.1.0"}}},
                {"device", "cpu: test"},
                {"precision", precision},
                {"fallback", ""},
                {"notes", Json::array({"a note"})},
                {"recipe_that_ran",
                 {{"qkv", {{"fprop", precision}, {"dgrad", "bf16"}, {"wgrad", "bf16"}}}, {"fp8_flop_share", 0.75}}},
                {"parameters", 1000},
                {"rows", {{"train", 90}, {"held_out", 10}}},
                {"steps", {{"done", steps}, {"total", steps}}},
                {"memory_bytes", {{"weights", memory_mb * 0.25e6}, {"activations", memory_mb * 0.75e6}}}};
    run["flags"] = {{"model_name", flag("tiny", "command line")},
                    {"mixed_precision", flag(precision == "bf16" ? "bf16" : "fp8", "command line")},
                    {"batch_size", flag(batch_size, "default")},
                    {"seed", flag(42, "default")},
                    {"wandb_run_name", flag(name, "default")}};
    std::ofstream(folder / "run.json") << run.dump(2, ' ', false, Json::error_handler_t::replace);
    std::ofstream metrics(folder / "metrics.jsonl");
    for (int step = 1; step <= steps; ++step) {
      const Json record = {{"step", step},
                           {"time", 1700000000.0 + step},
                           {"Train/Loss", 5.0 / (1.0 + step / 20.0) + loss_offset},
                           {"Train/LearningRate", 1e-3 * step},
                           {"Train/GradNorm", 1.0},
                           {"Train/TimePerStep_ms", 500.0},
                           {"Train/TokensPerSecond", tokens_per_second},
                           {"Train/GPU_Memory_MB", memory_mb}};
      metrics << record.dump() << "\n";
    }
    metrics << Json{{"step", steps}, {"time", 1700000000.0 + steps}, {"Eval/Loss", 2.0 + loss_offset}}.dump() << "\n";
    metrics << Json{{"step", steps}, {"time", 1700000000.0 + steps}, {"precision", precision}}.dump() << "\n";
    const Json summary = {{"stability_report/loss/mean", 1.25},
                          {"stability_report/gradient_norm/mean", 0.5},
                          {"stability_report/loss/normality_p_value", "NaN"},
                          {"tokens", 500.0 * steps},
                          {"tokens_per_second", tokens_per_second},
                          {"train_seconds", steps * 0.5},
                          {"precision", precision}};
    std::ofstream(folder / "summary.json") << summary.dump(2);
    return folder;
  }
};

inline void append_to(const std::filesystem::path& file, const std::string& text) {
  std::ofstream(file, std::ios::app) << text;
}

}  // namespace llmfp8::testing
