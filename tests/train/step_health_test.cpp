// What is said of a step: against weights and codes read in full, and that looking changes nothing.
#include "train/step_health.h"

#include <set>

#include <gtest/gtest.h>

#include "core/float8.h"
#include "engine_support.h"

namespace llmfp8::testing {
namespace {

class StepHealthTest : public ::testing::TestWithParam<RecipeKind> {
 protected:
  std::unique_ptr<Engine> engine(OptimizerConfig optimizer = {}) {
    EngineOptions options;
    options.recipe = GetParam();
    options.optimizer = optimizer;
    const auto source = open_model(model_dir("llama_tied"));
    batch_ = random_batch(source->config(), {40, 61, 19}, 7);
    BatchLimits limits;
    limits.capacities = {batch_.host.capacity};
    limits.max_docs = static_cast<std::int64_t>(batch_.host.cu_seqlens.size()) - 1;
    limits.max_doc_tokens = batch_.host.max_doc_tokens;
    return golden_engine(*backend_, model_dir("llama_tied"), options, limits);
  }
  StepResult step(Engine& engine, double rate) {
    const std::vector<HostBatch> micro_batches{batch_.host};
    engine.enqueue_step(micro_batches, rate, 1.0);
    return engine.next_result();
  }
  StepHealthReport look(Engine& engine, StepHealth& health, std::int64_t at, double rate) {
    health.begin_step(at);
    const std::vector<HostBatch> micro_batches{batch_.host};
    engine.enqueue_step(micro_batches, rate, 1.0);
    health.end_step();
    engine.next_result();
    EXPECT_TRUE(health.is_pending());
    return health.take();
  }

  std::unique_ptr<Backend> backend_ = create_backend("cpu");
  ParityBatch batch_;
};
INSTANTIATE_TEST_SUITE_P(Recipes, StepHealthTest,
                         ::testing::Values(RecipeKind::none, RecipeKind::standard, RecipeKind::hybrid, RecipeKind::mxfp8, RecipeKind::current));

TEST_P(StepHealthTest, LooksAtEveryMatrixAndChangesNothing) {
  const auto watched = engine(), alone = engine();
  StepHealth health(*watched);
  step(*watched, 1e-3);
  step(*alone, 1e-3);
  const StepHealthReport report = look(*watched, health, 2, 1e-3);
  step(*alone, 1e-3);
  EXPECT_EQ(state_bytes(*watched), state_bytes(*alone));

  EXPECT_EQ(report.step, 2);
  EXPECT_GT(report.weights_changed, 0.5);
  EXPECT_LE(report.weights_changed, 1.0);
  const std::int64_t layers = watched->config().num_hidden_layers;
  EXPECT_EQ(report.matrices.size(), GetParam() == RecipeKind::none ? 0u : static_cast<std::size_t>(3 * 4 * layers));
  std::set<std::string> names;
  for (const Fp8MatrixHealth& m : report.matrices) {
    names.insert(fmt::format("{}.{}.{}", m.site.layer, name(m.site.product), name(m.role)));
    EXPECT_GT(m.sampled, 0);
    EXPECT_LT(m.zero_share, 0.9);
    EXPECT_LT(m.saturated_share, 0.2);
    EXPECT_EQ(m.amax > 0.0, GetParam() != RecipeKind::mxfp8 || m.role != Role::weight);
    const bool delayed = watched->fp8().recipe().delayed() && m.role != Role::weight;
    EXPECT_EQ(m.overflow > 0, delayed);
  }
  EXPECT_EQ(names.size(), report.matrices.size());
  EXPECT_EQ(report.json()["matrices"].size(), report.matrices.size());
}

TEST_P(StepHealthTest, WeightsThatDoNotMoveAreSeen) {
  OptimizerConfig nearest;  // round to nearest: small steps of bf16 weights are lost
  nearest.weight_update = WeightUpdate::python;
  const auto engine = this->engine(nearest);
  StepHealth health(*engine);
  step(*engine, 1e-3);
  const double large = look(*engine, health, 2, 1e-2).weights_changed;
  const double small = look(*engine, health, 3, 1e-9).weights_changed;
  EXPECT_GT(large, 0.5);
  EXPECT_LT(small, 0.05);
  EXPECT_EQ(look(*engine, health, 4, 0.0).weights_changed, 0.0);
}

TEST_P(StepHealthTest, ScalesThatAreFarOffShowAtBothEnds) {
  if (GetParam() != RecipeKind::standard && GetParam() != RecipeKind::hybrid) GTEST_SKIP() << "scales of this recipe follow each matrix";
  const auto engine = this->engine();
  StepHealth health(*engine);
  step(*engine, 1e-3);
  const AmaxHistory& history = engine->fp8().history();
  const int clipped = history.slot({0, Product::down}, Role::input), lost = history.slot({1, Product::qkv}, Role::gradient);
  const auto times = [&](int slot, float factor) {  // of the scale in use
    *history.scale(slot).as<float>() *= factor;
    *history.scale_inv(slot).as<float>() /= factor;
  };
  times(clipped, 64.0f);
  times(lost, 0x1.0p-40f);
  const StepHealthReport report = look(*engine, health, 2, 1e-3);
  for (const Fp8MatrixHealth& m : report.matrices) {
    if (history.slot(m.site, m.role) == clipped) {
      EXPECT_GT(m.overflow, 30.0);
      EXPECT_GT(m.saturated_share, 0.02);
    } else if (history.slot(m.site, m.role) == lost) {
      EXPECT_EQ(m.zero_share, 1.0);
    } else {
      EXPECT_LT(m.overflow, 8.0);
    }
  }
  const MetricValues values = report.values();
  const auto value = [&](const std::string& name) {
    for (const auto& [key, x] : values)
      if (key == name) return x;
    ADD_FAILURE() << name;
    return 0.0;
  };
  EXPECT_GE(value("health/fp8_clipped_matrices/input"), 1.0);
  EXPECT_GT(value("health/fp8_zero_share/gradient"), 1.0 / (4.0 * static_cast<double>(engine->config().num_hidden_layers)));
}

}  // namespace
}  // namespace llmfp8::testing
