#include "train/benchmark_steps.h"

#include <algorithm>
#include <set>

#include "core/clock.h"
#include "core/error.h"

namespace llmfp8 {
namespace {

constexpr double kLearningRate = 1e-5, kMaxGradNorm = 1.0;

}  // namespace

std::vector<HostBatch> BenchmarkSteps::batches_of(std::int64_t step) const {
  const std::int64_t in_epoch = step % loader_.steps_per_epoch();
  std::vector<HostBatch> batches;
  for (std::int64_t m = 0; m < loader_.micro_batches(0, in_epoch); ++m) batches.push_back(loader_.load(0, in_epoch, m));
  return batches;
}

void BenchmarkSteps::enqueue() {
  engine_.enqueue_step(batches_of(step_), kLearningRate, kMaxGradNorm);
  ++step_;
}

void BenchmarkSteps::take_result(const OnResult& on_result) {
  const StepResult result = engine_.next_result();
  CHECK(result.ok, "bench: step {}: loss {} or gradient norm {} is not finite", step_, result.loss, result.grad_norm);
  if (on_result) on_result(result);
}

double BenchmarkSteps::run(std::int64_t steps, const OnResult& on_result) {
  const double start = now_seconds();
  const std::int64_t end = step_ + steps;
  if (steps > 0) run_until([&] { return step_ == end; }, on_result);
  return now_seconds() - start;
}

std::int64_t BenchmarkSteps::run_until(const std::function<bool()>& until, const OnResult& on_result) {
  const std::int64_t before = step_;
  do {
    enqueue();
    if (engine_.steps_in_flight() == Engine::kStepsInFlight) take_result(on_result);
  } while (!until());
  while (engine_.steps_in_flight() > 0) take_result(on_result);
  return step_ - before;
}

void BenchmarkSteps::warm_other_capacities() {
  std::set<std::int64_t> warm;
  for (std::int64_t s = 0; s < loader_.steps_per_epoch(); ++s) {
    const std::vector<HostBatch> batches = batches_of(s);
    const bool is_new = std::any_of(batches.begin(), batches.end(), [&](const HostBatch& b) { return warm.insert(b.capacity).second; });
    if (is_new && s >= step_) engine_.train_step(batches, kLearningRate, kMaxGradNorm);
  }
}

}  // namespace llmfp8
