#include "train/engine.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

#include "backend/plan/plan_ops.h"
#include "params/load.h"
#include "train/memory_advice.h"

namespace llmfp8 {
namespace {

// Calibration has a plan of its own: products that are scaled just in time fuse less and take other scratch.
std::string micro_step_phase(const Batch& batch, bool calibrating) {
  return phase_of_batch(calibrating ? "calibration" : "micro-step", batch);
}
// The shadow check's pass in bf16. It keeps the least whatever the run keeps, so that it adds little to the arena, if
// anything: its activations are twice as large as FP8's.
std::string shadow_phase(const Batch& batch) { return phase_of_batch("micro-step in bf16", batch); }
constexpr Recompute kShadowRecompute = Recompute::block;

std::string largest_phase(const ArenaPlan& plan) {
  const auto largest = std::max_element(plan.phases.begin(), plan.phases.end(), [](const auto& a, const auto& b) {
    return a.second.peak_bytes < b.second.peak_bytes;
  });
  return largest == plan.phases.end() ? "" : largest->first;
}
const std::string kOptimizerPhase = "optimizer step";
const std::string kLoadPhase = "weights in FP8";

std::vector<OptimizedParam> optimized_params(const LocalParamStore& params, DecayRule rule) {
  std::vector<OptimizedParam> list;
  for (const ParamSpec& spec : params.table().params()) {
    const bool decay = rule == DecayRule::everything || !spec.is_bias_or_norm;
    list.push_back({spec.name, params.weight(spec.index), decay, static_cast<std::uint32_t>(spec.index)});
  }
  return list;
}

// A phase of the arena that is abandoned when an exception passes, so that the engine can be used again.
class Phase {
 public:
  Phase(Arena& arena, const std::string& name) : arena_(arena) { arena_.begin_phase(name); }
  ~Phase() {
    if (!done_) arena_.abandon_phase();
  }
  void end() {
    arena_.end_phase();
    done_ = true;
  }
  void abandon() {
    arena_.abandon_phase();
    done_ = true;
  }

 private:
  Arena& arena_;
  bool done_ = false;
};

}  // namespace

Engine::Engine(Backend& backend, const ModelConfig& config, const EngineOptions& options)
    : backend_(backend),
      options_(options),
      stream_(backend.create_stream()),
      transformer_(config, std::max(options.train_limits.max_doc_tokens, options.eval_limits.max_doc_tokens), backend, *stream_),
      fp8_(Recipe(options.recipe, options.fp8_lm_head), static_cast<int>(config.num_hidden_layers), backend, *stream_),
      scalars_out_(backend, sizeof(StepScalars), 2 * static_cast<int>(kStepsInFlight) + 4, "step scalars to the device"),
      scalars_in_(backend, sizeof(StepScalars), static_cast<int>(kStepsInFlight) + 1, "step scalars to the host"),
      ledger_(static_cast<int>(config.num_hidden_layers)) {
  Arena planning;
  try {
    allocate();
    plan_memory(planning);
  } catch (const OutOfMemory& error) {
    throw with_advice(error, options_, memory(), largest_phase(planning.plan()));
  }
}

void Engine::allocate() {
  Arena none;
  const std::unique_ptr<Ops> shapes = backend_.create_ops(*stream_, none);
  const WeightTable table(config());
  params_ = std::make_unique<LocalParamStore>(table, options_.dtype, &fp8_, *shapes, backend_);
  grads_ = std::make_unique<LocalGradTarget>(table, options_.grad_dtype, backend_);
  optimizer_ = std::make_unique<AdamWOptimizer>(backend_, optimized_params(*params_, options_.decay_rule), options_.optimizer);
  train_batch_ = std::make_unique<DeviceBatch>(options_.train_limits, backend_);
  if (!options_.eval_limits.empty()) eval_batch_ = std::make_unique<DeviceBatch>(options_.eval_limits, backend_);
  if (options_.shadow_check && fp8_.enabled()) shadow_ = std::make_unique<ShadowCheck>(params_->table(), backend_, *stream_);
  update_ = std::make_unique<ParamUpdate>(UpdateParts{backend_, *params_, *grads_, *optimizer_});
  updated_params_ = std::make_unique<UpdatedParams>(*params_, *update_, *stream_);
  const StepSchedule schedule = options_.schedule;
  if (schedule == StepSchedule::overlapped) update_->prepare_overlap();
  const bool records = schedule == StepSchedule::automatic ? backend_.capabilities().graphs : schedule == StepSchedule::graphs;
  graphs_ = std::make_unique<StepGraphs>(backend_, *stream_, records);
  scalars_buffer_ = backend_.allocate(sizeof(StepScalars), "step scalars");
  scalars_ = static_cast<StepScalars*>(scalars_buffer_.data());
}

Engine::~Engine() = default;

bool Engine::calibrates() const { return options_.fp8_start == Fp8Start::calibrate && fp8_.recipe().delayed(); }

void Engine::plan_memory(Arena& planning) {
  const std::unique_ptr<Ops> real = backend_.create_ops(*stream_, planning);
  PlanOps plan(*real, planning);
  const int layers = static_cast<int>(config().num_hidden_layers);
  const auto plan_micro_steps = [&](const auto& phase, Recompute recompute, Numerics numerics) {
    for (const Batch& batch : train_batch_->kinds()) {
      planning.begin_phase(phase(batch));
      {
        ActivationStore activations(planning, layers, recompute, PassKind::training);
        transformer_.forward_backward(pass(plan, batch, activations, numerics), *grads_, scalars_);
      }
      planning.end_phase();
    }
  };
  for (const bool calibrating : {false, true}) {
    if (calibrating && !calibrates()) continue;
    fp8_.set_calibrating(calibrating);
    const auto phase = [&](const Batch& batch) { return micro_step_phase(batch, calibrating); };
    plan_micro_steps(phase, options_.recompute, Numerics::quantized);
    fp8_.set_calibrating(false);
  }
  if (shadow_) plan_micro_steps(shadow_phase, kShadowRecompute, Numerics::high_precision);
  if (eval_batch_) {
    for (const Batch& batch : eval_batch_->kinds()) {
      planning.begin_phase(evaluation_phase(batch));
      evaluate_batch(transformer_, plan, batch, *params_, backend_.capabilities().logits_bytes, scalars_);
      planning.end_phase();
    }
  }
  planning.begin_phase(kOptimizerPhase);
  finish_gradient(plan);
  update(plan);
  planning.end_phase();
  planning.begin_phase(kLoadPhase);
  params_->quantize_weights(plan, scalars_);
  planning.end_phase();
  ledger_.clear();
  grads_->begin_step();
  const std::size_t bytes = std::max(planning.plan().peak_bytes(), kArenaAlignment);
  arena_buffer_ = backend_.allocate(bytes, "activations and scratch");
  arena_ = std::make_unique<Arena>(planning.plan(), arena_buffer_.data(), bytes);
  ops_ = backend_.create_ops(*stream_, *arena_);
}

PassContext Engine::pass(Ops& ops, const Batch& batch, ActivationStore& activations, Numerics numerics) {
  const bool training = numerics == Numerics::quantized;
  return {ops, batch, *updated_params_, activations, fp8_.enabled() ? &fp8_ : nullptr, numerics, training ? &ledger_ : nullptr,
          backend_.capabilities().logits_bytes};
}

void Engine::load(const WeightSource& source) {
  load_weights(source, *params_, backend_, *stream_, [&](const ParamSpec& spec, const float* values) {
    optimizer_->set_master(static_cast<std::size_t>(spec.index), values);
  });
  quantize_loaded_weights();
}

void Engine::load_random(std::uint64_t seed) {
  fill_random(*params_, seed, backend_, *stream_);
  quantize_loaded_weights();
}

void Engine::quantize_loaded_weights() {
  if (!fp8_.enabled()) return;
  // The weights' own amaxes make their first scales; with unit scales they are cast as they are.
  allow_update();
  fp8_.set_calibrating(calibrates());
  Phase phase(*arena_, kLoadPhase);
  params_->quantize_weights(*ops_, scalars_);
  phase.end();
  fp8_.set_calibrating(false);
  backend_.synchronize(*stream_);
}

std::vector<NamedTensor> Engine::state_tensors() const {
  std::vector<NamedTensor> tensors;
  for (const ParamSpec& spec : params_->table().params()) tensors.push_back({"weight." + spec.name, params_->weight(spec.index)});
  for (NamedTensor& tensor : optimizer_->state_tensors()) tensors.push_back(std::move(tensor));
  if (!fp8_.enabled()) return tensors;
  const AmaxHistory& history = fp8_.history();
  tensors.push_back({"fp8.amax", history.amaxes()});
  tensors.push_back({"fp8.history", history.histories()});
  tensors.push_back({"fp8.scale", history.scales()});
  tensors.push_back({"fp8.scale_inv", history.scale_invs()});
  return tensors;
}

void Engine::resume(const EngineCounters& counters) {
  CHECK(in_flight_.empty(), "resume: {} steps are in flight", in_flight_.size());
  steps_done_ = steps_enqueued_ = counters.steps_done;
  calibrated_ = counters.calibrated;
  if (!fp8_.enabled()) return;
  // The codes follow from weights and scales, as at the end of the step that left them.
  allow_update();
  Phase phase(*arena_, kLoadPhase);
  params_->quantize_weights(*ops_, scalars_);
  phase.end();
  backend_.synchronize(*stream_);
}

void Engine::begin_scalars(double learning_rate, double max_grad_norm) {
  StepScalars host;
  optimizer_->fill_scalars(host, static_cast<std::uint32_t>(steps_enqueued_ + 1), learning_rate, max_grad_norm, options_.seed);
  // halted stays as the device left it, until the host has seen it.
  send_scalars(host, halted_ ? sizeof(host) : offsetof(StepScalars, halted));
  halted_ = false;
}

void Engine::send_scalars(const StepScalars& host, std::size_t bytes) {
  void* const block = scalars_out_.next();
  std::memcpy(block, &host, bytes);
  backend_.copy_to_device(scalars_, block, bytes, *stream_);
  scalars_out_.enqueued(*stream_);
}

void Engine::allow_update() {
  StepScalars allow;
  allow.step_ok = 1;
  send_scalars(allow, sizeof(allow));
}

// Who observes operations sees each of them; what a step on a stream of its own is waited for cannot be recorded.
bool Engine::uses_graphs() const {
  return graphs_->on() && ops_->observer() == nullptr && !update_->overlaps() && reducer_ == nullptr;
}

void Engine::enqueue_micro_step(const Batch& batch, GemmLedger& ledger) {
  Phase phase(*arena_, micro_step_phase(batch, fp8_.calibrating()));
  {
    ActivationStore activations(*arena_, static_cast<int>(config().num_hidden_layers), options_.recompute, PassKind::training);
    PassContext context = pass(*ops_, batch, activations, Numerics::quantized);
    context.ledger = &ledger;
    transformer_.forward_backward(context, *grads_, scalars_);
  }
  phase.end();
}

// Once as it is, then recorded, then as recorded; what it leaves on the host beside is done here.
void Engine::micro_step(const Batch& batch) {
  if (!uses_graphs() || fp8_.calibrating()) return enqueue_micro_step(batch, ledger_);
  const std::vector<bool> written = grads_->written();
  const bool begins = std::find(written.begin(), written.end(), true) == written.end();
  StepGraphs::Piece& piece = graphs_->piece({batch.capacity(), batch.equal_doc_tokens, begins});
  if (!std::exchange(piece.seen, true)) return enqueue_micro_step(batch, ledger_);
  if (piece.graph == nullptr) {
    piece.of_one = std::make_unique<GemmLedger>(static_cast<int>(config().num_hidden_layers));
    Batch one = batch;
    one.host_counts.num_tokens = one.host_counts.num_supervised = 1;
    if (!graphs_->record(piece, [&] { enqueue_micro_step(one, *piece.of_one); })) {
      grads_->set_written(written);
      return enqueue_micro_step(batch, ledger_);
    }
  }
  graphs_->launch(piece);
  grads_->set_written(std::vector<bool>(written.size(), true));
  ledger_.add(*piece.of_one, batch.host_counts.num_tokens, batch.host_counts.num_supervised);
}

void Engine::run_micro_batches(std::span<const HostBatch> micro_batches) {
  for (const HostBatch& host : micro_batches) {
    const Batch batch = train_batch_->upload(host, *stream_);
    micro_step(batch);
    if (shadow_ && shadow_->is_asked() && !fp8_.calibrating()) {
      shadow_->measure(ShadowCheck::Pass::own, *ops_, *grads_);
      shadow_->end();
    }
  }
}

// In bf16, then as the step will do it, onto the same gradients. Nothing of it is left but sums: scalars are the
// check's own, and a step clears amaxes and overwrites gradients before its first micro-batch.
void Engine::shadow_passes(const HostBatch& micro_batch) {
  const Batch batch = train_batch_->upload(micro_batch, *stream_);
  shadow_->begin(*ops_);
  grads_->begin_step();
  for (const ShadowCheck::Pass kind : {ShadowCheck::Pass::reference, ShadowCheck::Pass::both}) {
    const bool is_reference = kind == ShadowCheck::Pass::reference;
    Phase phase(*arena_, is_reference ? shadow_phase(batch) : micro_step_phase(batch, false));
    {
      const Recompute recompute = is_reference ? kShadowRecompute : options_.recompute;
      ActivationStore activations(*arena_, static_cast<int>(config().num_hidden_layers), recompute, PassKind::training);
      const Numerics numerics = is_reference ? Numerics::high_precision : Numerics::quantized;
      PassContext context = pass(*ops_, batch, activations, numerics);
      context.ledger = nullptr;  // which counts what training does
      transformer_.forward_backward(context, *grads_, shadow_->loss(kind));
    }
    phase.end();
    shadow_->measure(kind, *ops_, *grads_);
  }
}

// Fills the amax histories from one micro-batch whose products are scaled just in time; its gradients are not used.
void Engine::calibrate(const HostBatch& micro_batch) {
  begin_scalars(0.0, 0.0);
  ops_->zero(fp8_.history().histories());  // of an earlier calibration
  fp8_.history().begin_step(*ops_);
  grads_->begin_step();
  fp8_.set_calibrating(true);
  run_micro_batches({&micro_batch, 1});
  fp8_.set_calibrating(false);
  ledger_.clear();
  if (reducer_ != nullptr) reducer_->max_amaxes(fp8_.history().amaxes());
  allow_update();
  fp8_.history().update(*ops_, scalars_);
}

// Gradients of all ranks, their norm, and whether the step may change anything.
void Engine::finish_gradient(Ops& ops) {
  ops.accumulate_sum_of_squares(grads_->all(), scalars_);
  if (reducer_ != nullptr && !ops.arena().planning()) reducer_->sum_squares(scalars_);
  ops.finish_gradient(scalars_);
}

// The scales, then AdamW and the weights' codes under the new scales; nothing where step_ok is 0.
void Engine::update(Ops& ops) {
  fp8_.history().update(ops, scalars_);
  // Who observes operations sees all of them, in order.
  if (update_->overlaps() && ops.observer() == nullptr && !ops.arena().planning()) {
    update_->start(ops, *stream_, scalars_);
  } else {
    update_->wait_all(*stream_);
    update_->run(ops, scalars_);
  }
}

void Engine::enqueue_optimizer_step() {
  Phase phase(*arena_, kOptimizerPhase);
  finish_gradient(*ops_);
  update(*ops_);
  phase.end();
}

void Engine::optimizer_step() {
  if (!uses_graphs()) return enqueue_optimizer_step();
  StepGraphs::Piece& piece = graphs_->piece({});
  if (!std::exchange(piece.seen, true)) return enqueue_optimizer_step();
  if (piece.graph == nullptr && !graphs_->record(piece, [&] { enqueue_optimizer_step(); })) return enqueue_optimizer_step();
  graphs_->launch(piece);
}

void Engine::read_scalars(std::span<const HostBatch> micro_batches) {
  backend_.copy_to_host(scalars_in_.next(), scalars_, sizeof(StepScalars), *stream_);
  InFlight step{scalars_in_.enqueued(*stream_)};
  for (const HostBatch& batch : micro_batches) {
    step.num_tokens += batch.counts.num_tokens;
    step.num_positions += batch.capacity;
    step.num_pairs += batch.causal_pairs();
  }
  in_flight_.push_back(step);
}

StepResult Engine::next_result() {
  CHECK(!in_flight_.empty(), "no step is in flight");
  const InFlight step = in_flight_.front();
  in_flight_.pop_front();
  scalars_in_.wait(step.block);
  StepScalars host;
  std::memcpy(&host, scalars_in_.data(step.block), sizeof(host));
  StepResult result;
  result.num_tokens = step.num_tokens;
  result.num_positions = step.num_positions;
  result.num_pairs = step.num_pairs;
  result.num_supervised = host.num_supervised;
  result.loss = host.num_supervised > 0 ? host.loss_sum / static_cast<double>(host.num_supervised) : 0.0;
  result.grad_norm = static_cast<double>(host.grad_norm);
  result.ok = host.step_ok != 0;
  result.halted = host.halted != 0;
  if (result.ok) ++steps_done_;
  if (in_flight_.empty()) {
    update_->synchronize();  // whatever stream reads the weights next
    halted_ = host.halted != 0;
    steps_enqueued_ = steps_done_;
    // The first scales were those of a batch that is not finite either: the next one gives others.
    if (halted_ && steps_done_ == 0) calibrated_ = false;
  }
  return result;
}

void Engine::compute_gradients(std::span<const HostBatch> micro_batches, double learning_rate, double max_grad_norm) {
  CHECK(!micro_batches.empty(), "a step without micro-batches");
  if (!calibrated_ && calibrates()) calibrate(micro_batches.front());
  calibrated_ = true;
  if (shadow_ && shadow_->is_asked()) shadow_passes(micro_batches.front());
  begin_scalars(learning_rate, max_grad_norm);
  fp8_.history().begin_step(*ops_);
  grads_->begin_step();
  run_micro_batches(micro_batches);
  if (reducer_ == nullptr) return;
  reducer_->sum_gradients(*grads_, scalars_);
  reducer_->max_amaxes(fp8_.history().amaxes());
}

StepResult Engine::gradients(std::span<const HostBatch> micro_batches) {
  CHECK(in_flight_.empty(), "gradients: {} steps are in flight", in_flight_.size());
  compute_gradients(micro_batches, 0.0, 0.0);
  Phase phase(*arena_, kOptimizerPhase);
  finish_gradient(*ops_);
  phase.abandon();
  read_scalars(micro_batches);
  const std::int64_t done = steps_done_;
  const StepResult result = next_result();
  steps_done_ = steps_enqueued_ = done;  // nothing was stepped
  return result;
}

void Engine::enqueue_step(std::span<const HostBatch> micro_batches, double learning_rate, double max_grad_norm) {
  CHECK(in_flight_.size() < kStepsInFlight, "{} steps are in flight: ask for a result first", in_flight_.size());
  compute_gradients(micro_batches, learning_rate, max_grad_norm);
  optimizer_step();
  read_scalars(micro_batches);
  // A step without a label changes nothing and counts for nothing.
  const bool learns = std::any_of(micro_batches.begin(), micro_batches.end(),
                                  [](const HostBatch& batch) { return batch.counts.num_supervised > 0; });
  if (learns || reducer_ != nullptr) ++steps_enqueued_;
}

StepResult Engine::train_step(std::span<const HostBatch> micro_batches, double learning_rate, double max_grad_norm) {
  CHECK(in_flight_.empty(), "train_step: {} steps are in flight", in_flight_.size());
  enqueue_step(micro_batches, learning_rate, max_grad_norm);
  return next_result();
}

EvalResult Engine::evaluate(const HostBatch& host) {
  CHECK(in_flight_.empty(), "evaluate: {} steps are in flight", in_flight_.size());
  CHECK(eval_batch_ != nullptr, "the engine was made without evaluation");
  const Batch batch = eval_batch_->upload(host, *stream_);
  begin_scalars(0.0, 0.0);
  Phase phase(*arena_, evaluation_phase(batch));
  evaluate_batch(transformer_, *ops_, batch, *params_, backend_.capabilities().logits_bytes, scalars_);
  phase.end();
  StepScalars result;
  backend_.copy_to_host(&result, scalars_, sizeof(result), *stream_);
  backend_.synchronize(*stream_);
  return {result.loss_sum, result.num_supervised};
}

std::vector<MemoryLine> Engine::memory() const {
  // In the middle of the constructor some are not there yet.
  const OptimizerMemory state = optimizer_ ? optimizer_->memory_bytes() : OptimizerMemory();
  std::vector<MemoryLine> lines = {
      {"weights", params_ ? params_->weight_bytes() : 0},
      {"weights in FP8", params_ ? params_->quantized_bytes() : 0},
      {"gradients", grads_ ? grads_->bytes() : 0},
      {"AdamW moments", state.m_bytes + state.v_bytes + state.scale_bytes},
      {"exact-update remainders", state.remainder_bytes},
      {"batches and FP8 scales", (train_batch_ ? train_batch_->bytes() : 0) + (eval_batch_ ? eval_batch_->bytes() : 0) + fp8_.history().bytes() +
                                     (shadow_ ? shadow_->bytes() : 0) + (update_ ? update_->bytes() : 0)},
      {"activations and scratch", arena_buffer_.bytes()},
  };
  std::erase_if(lines, [](const MemoryLine& line) { return line.bytes == 0; });
  return lines;
}

}  // namespace llmfp8
