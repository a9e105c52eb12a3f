// StepHealth: what a training step did that its loss does not show: how many stored weights it changed, and where FP8 lost
// values at the two ends of its range. Looked at now and then by the trainer, from samples that are copied in stream order,
// so that neither device nor host waits.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <nlohmann/json.hpp>

#include "report/metrics.h"
#include "train/engine.h"

namespace llmfp8 {

// One quantised matrix in a step; shares are of the sampled values of the step's first micro-batch (a weight's: of the
// codes that the step has left behind).
struct Fp8MatrixHealth {
  Site site;
  Role role = Role::input;
  std::int64_t sampled = 0;
  double zero_share = 0;       // codes that are zero: too small for the scale, or zero before
  double saturated_share = 0;  // codes at the format's largest value: clipped, or just fitting
  // Largest magnitude of the step times the scale in use, over the format's largest value: above 1, values were clipped. 0
  // where scaling is not delayed (it then fits by construction).
  double overflow = 0;
  double amax = 0;  // 0 where the recipe does not keep it
};

struct StepHealthReport {
  std::int64_t step = 0;
  double weights_changed = 0;  // share of the sampled weights whose stored bits differ after the step
  std::vector<Fp8MatrixHealth> matrices;

  // "health/weights_changed", "health/fp8_saturated_share/input", …; FP8's names only where something is quantised.
  MetricValues values() const;
  // One line of health.jsonl.
  nlohmann::ordered_json json() const;
};

class StepHealth : private OpObserver {
 public:
  explicit StepHealth(Engine& engine);  // outlives this
  ~StepHealth() override;
  StepHealth(const StepHealth&) = delete;
  StepHealth& operator=(const StepHealth&) = delete;

  // The step between the two is looked at: engine.enqueue_step stands there. One at a time: take() before the next.
  void begin_step(std::int64_t step);
  void end_step();
  bool is_pending() const { return pending_; }
  std::int64_t step() const { return step_; }
  // Waits until the device has passed the step.
  StepHealthReport take();
  // Forgets it: the step is done again.
  void drop();

 private:
  struct Matrix;
  struct CodeSample;
  class Staging;

  void begin(const OpInfo&) override {}
  void end() override {}
  void written(const OpOutput& output) override;

  void sample_weights(std::byte* to);
  double weights_changed() const;

  Engine& engine_;
  std::unique_ptr<Staging> staging_;  // pinned
  std::vector<Tensor> pieces_;        // of the weights: the sampled ones
  std::byte *before_ = nullptr, *after_ = nullptr;  // of the pieces, in staging_
  std::size_t weight_bytes_ = 0;
  const float *scales_ = nullptr, *amaxes_ = nullptr;  // in staging_
  std::vector<CodeSample> samples_;
  std::vector<Matrix> matrices_;  // by slot of the amax history
  std::vector<bool> seen_;        // by slot
  std::unique_ptr<Event> passed_;
  std::int64_t step_ = 0;
  bool pending_ = false;
};

}  // namespace llmfp8
