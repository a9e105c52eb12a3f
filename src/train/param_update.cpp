#include "train/param_update.h"

namespace llmfp8 {
namespace {

const std::string kPhase = "update of the weights";

// A struct of the device as a tensor, for copying it there.
Tensor as_bytes(const StepScalars* scalars) {
  return Tensor(const_cast<StepScalars*>(scalars), DType::u8, Shape{static_cast<std::int64_t>(sizeof(StepScalars))});
}

}  // namespace

ParamUpdate::ParamUpdate(const UpdateParts& parts) : parts_(parts) {
  const WeightTable& table = parts_.params.table();
  groups_.resize(static_cast<std::size_t>(table.config().num_hidden_layers) + 2);
  for (const ParamSpec& spec : table.params()) {
    const bool is_embedding = spec.kind == ParamKind::embedding;
    Group& group = is_embedding ? groups_.front() : spec.layer < 0 ? groups_.back() : groups_[1 + static_cast<std::size_t>(spec.layer)];
    group.params.push_back(spec.index);
  }
}

ParamUpdate::~ParamUpdate() = default;

void ParamUpdate::run_group(Ops& ops, std::size_t group, const StepScalars* scalars) const {
  for (const int index : groups_[group].params) {
    parts_.optimizer.step_param(ops, static_cast<std::size_t>(index), parts_.grads.grad(index), scalars);
  }
  if (group == 0) return;
  if (group + 1 == groups_.size()) return parts_.params.quantize_head(ops, scalars);
  parts_.params.quantize_layer(ops, static_cast<int>(group) - 1, scalars);
}

void ParamUpdate::run(Ops& ops, const StepScalars* scalars) {
  for (std::size_t group = 0; group < groups_.size(); ++group) run_group(ops, group, scalars);
}

void ParamUpdate::prepare_overlap() {
  Backend& backend = parts_.backend;
  stream_ = backend.create_stream(StreamUse::beside);
  gradient_known_ = backend.create_event(EventKind::ordering);
  for (Group& group : groups_) group.done = backend.create_event(EventKind::ordering);
  scalars_buffer_ = backend.allocate(sizeof(StepScalars), "step scalars");
  planned_ = std::make_unique<PlannedOps>(backend, *stream_, "activations and scratch", [this](Ops& ops) {
    ops.arena().begin_phase(kPhase);
    run(ops, static_cast<const StepScalars*>(scalars_buffer_.data()));
    ops.arena().end_phase();
  });
}

void ParamUpdate::start(Ops& ops, Stream& main, const StepScalars* scalars) {
  CHECK(overlaps(), "an update on a stream that was not prepared");
  wait_all(main);  // the scalars below are the last update's
  const auto* const own_scalars = static_cast<const StepScalars*>(scalars_buffer_.data());
  ops.copy(as_bytes(scalars), as_bytes(own_scalars));
  parts_.backend.record(*gradient_known_, main);
  parts_.backend.wait(*stream_, *gradient_known_);
  Arena& arena = planned_->arena();
  arena.abandon_phase();  // an exception may have left one half done
  arena.begin_phase(kPhase);
  for (std::size_t group = 0; group < groups_.size(); ++group) {
    run_group(planned_->ops(), group, own_scalars);
    parts_.backend.record(*groups_[group].done, *stream_);
    groups_[group].pending = true;
  }
  arena.end_phase();
}

void ParamUpdate::wait(std::size_t group, Stream& main) {
  Group& g = groups_[group];
  if (!g.pending) return;
  parts_.backend.wait(main, *g.done);
  g.pending = false;
}

void ParamUpdate::wait_head(Stream& main) {
  wait(0, main);
  wait(groups_.size() - 1, main);
}

void ParamUpdate::wait_all(Stream& main) {
  for (std::size_t group = 0; group < groups_.size(); ++group) wait(group, main);
}

void ParamUpdate::synchronize() {
  if (!overlaps()) return;
  parts_.backend.synchronize(*stream_);
  for (Group& group : groups_) group.pending = false;
}

}  // namespace llmfp8
