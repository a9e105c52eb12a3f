// Engine: everything of a run that lives on the device (weights, gradients, FP8 state, optimizer, arena) and the two
// things it does: one optimizer step, one evaluation batch. Called by the trainer, by `llm-fp8 parity` and by the bench.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/batch_loader.h"
#include "dist/rank_reducer.h"
#include "hub/checkpoint_source.h"
#include "model/transformer.h"
#include "optim/optimizer.h"
#include "train/device_batch.h"

namespace llmfp8 {

struct EngineOptions {
  DType dtype = DType::bf16;           // of weights and activations: bf16 | f32
  RecipeKind recipe = RecipeKind::none;
  bool fp8_lm_head = false;
  Fp8Start fp8_start = Fp8Start::calibrate;
  DType grad_dtype = DType::f32;       // f32 | bf16
  Recompute recompute = Recompute::none;
  OptimizerConfig optimizer;
  DecayRule decay_rule = DecayRule::everything;
  std::uint64_t seed = 42;             // of stochastic rounding
  BatchLimits train_limits;            // capacities that train_step will see
  BatchLimits eval_limits;             // capacities that evaluate will see; empty: the engine only trains
};

struct StepResult {
  double loss = 0;                   // token mean of the optimizer step
  double grad_norm = 0;              // of its gradient, before clipping
  bool ok = false;                   // false: loss or gradient norm was not finite and nothing has changed
  std::int64_t num_tokens = 0;
  std::int64_t num_supervised = 0;
};

struct EvalResult {
  double loss_sum = 0;
  std::int64_t num_supervised = 0;
};

struct MemoryLine {
  std::string what;  // "weights", "activations and scratch", …
  std::size_t bytes = 0;
};

class Engine {
 public:
  // Allocates everything that a step will need; nothing is allocated later. Weights are zero until load().
  Engine(Backend& backend, const ModelConfig& config, const EngineOptions& options);
  ~Engine();

  // Every weight by its HF name. Throws Error: missing tensor, wrong shape (name, found, wanted).
  void load(const WeightSource& source);

  // How ranks agree; null (the start): this is the only one. It outlives the engine.
  void set_reducer(RankReducer* reducer) { reducer_ = reducer; }

  // One optimizer step over the micro-batches; each capacity is one of train_limits.
  StepResult train_step(std::span<const HostBatch> micro_batches, double learning_rate, double max_grad_norm);
  // Gradients alone, of the *sum* of token losses: grads() holds them. For parity and tests.
  StepResult gradients(std::span<const HostBatch> micro_batches);
  // Loss in high precision, whatever the recipe.
  EvalResult evaluate(const HostBatch& batch);

  std::int64_t steps_done() const { return steps_done_; }
  const ModelConfig& config() const { return transformer_.config(); }
  const EngineOptions& options() const { return options_; }
  Backend& backend() { return backend_; }
  Stream& stream() { return *stream_; }
  LocalParamStore& params() { return *params_; }
  const LocalParamStore& params() const { return *params_; }
  LocalGradTarget& grads() { return *grads_; }
  const Fp8State& fp8() const { return fp8_; }
  const Transformer& transformer() const { return transformer_; }
  AdamWOptimizer& optimizer() { return *optimizer_; }
  GemmLedger& ledger() { return ledger_; }   // of the training passes since it was cleared
  const Arena& arena() const { return *arena_; }
  Ops& ops() { return *ops_; }

  // What the device holds, by component; the last line is the arena.
  std::vector<MemoryLine> memory() const;

 private:
  bool calibrates() const;  // the first scales come from a micro-batch of its own
  void plan_memory();
  PassContext pass(Ops& ops, const Batch& batch, ActivationStore& activations, Numerics numerics);
  void run_micro_batches(std::span<const HostBatch> micro_batches);
  void calibrate(const HostBatch& micro_batch);
  void begin_scalars(double learning_rate, double max_grad_norm);
  void allow_update();  // step_ok = 1 for scales and codes that no step computes
  void finish_gradient(Ops& ops);
  void update(Ops& ops);
  void compute_gradients(std::span<const HostBatch> micro_batches, double learning_rate, double max_grad_norm);
  StepResult read_result(std::span<const HostBatch> micro_batches);

  Backend& backend_;
  EngineOptions options_;
  std::unique_ptr<Stream> stream_;
  Transformer transformer_;
  Fp8State fp8_;
  std::unique_ptr<Arena> arena_;   // planning first, then running
  Buffer arena_buffer_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<LocalParamStore> params_;
  std::unique_ptr<LocalGradTarget> grads_;
  std::unique_ptr<AdamWOptimizer> optimizer_;
  std::unique_ptr<DeviceBatch> train_batch_, eval_batch_;
  Buffer scalars_buffer_;
  StepScalars* scalars_ = nullptr;  // device
  GemmLedger ledger_;
  RankReducer* reducer_ = nullptr;
  bool calibrated_ = false;
  std::int64_t steps_done_ = 0;
};

}  // namespace llmfp8
