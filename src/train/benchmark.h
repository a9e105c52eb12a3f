// How fast a model of a given shape trains here: whole steps of the real engine over the real batch loader, with random
// weights and tokens, their split by kind of work, and what this device would need for the same work at its own measured
// rates. Called by `llm-fp8 bench`.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "train/engine.h"
#include "train/op_clock.h"
#include "train/run_costs.h"

namespace llmfp8 {

struct BenchmarkOptions {
  ModelConfig model;
  EngineOptions engine;                // train_limits are set from the batches
  std::int64_t batch_size = 8;         // rows of a micro-batch
  std::int64_t accumulation = 1;
  std::int64_t steps = 10;             // timed, after kBenchmarkWarmUp others
  std::vector<std::int64_t> lengths;   // of rows, in turn
  bool packing = false;                // micro-batches of batch_size * longest tokens instead of batch_size rows
  // Where what a run pays beside its steps is measured too: what logging goes to, and an empty folder for a checkpoint.
  Metrics* metrics = nullptr;
  std::filesystem::path checkpoint_folder;
};

inline constexpr std::int64_t kBenchmarkWarmUp = 3;

enum class WorkKind : std::uint8_t { gemm, attention, elementwise, head, optimizer, idle, count };
std::string_view name(WorkKind kind);
inline constexpr auto kWorkKinds = static_cast<std::size_t>(WorkKind::count);

// One product of the model, alone: the same operands again and again.
struct ProductRate {
  OpInfo info;
  std::int64_t calls = 0;         // in a step
  double in_step_ms = 0;          // mean of a call
  double alone_ms = 0;            // least of a call
};

struct BenchmarkResult {
  double step_ms = 0;             // mean of the timed steps
  double tokens_per_second = 0;   // of the tokens that exist
  double tokens_a_step = 0;
  double padding_share = 0;       // of the positions computed
  double loss = 0;                // of the last step
  double fp8_share = 0;           // of the products' operations
  double start_seconds = 0;       // from nothing to the end of the first step
  std::vector<MemoryLine> memory;
  std::optional<RunCosts> costs;  // where they were asked for
  // One step with a clock around every operation.
  double clocked_step_ms = 0;
  double split_ms[kWorkKinds] = {};
  std::vector<TimedOp> ops;
  // What this device can do, measured in the same run.
  double copy_bytes_per_second = 0;  // read plus written
  std::vector<ProductRate> products;
  double budget_ms[kWorkKinds] = {}; // products, head, attention (of one micro-batch): alone; the rest: bytes over the copy rate
};

BenchmarkResult run_benchmark(Backend& backend, const BenchmarkOptions& options);

// Fewest bytes that an operation moves through device memory: inputs read once, outputs written once. 0 where the
// operation is not bound by memory. activation_bytes: of an activation; a quantised matrix is written in both layouts.
double least_bytes(const OpInfo& info, const EngineOptions& options);

}  // namespace llmfp8
