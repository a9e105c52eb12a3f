// A run that skips the steps that are not finite: it is the run that never saw their batches, whatever was enqueued
// behind them before the host knew.
#include "train/step_queue.h"

#include <algorithm>
#include <limits>
#include <set>

#include "core/bf16.h"
#include "train/engine_support.h"

namespace llmfp8::testing {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr std::int64_t kSteps = 8;

double rate_of(std::int64_t step) { return 1e-3 / static_cast<double>(step); }

struct Learnt {
  std::vector<std::int64_t> steps, skipped;
  std::vector<double> losses, norms;
  std::int64_t enqueued = 0;  // with those that were done again
};

// As the trainer does it, with `ahead` steps in flight while one is waited for. Steps of `poisoned` get a gradient that
// is not finite.
Learnt run(Fixture& setup, Engine& engine, const std::set<std::int64_t>& poisoned, std::size_t ahead) {
  Learnt learnt;
  PoisonedReducer poison(engine, ParamKind::down, 17, kNan);
  StepQueue queue(engine, [&](const StepQueue::Step& step) {
    ++learnt.enqueued;
    engine.set_reducer(poisoned.contains(step.number) ? &poison : nullptr);
    engine.enqueue_step(step.micro_batches, step.learning_rate, 1.0);
    engine.set_reducer(nullptr);
  });
  const auto take = [&] {
    const StepQueue::Done done = queue.pop();
    if (!done.result.halted) {
      EXPECT_TRUE(done.result.ok);
      learnt.steps.push_back(done.step.number);
      learnt.losses.push_back(done.result.loss);
      learnt.norms.push_back(done.result.grad_norm);
      return;
    }
    EXPECT_FALSE(done.result.ok);
    learnt.skipped.push_back(done.step.number);
    std::vector<StepQueue::Step> behind = queue.take_back();
    EXPECT_EQ(engine.steps_in_flight(), 0u);
    for (StepQueue::Step& step : behind) queue.push(std::move(step));
  };
  for (std::int64_t step = 1; step <= kSteps; ++step) {
    const std::size_t first = static_cast<std::size_t>(step) % setup.batches.size();
    queue.push(
        {step, rate_of(step), {setup.batches[first].host, setup.batches[(first + 1) % setup.batches.size()].host}});
    while (engine.steps_in_flight() > ahead) take();
  }
  while (engine.steps_in_flight() > 0) take();
  return learnt;
}

// The same rates and batches, without those of `left_out`.
Learnt run_without(Fixture& setup, Engine& engine, const std::set<std::int64_t>& left_out) {
  Learnt learnt;
  for (std::int64_t step = 1; step <= kSteps; ++step) {
    if (left_out.contains(step)) continue;
    const std::size_t first = static_cast<std::size_t>(step) % setup.batches.size();
    const HostBatch both[] = {setup.batches[first].host, setup.batches[(first + 1) % setup.batches.size()].host};
    const StepResult result = engine.train_step(both, rate_of(step), 1.0);
    EXPECT_TRUE(result.ok);
    learnt.steps.push_back(step);
    learnt.losses.push_back(result.loss);
    learnt.norms.push_back(result.grad_norm);
  }
  return learnt;
}

const std::set<std::int64_t> kPoisoned[] = {{3}, {1, 2}, {4, 5, 6}, {2, 4, 8}};

void expect_never_seen(const EngineOptions& options) {
  Fixture setup("llama_untied", {{40, 30, 20}, {50, 11}, {33, 44}});
  for (const std::set<std::int64_t>& poisoned : kPoisoned) {
    const auto without = setup.engine(options);
    const Learnt wanted = run_without(setup, *without, poisoned);
    for (const std::size_t ahead : {std::size_t{0}, Engine::kStepsInFlight - 1}) {
      SCOPED_TRACE(fmt::format("{} poisoned, {} ahead", poisoned.size(), ahead));
      const auto skipping = setup.engine(options);
      const Learnt found = run(setup, *skipping, poisoned, ahead);
      EXPECT_EQ(std::set<std::int64_t>(found.skipped.begin(), found.skipped.end()), poisoned);
      EXPECT_EQ(found.steps, wanted.steps);
      EXPECT_EQ(found.losses, wanted.losses);
      EXPECT_EQ(found.norms, wanted.norms);
      EXPECT_EQ(skipping->steps_done(), kSteps - static_cast<std::int64_t>(poisoned.size()));
      EXPECT_EQ(skipping->counters().calibrated, without->counters().calibrated);
      EXPECT_TRUE(state_bytes(*skipping) == state_bytes(*without));
      if (ahead == 0) {
        EXPECT_EQ(found.enqueued, kSteps);
      }
    }
  }
}

TEST(Skipping, IsTheRunThatNeverSawTheBatch) {
  for (const RecipeKind recipe : {RecipeKind::none, RecipeKind::standard, RecipeKind::mxfp8, RecipeKind::current}) {
    SCOPED_TRACE(Recipe(recipe).name());
    EngineOptions options;
    options.recipe = recipe;
    expect_never_seen(options);
  }
}

TEST(Skipping, WhateverTheStateOfTheOptimizer) {
  EngineOptions options;
  options.recipe = RecipeKind::hybrid;
  options.fp8_start = Fp8Start::te;
  options.optimizer.state = OptimState::eight_bit;
  options.optimizer.weight_update = WeightUpdate::stochastic;
  expect_never_seen(options);
}

// A first batch whose own activations are infinite has filled the amax histories: its calibration counts for nothing.
TEST(Skipping, CalibrationOfABadFirstBatchIsMadeAgain) {
  for (const RecipeKind recipe : {RecipeKind::standard, RecipeKind::hybrid}) {
    Fixture setup("llama_untied", {{40, 30}, {50, 11}});
    // A token of the first batch that the second has not; its embedding is infinite.
    std::vector<std::int32_t>&bad = setup.batches[0].host.tokens, &good = setup.batches[1].host.tokens;
    const std::int32_t token = 7, other = 8;
    std::replace(good.begin(), good.end(), token, other);
    std::replace(setup.batches[1].host.labels.begin(), setup.batches[1].host.labels.end(), token, other);
    bad[5] = token;
    EngineOptions options;
    options.recipe = recipe;
    const auto skipping = setup.engine(options), without = setup.engine(options);
    for (const auto& engine : {skipping.get(), without.get()}) {
      const Tensor embedding = engine->params().embedding();
      embedding.as<bf16>()[token * embedding.cols()] = to_bf16(std::numeric_limits<float>::infinity());
    }
    const StepResult first = skipping->train_step(setup.batch(0), 1e-3, 1.0);
    EXPECT_TRUE(first.halted);
    EXPECT_FALSE(skipping->counters().calibrated);
    for (int step = 0; step < 3; ++step) {
      const StepResult found = skipping->train_step(setup.batch(1), 1e-3, 1.0),
                       wanted = without->train_step(setup.batch(1), 1e-3, 1.0);
      EXPECT_TRUE(found.ok);
      EXPECT_EQ(found.loss, wanted.loss);
      EXPECT_TRUE(state_bytes(*skipping) == state_bytes(*without)) << Recipe(recipe).name() << " step " << step;
    }
  }
}

TEST(Skipping, AStepWithoutALabelIsNoSuchStep) {
  Fixture setup("llama_tied", {{40, 30}});
  HostBatch empty = setup.batches[0].host;
  std::fill(empty.labels.begin(), empty.labels.end(), kIgnoreLabel);
  empty.counts.num_supervised = 0;
  const auto engine = setup.engine({});
  const StepResult result = engine->train_step({&empty, 1}, 1e-3, 1.0);
  EXPECT_FALSE(result.ok);
  EXPECT_FALSE(result.halted);
}

}  // namespace
}  // namespace llmfp8::testing
