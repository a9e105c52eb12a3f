// What --use_wandb means for a run: its name, tags and configuration at W&B. Called by run_training and llm-fp8 wandb-sync.
#pragma once

#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

#include "core/run_config.h"
#include "report/wandb_sink.h"

namespace llmfp8 {

// A new run. gpus: how many the run trains on, 0 on the CPU. Its id is WANDB_RUN_ID where that is set.
WandbRun new_wandb_run(const RunConfig& config, int gpus);

// The run that earlier_run_json (a run.json) describes, so that it is continued; `fresh` where it describes none.
WandbRun continued_wandb_run(const nlohmann::ordered_json& earlier_run_json, WandbRun fresh);

// flags: as in run.json. folder: receives the SDK's files and its log. output_dir: the run's, with metrics.jsonl.
// Throws a usage Error for a LLMFP8_WANDB_WAIT that is no number of seconds.
WandbOptions wandb_options(WandbRun run, const nlohmann::ordered_json& flags, const std::filesystem::path& output_dir,
                           const std::filesystem::path& folder);

}  // namespace llmfp8
