// Training steps one behind the other, as the trainer takes them: the host enqueues a step while the device is at the one
// before. Called by benchmark and run_costs.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "data/batch_loader.h"
#include "train/engine.h"

namespace llmfp8 {

class BenchmarkSteps {
 public:
  // Both outlive it; the loader's one epoch is gone through again and again.
  BenchmarkSteps(Engine& engine, const BatchLoader& loader) : engine_(engine), loader_(loader) {}

  // Called for each result, while later steps are under way.
  using OnResult = std::function<void(const StepResult&)>;

  // Seconds from the first enqueue to the last result; nothing is in flight before and after. Throws Error where a step is
  // not finite.
  double run(std::int64_t steps, const OnResult& on_result = {});
  // The same until `until` holds after a step; how many there were.
  std::int64_t run_until(const std::function<bool()>& until, const OnResult& on_result = {});

  // A step of each capacity that none has had so far: the first one chooses its algorithms. They do not count.
  void warm_other_capacities();

  std::vector<HostBatch> batches_of(std::int64_t step) const;
  std::int64_t steps_done() const { return step_; }

 private:
  void enqueue();
  void take_result(const OnResult& on_result);

  Engine& engine_;
  const BatchLoader& loader_;
  std::int64_t step_ = 0;  // enqueued so far
};

}  // namespace llmfp8
