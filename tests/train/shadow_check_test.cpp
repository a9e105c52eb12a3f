// The shadow check: its formulas by hand, its sums against gradients read in full, that it sees a broken scale, and that
// a step with it is the step without it.
#include "train/shadow_check.h"

#include <limits>

#include "train/engine_support.h"

namespace llmfp8::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

GradientSums sums_of(const std::vector<float>& g, const std::vector<float>& b) {
  GradientSums sums;
  for (std::size_t i = 0; i < g.size(); ++i) {
    const double x = static_cast<double>(g[i]), y = static_cast<double>(b[i]);
    sums += {x * x, y * y, (x + y) * (x + y)};
  }
  return sums;
}

// ---- formulas

TEST(GradientMatch, ByHand) {
  const GradientMatch same = match(sums_of({3, 4}, {3, 4}));
  EXPECT_DOUBLE_EQ(same.cosine, 1);
  EXPECT_DOUBLE_EQ(same.norm_difference, 0);
  EXPECT_DOUBLE_EQ(same.difference, 0);
  const GradientMatch longer = match(sums_of({6, 8}, {3, 4}));
  EXPECT_DOUBLE_EQ(longer.cosine, 1);
  EXPECT_DOUBLE_EQ(longer.norm_difference, 1);
  EXPECT_DOUBLE_EQ(longer.difference, 1);
  const GradientMatch opposite = match(sums_of({-3, -4}, {3, 4}));
  EXPECT_DOUBLE_EQ(opposite.cosine, -1);
  EXPECT_DOUBLE_EQ(opposite.difference, 2);
  const GradientMatch across = match(sums_of({0, 2}, {1, 0}));
  EXPECT_DOUBLE_EQ(across.cosine, 0);
  EXPECT_DOUBLE_EQ(across.norm_difference, 1);
  EXPECT_DOUBLE_EQ(across.difference, std::sqrt(5.0));
  const GradientMatch half = match(sums_of({1, 1}, {1, 0}));
  EXPECT_NEAR(half.cosine, std::sqrt(0.5), 1e-15);
}

TEST(GradientMatch, ZeroAndNotFinite) {
  const GradientMatch lost = match(sums_of({0, 0}, {1, 2}));
  EXPECT_EQ(lost.cosine, 0);
  EXPECT_EQ(lost.norm_difference, -1);
  EXPECT_EQ(lost.difference, 1);
  const GradientMatch from_nothing = match(sums_of({1, 2}, {0, 0}));
  EXPECT_EQ(from_nothing.cosine, 0);
  EXPECT_TRUE(std::isnan(from_nothing.norm_difference) && std::isnan(from_nothing.difference));
  EXPECT_TRUE(std::isnan(match({}).cosine));
  EXPECT_TRUE(std::isnan(match({kInfinity, 1, kInfinity}).cosine));
  EXPECT_TRUE(std::isnan(match({1, std::nan(""), 1}).difference));
}

TEST(ShadowReport, LeavesOutWhatIsNotKnown) {
  ShadowReport report;
  EXPECT_TRUE(report.values().empty());
  EXPECT_NE(report.text().find("no supervised token"), std::string::npos);
  report.num_supervised = 3;
  report.loss = 2.2;
  report.reference_loss = 2.0;
  report.gradient = {0.5, std::nan(""), std::nan("")};
  report.kinds = {{"self_attn.q_proj", {0.25, -0.5, 0.875}}};
  MetricValues values = report.values();
  const auto value = [&](const std::string& name) {
    for (const auto& [key, x] : values)
      if (key == name) return x;
    return kInfinity;
  };
  EXPECT_DOUBLE_EQ(value("shadow/loss"), 2.0);
  EXPECT_DOUBLE_EQ(value("shadow/loss_difference"), 2.2 - 2.0);
  EXPECT_NEAR(value("shadow/loss_relative_difference"), 0.1, 1e-12);
  EXPECT_EQ(value("shadow/gradient_cosine"), 0.5);
  EXPECT_EQ(value("shadow/gradient_norm_difference"), kInfinity);
  EXPECT_EQ(value("shadow/gradient_cosine/self_attn.q_proj"), 0.25);
  EXPECT_EQ(value("shadow/gradient_norm_difference/self_attn.q_proj"), -0.5);
}

// ---- in the engine

const std::vector<std::vector<std::int64_t>> kLengths = {{40, 61, 19}, {33, 10}, {50, 70}};

EngineOptions checked(EngineOptions options) {
  options.shadow_check = true;
  return options;
}

EngineOptions options_of(RecipeKind recipe) {
  EngineOptions options;
  options.recipe = recipe;
  options.fp8_lm_head = true;
  return options;
}

ShadowReport checked_step(Engine& engine, std::span<const HostBatch> step, std::int64_t number) {
  engine.shadow()->ask(number);
  EXPECT_TRUE(engine.train_step(step, 1e-3, 1.0).ok);
  EXPECT_TRUE(engine.shadow()->is_pending());
  return engine.shadow()->take();
}

std::vector<float> flat(const HfTensors& tensors, const std::string& part) {
  std::vector<float> all;
  for (const auto& [name, tensor] : tensors)
    if (name.find(part) != std::string::npos) all.insert(all.end(), tensor.values.begin(), tensor.values.end());
  return all;
}

// An element s of g + b lacks g's own rounding, up to u |g|, and has one of its own, up to u |s|. So |g + b|^2 is off by at
// most 2 u (|g + b|^2 + |g + b| |g|), which is 12 u |g| |b| where the two are about as long, and the cosine by half of it.
double cosine_tolerance(DType dtype) { return 6 * (dtype == DType::f32 ? 0x1.0p-24 : 0x1.0p-9); }

// Every number against both gradients, read from two engines with the same weights.
class ShadowSums : public ::testing::TestWithParam<DType> {};  // of the gradients
INSTANTIATE_TEST_SUITE_P(GradientTypes, ShadowSums, ::testing::Values(DType::f32, DType::bf16));

TEST_P(ShadowSums, AreThoseOfTheGradientsReadInFull) {
  for (const char* model : kModels) {
    for (const RecipeKind recipe : kFp8Recipes) {
      SCOPED_TRACE(fmt::format("{} {}", model, Recipe(recipe).name()));
      Fixture setup(model, kLengths);
      EngineOptions fp8 = options_of(recipe), high = options_of(RecipeKind::none);
      fp8.grad_dtype = high.grad_dtype = GetParam();
      const auto watched = setup.engine(checked(fp8)), own = setup.engine(fp8), bf16 = setup.engine(high);
      const StepResult own_result = own->gradients(setup.batch(0)), bf16_result = bf16->gradients(setup.batch(0));
      const HfTensors g = hf_gradients(*own, 1.0), b = hf_gradients(*bf16, 1.0);
      const ShadowReport report = checked_step(*watched, setup.batch(0), 1);
      EXPECT_EQ(report.loss, own_result.loss);
      EXPECT_EQ(report.reference_loss, bf16_result.loss);
      EXPECT_EQ(report.num_supervised, own_result.num_supervised);
      const auto expect_match = [&](const GradientMatch& found, const std::vector<float>& own_values,
                                    const std::vector<float>& bf16_values) {
        const GradientMatch wanted = match(sums_of(own_values, bf16_values));
        const double tolerance = cosine_tolerance(GetParam());
        EXPECT_NEAR(found.cosine, wanted.cosine, tolerance);
        EXPECT_NEAR(found.norm_difference, wanted.norm_difference, 1e-9);
        EXPECT_NEAR(found.difference * found.difference, wanted.difference * wanted.difference, 3 * tolerance);
      };
      expect_match(report.gradient, flat(g, ""), flat(b, ""));
      std::size_t matrices = 0;
      double worst = 1;
      for (const auto& [kind, found] : report.kinds) {
        SCOPED_TRACE(kind);
        const std::string part = kind.ends_with(".bias") ? kind
                                 : kind == "norm"        ? "model.norm.weight"
                                                         : kind + ".weight";
        expect_match(found, flat(g, part), flat(b, part));
      }
      for (const auto& [name, tensor] : g) {
        if (tensor.shape.rank() != 2) continue;
        ++matrices;
        worst = std::min(worst, match(sums_of(tensor.values, b.at(name).values)).cosine);
      }
      EXPECT_GT(matrices, 10u);
      const std::vector<float> worst_own = flat(g, report.worst), worst_bf16 = flat(b, report.worst);
      const double tolerance = cosine_tolerance(GetParam());
      EXPECT_NEAR(report.worst_cosine, worst, tolerance);
      EXPECT_NEAR(match(sums_of(worst_own, worst_bf16)).cosine, worst, tolerance) << report.worst;
      // What is seen at all: FP8 is near to bf16, and is not it.
      EXPECT_GT(report.gradient.cosine, 0.9);
      EXPECT_LT(report.gradient.cosine, 0.99999);
      EXPECT_NE(report.loss, report.reference_loss);
    }
  }
}

struct Case {
  const char* name;
  EngineOptions options;
};

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const RecipeKind recipe : kFp8Recipes) list.push_back({"recipe", options_of(recipe)});
  list.push_back({"scale 1 at the start", options_of(RecipeKind::standard)});
  list.back().options.fp8_start = Fp8Start::te;
  list.push_back({"stochastic weights, 8-bit moments", options_of(RecipeKind::hybrid)});
  list.back().options.optimizer.weight_update = WeightUpdate::stochastic;
  list.back().options.optimizer.state = OptimState::eight_bit;
  list.push_back({"bf16 gradients, recomputed", options_of(RecipeKind::standard)});
  list.back().options.grad_dtype = DType::bf16;
  list.back().options.recompute = Recompute::mlp;
  return list;
}

// Every second step is checked, and the first; three micro-batches each.
TEST(ShadowCheck, ChangesNotOneByteOfTraining) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    Fixture setup("llama_untied", kLengths);
    const auto watched = setup.engine(checked(c.options)), alone = setup.engine(c.options);
    std::vector<HostBatch> step = hosts(setup.batches);
    for (std::int64_t number = 1; number <= 6; ++number) {
      if (number == 1 || number % 2 == 0) watched->shadow()->ask(number);
      const StepResult found = watched->train_step(step, 1e-3, 1.0), wanted = alone->train_step(step, 1e-3, 1.0);
      ASSERT_TRUE(found.ok);
      EXPECT_EQ(found.loss, wanted.loss);
      EXPECT_EQ(found.grad_norm, wanted.grad_norm);
      EXPECT_EQ(found.num_supervised, wanted.num_supervised);
      EXPECT_EQ(state_bytes(*watched), state_bytes(*alone)) << "step " << number;
      for (const auto& [name, tensor] : watched->state_tensors()) {
        if (name != "fp8.amax") continue;  // of inputs and gradients too, which state_bytes leaves out
        const Tensor other = alone->fp8().history().amaxes();
        EXPECT_EQ(std::memcmp(tensor.data, other.data, tensor.bytes()), 0) << "step " << number;
      }
      if (watched->shadow()->is_pending()) {
        const ShadowReport report = watched->shadow()->take();
        EXPECT_EQ(report.step, number);
        EXPECT_EQ(report.num_supervised, setup.batches[0].host.counts.num_supervised)
            << "of the first micro-batch alone";
        EXPECT_GT(report.gradient.cosine, 0.8);
      }
      std::rotate(step.begin(), step.begin() + 1, step.end());
      std::rotate(setup.batches.begin(), setup.batches.begin() + 1, setup.batches.end());
    }
    EXPECT_EQ(watched->ledger().fp8_share(), alone->ledger().fp8_share());
    EXPECT_EQ(watched->ledger().find({0, Product::qkv}, GemmPass::fprop).calls, 18);
  }
}

// A step that is enqueued behind a checked one overwrites neither its sums nor its loss.
TEST(ShadowCheck, OfAStepWithAnotherEnqueuedBehindIt) {
  Fixture setup("llama_tied", kLengths);
  const auto ahead = setup.engine(checked(options_of(RecipeKind::standard))),
             waiting = setup.engine(checked(options_of(RecipeKind::standard)));
  const ShadowReport wanted = checked_step(*waiting, setup.batch(0), 1);
  ahead->shadow()->ask(1);
  ahead->enqueue_step(setup.batch(0), 1e-3, 1.0);
  ahead->enqueue_step(setup.batch(1), 1e-3, 1.0);
  EXPECT_THROW(ahead->shadow()->ask(3), Error);
  const ShadowReport found = ahead->shadow()->take();
  EXPECT_EQ(found.loss, wanted.loss);
  EXPECT_EQ(found.gradient.cosine, wanted.gradient.cosine);
  ahead->shadow()->ask(3);
  ahead->shadow()->drop();
  EXPECT_FALSE(ahead->shadow()->is_asked());
}

TEST(ShadowCheck, SeesAScaleThatIsFarOff) {
  Fixture setup("llama_tied", kLengths);
  const auto engine = setup.engine(checked(options_of(RecipeKind::standard)));
  const ShadowReport good = checked_step(*engine, setup.batch(0), 1);
  const AmaxHistory& history = engine->fp8().history();
  const int slot = history.slot({1, Product::o}, Role::gradient);
  *history.scale(slot).as<float>() *= 0x1.0p-40f;  // every value is lost
  *history.scale_inv(slot).as<float>() *= 0x1.0p40f;
  const ShadowReport bad = checked_step(*engine, setup.batch(0), 2);
  const auto cosine = [](const ShadowReport& report, const std::string& kind) {
    for (const auto& [name, m] : report.kinds)
      if (name == kind) return m.cosine;
    ADD_FAILURE() << kind;
    return 0.0;
  };
  EXPECT_GT(good.worst_cosine, 0.9);
  EXPECT_EQ(bad.worst_cosine, 0);
  EXPECT_EQ(bad.worst, "model.layers.1.self_attn.q_proj.weight");  // nothing comes through o: q, k, v get none
  EXPECT_LT(cosine(bad, "self_attn.o_proj"), 0.9 * cosine(good, "self_attn.o_proj"));
  EXPECT_LT(bad.gradient.cosine, good.gradient.cosine - 0.01);
}

// ---- memory

TEST(ShadowCheck, IsPlannedAndCostsLittle) {
  for (const Recompute level : kRecomputeLevels) {
    Fixture setup("llama_untied", kLengths);
    EngineOptions options = options_of(RecipeKind::standard);
    options.recompute = level;
    const auto watched = setup.engine(checked(options)), alone = setup.engine(options);
    const auto total = [](const Engine& engine) {
      std::size_t bytes = 0;
      for (const MemoryLine& line : engine.memory()) bytes += line.bytes;
      return bytes;
    };
    EXPECT_GT(total(*watched), total(*alone));
    EXPECT_LT(total(*watched) - total(*alone), watched->grads().bytes() / 2) << "a second gradient would cost more";
    checked_step(*watched, setup.batch(0), 1);
    EXPECT_LE(watched->arena().high_water_bytes(), watched->arena().plan().peak_bytes());
    EXPECT_EQ(alone->shadow(), nullptr);
  }
  Fixture setup("llama_tied", kLengths);
  EXPECT_EQ(setup.engine(checked(options_of(RecipeKind::none)))->shadow(), nullptr);
}

}  // namespace
}  // namespace llmfp8::testing
