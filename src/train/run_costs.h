// What a run pays beside its steps: logging every step, and a checkpoint that is written while training goes on. Called by
// benchmark.
#pragma once

#include <cstdint>
#include <filesystem>

#include "report/metrics.h"
#include "train/benchmark_steps.h"

namespace llmfp8 {

struct RunCosts {
  // Every value of a step into every sink, after each step.
  std::int64_t logged_steps = 0;
  double log_ms = 0;               // of the training thread, a step; an upper bound of what a device that works by itself waits
  double plain_step_ms = 0;        // means of blocks of steps in turn
  double logged_step_ms = 0;
  double difference_error_ms = 0;  // standard error of logged_step_ms - plain_step_ms, from the blocks' pairs
  // One checkpoint.
  std::size_t checkpoint_bytes = 0;
  bool is_beside_training = false;  // else the host's memory did not hold the copies, and training waited for the files
  double copy_seconds = 0;          // training waited for
  double stall_ms = 0;              // what the steps around the save took beyond the copy and their own time
  double write_seconds = 0;         // until the files were written, read back and renamed
  std::int64_t steps_beside = 0;    // done meanwhile
  double beside_step_ms = 0;        // mean of them
};

// steps: in each of the two halves of the logging's measurement. folder: holds the checkpoint meanwhile; empty afterwards.
// Throws Error where the checkpoint cannot be written.
RunCosts measure_run_costs(Engine& engine, BenchmarkSteps& steps, std::int64_t count, Metrics& metrics, const std::filesystem::path& folder);

}  // namespace llmfp8
