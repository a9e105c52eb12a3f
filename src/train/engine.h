// Engine: everything of a run that lives on the device (weights, gradients, FP8 state, optimizer, arena) and the two
// things it does: one optimizer step, one evaluation batch. Steps can be enqueued ahead of their results. Called by the
// trainer, by `llm-fp8 parity` and by the bench.
#pragma once

#include <deque>
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
#include "train/evaluation.h"
#include "train/param_update.h"
#include "train/shadow_check.h"
#include "train/step_graphs.h"

namespace llmfp8 {

// The command's flags as advice about memory names them; empty: it has none.
struct CommandFlags {
  std::string batch_size, accumulation, length, eval_batch_size, precision;
};

// How a step is given to the device. The bits are the same.
enum class StepSchedule : std::uint8_t {
  automatic,  // graphs where the device has them
  in_order,   // an operation at a time
  overlapped, // so too, AdamW on a stream of its own under the next step's forward pass
  graphs      // micro-steps and the optimizer's part as graphs (step_graphs.h)
};

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
  StepSchedule schedule = StepSchedule::automatic;
  bool shadow_check = false;           // memory for shadow() is there; no effect where the recipe quantises nothing
  BatchLimits train_limits;            // capacities that train_step will see
  BatchLimits eval_limits;             // capacities that evaluate will see; empty: the engine only trains
  CommandFlags flags;
};

struct StepResult {
  double loss = 0;                   // token mean of the optimizer step
  double grad_norm = 0;              // of its gradient, before clipping
  bool ok = false;                   // false: nothing has changed, for it was halted or has no supervised token
  bool halted = false;               // its loss or gradient norm was not finite, or that of a step before it in flight
  std::int64_t num_tokens = 0;
  std::int64_t num_positions = 0;    // that were computed: num_tokens and what fills the batches' capacities
  std::int64_t num_supervised = 0;
  std::int64_t num_pairs = 0;        // HostBatch::causal_pairs
};

// What an engine counts on the host and has to know again after a resume.
struct EngineCounters {
  std::int64_t steps_done = 0;
  bool calibrated = false;  // the amax histories have been filled
};

struct MemoryLine {
  std::string what;  // "weights", "activations and scratch", …
  std::size_t bytes = 0;
};

class Engine {
 public:
  // Allocates everything that a step will need; nothing is allocated later. Weights are zero until load(). Throws
  // OutOfMemory with the flags that help.
  Engine(Backend& backend, const ModelConfig& config, const EngineOptions& options);
  ~Engine();

  // Every weight by its HF name. Throws Error: missing tensor, wrong shape (name, found, wanted).
  void load(const WeightSource& source);
  // Random weights of a fresh model, for looking at speed: matrices normal with deviation 0.02, norms 1.
  void load_random(std::uint64_t seed);

  // Everything on the device that outlives a step, by its checkpoint name: "weight.<param>", the optimizer's,
  // "fp8.amax", "fp8.history", "fp8.scale", "fp8.scale_inv" (f32). What follows from these (the weights' codes) is not
  // among them. No step is in flight where they are read or written.
  std::vector<NamedTensor> state_tensors() const;
  EngineCounters counters() const { return {steps_done_, calibrated_}; }
  // After the state tensors have been written: the next step is the one after counters.steps_done.
  void resume(const EngineCounters& counters);

  // How ranks agree; null (the start): this is the only one. It outlives the engine.
  void set_reducer(RankReducer* reducer) { reducer_ = reducer; }

  // Enqueues one optimizer step over the micro-batches, each capacity one of train_limits, and does not wait for it;
  // at most kStepsInFlight are under way at once. After a step that was not finite, those behind it
  // change nothing and are not ok either, until every result has been asked for.
  static constexpr std::size_t kStepsInFlight = 2;
  void enqueue_step(std::span<const HostBatch> micro_batches, double learning_rate, double max_grad_norm);
  // Steps whose result has not been asked for.
  std::size_t steps_in_flight() const { return in_flight_.size(); }
  // Waits for the oldest of them.
  StepResult next_result();
  // Compares a step's first micro-batch with bf16 where it was asked to before the step, and changes no bit of the step.
  // Null without EngineOptions::shadow_check.
  ShadowCheck* shadow() { return shadow_.get(); }
  // What stream() is given from now on finds the weights that the step enqueued last leaves. Also without: once every
  // result has been asked for.
  void join_update() { update_->wait_all(*stream_); }
  // Both in one; no step is in flight.
  StepResult train_step(std::span<const HostBatch> micro_batches, double learning_rate, double max_grad_norm);
  // Gradients alone, of the *sum* of token losses: grads() holds them. For parity and tests.
  StepResult gradients(std::span<const HostBatch> micro_batches);
  // Loss in high precision, whatever the recipe.
  EvalResult evaluate(const HostBatch& batch);

  std::int64_t steps_done() const { return steps_done_; }  // of those whose result is known and ok
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
  void quantize_loaded_weights();
  bool calibrates() const;  // the first scales come from a micro-batch of its own
  void allocate();
  void plan_memory(Arena& planning);
  PassContext pass(Ops& ops, const Batch& batch, ActivationStore& activations, Numerics numerics);
  void run_micro_batches(std::span<const HostBatch> micro_batches);
  void micro_step(const Batch& batch);
  void enqueue_micro_step(const Batch& batch, GemmLedger& ledger);
  void optimizer_step();
  void enqueue_optimizer_step();
  bool uses_graphs() const;
  void shadow_passes(const HostBatch& micro_batch);
  void calibrate(const HostBatch& micro_batch);
  void begin_scalars(double learning_rate, double max_grad_norm);
  void allow_update();  // step_ok = 1 for scales and codes that no step computes
  void finish_gradient(Ops& ops);
  void update(Ops& ops);
  void compute_gradients(std::span<const HostBatch> micro_batches, double learning_rate, double max_grad_norm);
  void read_scalars(std::span<const HostBatch> micro_batches);
  void send_scalars(const StepScalars& host, std::size_t bytes);

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
  std::unique_ptr<ParamUpdate> update_;
  std::unique_ptr<UpdatedParams> updated_params_;
  std::unique_ptr<DeviceBatch> train_batch_, eval_batch_;
  std::unique_ptr<ShadowCheck> shadow_;
  std::unique_ptr<StepGraphs> graphs_;
  Buffer scalars_buffer_;
  StepScalars* scalars_ = nullptr;  // device
  HostRing scalars_out_, scalars_in_;
  struct InFlight {
    std::size_t block = 0;  // of scalars_in_
    std::int64_t num_tokens = 0;
    std::int64_t num_positions = 0;
    std::int64_t num_pairs = 0;
  };
  std::deque<InFlight> in_flight_;
  bool halted_ = false;             // the device's StepScalars::halted is set and every result has been asked for
  GemmLedger ledger_;
  RankReducer* reducer_ = nullptr;
  bool calibrated_ = false;
  std::int64_t steps_done_ = 0;
  std::int64_t steps_enqueued_ = 0;  // AdamW's t of the step enqueued last
};

}  // namespace llmfp8
