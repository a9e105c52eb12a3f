// The promises that later work stands on: a bad step changes nothing, the cut of a step does not matter, tails and stale
// memory change no bit, recomputing changes no bit, the arena is what was planned, the ledger says what ran.
#include <limits>
#include <numeric>

#include "train/engine_support.h"

namespace llmfp8::testing {
namespace {

using State = std::vector<std::vector<std::byte>>;

const std::vector<RecipeKind> kAllRecipes = {RecipeKind::none, RecipeKind::standard, RecipeKind::hybrid,
                                             RecipeKind::mxfp8, RecipeKind::current};

std::string label(RecipeKind recipe) { return std::string(Recipe(recipe).name()); }

EngineOptions bf16_options(RecipeKind recipe) {
  EngineOptions options;
  options.recipe = recipe;
  options.fp8_lm_head = recipe != RecipeKind::none;
  options.optimizer.weight_decay = 0.01;
  return options;
}

std::vector<float> values_of(Engine& engine, const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.numel()));
  engine.backend().copy_to_host(values.data(), tensor.data, tensor.bytes(), engine.stream());
  engine.backend().synchronize(engine.stream());
  return values;
}

// ---- a bad step

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

void check_bad_step(const EngineOptions& options, const std::string& what) {
  Fixture setup("llama_untied", {{40, 30, 20}, {50, 11}});
  const auto engine = setup.engine(options), untouched = setup.engine(options);
  for (std::size_t step = 0; step < 6; ++step) {
    ASSERT_TRUE(engine->train_step(setup.batch(step % 2), 1e-3, 1.0).ok);
    ASSERT_TRUE(untouched->train_step(setup.batch(step % 2), 1e-3, 1.0).ok);
  }
  const State before = state_bytes(*engine);
  PoisonedReducer poison(*engine, ParamKind::down, 17, kNan);
  engine->set_reducer(&poison);
  const StepResult bad = engine->train_step(setup.batch(1), 1e-3, 1.0);
  EXPECT_FALSE(bad.ok) << what;
  EXPECT_TRUE(std::isnan(bad.grad_norm)) << what;
  EXPECT_EQ(engine->steps_done(), 6);
  EXPECT_TRUE(state_bytes(*engine) == before) << what << ": the bad step changed something";

  engine->set_reducer(nullptr);
  const StepResult good = engine->train_step(setup.batch(0), 1e-3, 1.0),
                   wanted = untouched->train_step(setup.batch(0), 1e-3, 1.0);
  EXPECT_TRUE(good.ok);
  EXPECT_EQ(good.loss, wanted.loss) << what;
  const State after = state_bytes(*engine);
  EXPECT_TRUE(after == state_bytes(*untouched)) << what << ": the step after a bad one differs from one without it";
  EXPECT_FALSE(after == before) << what;
}

// A host that runs ahead has enqueued the next step before it can know.
TEST(BadStep, StepsEnqueuedBehindItChangeNothingEither) {
  Fixture setup("llama_untied", {{40, 30, 20}, {50, 11}});
  const auto engine = setup.engine(bf16_options(RecipeKind::standard)), untouched = setup.engine(bf16_options(RecipeKind::standard));
  ASSERT_TRUE(engine->train_step(setup.batch(0), 1e-3, 1.0).ok);
  ASSERT_TRUE(untouched->train_step(setup.batch(0), 1e-3, 1.0).ok);
  const State before = state_bytes(*engine);
  PoisonedReducer poison(*engine, ParamKind::down, 17, kNan);
  engine->set_reducer(&poison);
  engine->enqueue_step(setup.batch(1), 1e-3, 1.0);
  engine->set_reducer(nullptr);
  engine->enqueue_step(setup.batch(0), 1e-3, 1.0);
  EXPECT_THROW(engine->enqueue_step(setup.batch(0), 1e-3, 1.0), Error);  // kStepsInFlight
  EXPECT_FALSE(engine->next_result().ok);
  EXPECT_FALSE(engine->next_result().ok);
  EXPECT_THROW(engine->next_result(), Error);
  EXPECT_EQ(engine->steps_done(), 1);
  EXPECT_TRUE(state_bytes(*engine) == before);
  // Once every result is known it goes on as if nothing had been.
  ASSERT_TRUE(engine->train_step(setup.batch(1), 1e-3, 1.0).ok);
  ASSERT_TRUE(untouched->train_step(setup.batch(1), 1e-3, 1.0).ok);
  EXPECT_TRUE(state_bytes(*engine) == state_bytes(*untouched));
}

TEST(Steps, EnqueuedAheadGiveTheSameBytes) {
  Fixture setup("llama_untied", {{40, 30, 20}, {50, 11}});
  const auto ahead = setup.engine(bf16_options(RecipeKind::hybrid)), waiting = setup.engine(bf16_options(RecipeKind::hybrid));
  std::vector<StepResult> early, late;
  for (std::size_t step = 0; step < 5; ++step) {
    ahead->enqueue_step(setup.batch(step % 2), 1e-3, 1.0);
    if (ahead->steps_in_flight() == Engine::kStepsInFlight) early.push_back(ahead->next_result());
    late.push_back(waiting->train_step(setup.batch(step % 2), 1e-3, 1.0));
  }
  while (ahead->steps_in_flight() > 0) early.push_back(ahead->next_result());
  ASSERT_EQ(early.size(), late.size());
  for (std::size_t step = 0; step < early.size(); ++step) {
    EXPECT_EQ(early[step].loss, late[step].loss);
    EXPECT_EQ(early[step].num_tokens, late[step].num_tokens);
  }
  EXPECT_TRUE(state_bytes(*ahead) == state_bytes(*waiting));
}

TEST(BadStep, ChangesNotOneByteWhateverTheRecipe) {
  for (RecipeKind recipe : kAllRecipes) check_bad_step(bf16_options(recipe), label(recipe));
}

TEST(BadStep, ChangesNotOneByteWhateverTheOptimizerState) {
  for (OptimState state : {OptimState::bf16, OptimState::eight_bit}) {
    for (WeightUpdate update : {WeightUpdate::exact, WeightUpdate::stochastic}) {
      EngineOptions options = bf16_options(RecipeKind::standard);
      options.optimizer.state = state;
      options.optimizer.weight_update = update;
      check_bad_step(options, "state " + std::to_string(static_cast<int>(state)));
    }
  }
  EngineOptions fp32 = bf16_options(RecipeKind::none);
  fp32.dtype = DType::f32;
  check_bad_step(fp32, "fp32");
}

TEST(BadStep, InfiniteLossIsOneToo) {
  Fixture setup("llama_untied", {{20}});
  EngineOptions options = bf16_options(RecipeKind::standard);
  options.fp8_lm_head = false;  // a cast to FP8 would bring the infinities back to the largest finite value
  const auto engine = setup.engine(options);
  ASSERT_TRUE(engine->train_step(setup.batch(0), 1e-3, 1.0).ok);
  const State before = state_bytes(*engine);
  // Weights so large that the logits overflow.
  const Tensor head = engine->params().weight(engine->params().table().find(ParamKind::final_norm).index);
  std::vector<std::uint16_t> huge(static_cast<std::size_t>(head.numel()), 0x7F7F), kept(huge.size());
  engine->backend().copy_to_host(kept.data(), head.data, head.bytes(), engine->stream());
  engine->backend().copy_to_device(head.data, huge.data(), head.bytes(), engine->stream());
  EXPECT_FALSE(engine->train_step(setup.batch(0), 1e-3, 1.0).ok);
  engine->backend().copy_to_device(head.data, kept.data(), head.bytes(), engine->stream());
  EXPECT_TRUE(state_bytes(*engine) == before);
  EXPECT_TRUE(engine->train_step(setup.batch(0), 1e-3, 1.0).ok);
}

// ---- ranks

// Adds what another rank has computed (captured from its engine) to this one's, as an all-reduce would.
class OtherRank : public RankReducer {
 public:
  explicit OtherRank(Engine& other) : grads_(all(other)), amaxes_(values_of(other, other.fp8().history().amaxes())) {}
  OtherRank(Engine& other, double loss_sum, std::uint32_t num_supervised) : OtherRank(other) {
    loss_sum_ = loss_sum;
    num_supervised_ = num_supervised;
  }
  void bind(Engine& engine) { engine_ = &engine; }
  void max_amaxes(const Tensor& amaxes) override {
    for (std::size_t i = 0; i < amaxes_.size(); ++i) amaxes.as<float>()[i] = std::max(amaxes.as<float>()[i], amaxes_[i]);
  }
  void sum_gradients(GradTarget&, StepScalars* scalars) override {
    std::size_t k = 0;
    for (const ParamSpec& spec : engine_->params().table().params()) {
      const Tensor& grad = engine_->grads().grad(spec.index);
      for (std::int64_t i = 0; i < grad.numel(); ++i) grad.as<float>()[i] += grads_[k++];
    }
    scalars->loss_sum += loss_sum_;
    scalars->num_supervised += num_supervised_;
  }
  void sum_squares(StepScalars*) override {}

 private:
  static std::vector<float> all(Engine& engine) {
    std::vector<float> values;
    for (const ParamSpec& spec : engine.params().table().params()) {
      const std::vector<float> part = values_of(engine, engine.grads().grad(spec.index));
      values.insert(values.end(), part.begin(), part.end());
    }
    return values;
  }
  Engine* engine_ = nullptr;
  std::vector<float> grads_, amaxes_;
  double loss_sum_ = 0;
  std::uint32_t num_supervised_ = 0;
};

// Two ranks with a micro-batch each make the same step as one rank with both: loss, norm, weights and scales.
TEST(EngineRanks, TwoRanksEqualOneWithBothMicroBatches) {
  Fixture setup("llama_tied", {{40, 30, 20}, {50, 11}});
  EngineOptions options;
  options.recipe = RecipeKind::hybrid;
  options.fp8_start = Fp8Start::te;  // equal scales without a calibration, which would see one micro-batch here and two there
  const auto whole = setup.engine(options), first = setup.engine(options), second = setup.engine(options);
  const HostBatch both[] = {setup.batches[0].host, setup.batches[1].host};
  const StepResult wanted = whole->train_step(both, 1e-3, 1.0);

  const StepResult half = first->gradients(setup.batch(0));
  OtherRank other(*first, half.loss * static_cast<double>(half.num_supervised), static_cast<std::uint32_t>(half.num_supervised));
  other.bind(*second);
  second->set_reducer(&other);
  const StepResult found = second->train_step(setup.batch(1), 1e-3, 1.0);

  EXPECT_EQ(found.num_supervised, wanted.num_supervised);
  EXPECT_NEAR(found.loss, wanted.loss, 1e-12 * wanted.loss);  // fp64 sums, in another order
  // The gradients are the same fp32 sums but for their order: one rounding each.
  EXPECT_NEAR(found.grad_norm, wanted.grad_norm, 1e-6 * wanted.grad_norm);
  EXPECT_EQ(values_of(*second, second->fp8().history().scales()), values_of(*whole, whole->fp8().history().scales()));
}

// ---- the cut of a step

const std::vector<std::int64_t> kTwelve = {31, 12, 40, 25, 9, 37, 18, 22, 33, 5, 28, 16};

// The same twelve documents as (documents a micro-batch) x (micro-batches), each a batch of its own.
std::vector<ParityBatch> cut(const ParityBatch& whole, std::int64_t docs_each) {
  std::vector<ParityBatch> parts;
  for (std::int64_t first = 0; first < whole.host.counts.num_docs; first += docs_each) {
    ParityBatch part;
    part.host.cu_seqlens = {0};
    for (std::int64_t d = first; d < first + docs_each; ++d) {
      const HostBatch one = single_document(whole, d).host;
      const auto offset = static_cast<std::int32_t>(part.host.tokens.size());
      const auto n = static_cast<std::size_t>(one.counts.num_tokens);
      for (std::size_t t = 0; t < n; ++t) {
        part.host.tokens.push_back(one.tokens[t]);
        part.host.labels.push_back(one.labels[t]);
        part.host.positions.push_back(one.positions[t]);
      }
      for (std::int32_t i = 0; i < one.counts.num_supervised; ++i) {
        part.host.supervised_rows.push_back(offset + one.supervised_rows[static_cast<std::size_t>(i)]);
      }
      part.host.cu_seqlens.push_back(static_cast<std::int32_t>(part.host.tokens.size()));
      part.host.max_doc_tokens = std::max(part.host.max_doc_tokens, one.max_doc_tokens);
    }
    close_batch(part.host);
    parts.push_back(part);
  }
  return parts;
}

struct Cuts {
  std::unique_ptr<Backend> backend = create_cpu_backend();
  std::vector<std::vector<HostBatch>> steps;  // the whole first, then its cuts
  BatchLimits limits;

  explicit Cuts(const std::string& model) {
    const ParityBatch whole = random_batch(config_of(model), kTwelve, 7);
    std::vector<ParityBatch> all = {whole};
    const std::vector<std::int64_t> sizes = {6, 4, 3, 2, 1};
    for (std::int64_t size : sizes) {
      for (ParityBatch& part : cut(whole, size)) all.push_back(part);
    }
    limits = align_batches(all);
    std::size_t next = 0;
    for (std::int64_t size :
         {std::int64_t{12}, std::int64_t{6}, std::int64_t{4}, std::int64_t{3}, std::int64_t{2}, std::int64_t{1}}) {
      std::vector<HostBatch> step;
      for (std::int64_t i = 0; i < 12 / size; ++i) step.push_back(all[next++].host);
      steps.push_back(step);
    }
  }
};

// One step at rate 0 gives every engine the same scales; then amaxes of a step do not depend on its cut, to the last bit.
TEST(CutOfAStep, AmaxesDoNotChange) {
  for (RecipeKind recipe : {RecipeKind::standard, RecipeKind::hybrid}) {
    Cuts cuts("llama_tied");
    EngineOptions options = bf16_options(recipe);
    const auto engine = golden_engine(*cuts.backend, model_dir("llama_tied"), options, cuts.limits);
    ASSERT_TRUE(engine->train_step(cuts.steps[0], 0.0, 1.0).ok);
    const StepResult whole = engine->gradients(cuts.steps[0]);
    const std::vector<float> amaxes = values_of(*engine, engine->fp8().history().amaxes());
    EXPECT_TRUE(std::all_of(amaxes.begin(), amaxes.end(), [](float amax) { return amax > 0.0f; }));
    for (const auto& step : cuts.steps) {
      const StepResult parts = engine->gradients(step);
      EXPECT_TRUE(same_bits(values_of(*engine, engine->fp8().history().amaxes()), amaxes))
          << label(recipe) << ", " << step.size() << " micro-batches";
      EXPECT_EQ(parts.num_supervised, whole.num_supervised);
      EXPECT_NEAR(parts.loss, whole.loss, 1e-12);
    }
  }
}

// Gradients are fp32 sums over the same rows in another order: a few hundred terms, a few 2^-24.
TEST(CutOfAStep, GradientIsTheSameToRounding) {
  for (const char* model : kModels) {
    for (RecipeKind recipe : {RecipeKind::none, RecipeKind::standard}) {
      for (DType dtype : {DType::f32, DType::bf16}) {
        if (dtype == DType::f32 && recipe != RecipeKind::none) continue;
        Cuts cuts(model);
        EngineOptions options = bf16_options(recipe);
        options.dtype = dtype;
        const auto engine = golden_engine(*cuts.backend, model_dir(model), options, cuts.limits);
        ASSERT_TRUE(engine->train_step(cuts.steps[0], 0.0, 1.0).ok);
        ASSERT_TRUE(engine->gradients(cuts.steps[0]).ok);
        const HfTensors whole = hf_gradients(*engine, 1.0);
        for (const auto& step : cuts.steps) {
          ASSERT_TRUE(engine->gradients(step).ok);
          for (const auto& [name, tensor] : hf_gradients(*engine, 1.0)) {
            EXPECT_LT(rel_l2(tensor.values, whole.at(name).values), 3e-6)
                << model << " " << label(recipe) << " " << llmfp8::name(dtype) << " " << name << ", " << step.size()
                << " micro-batches";
          }
        }
      }
    }
  }
}

// ---- tails and stale memory

// Everything beyond the counts: NaN patterns, huge and negative numbers.
HostBatch with_garbage(HostBatch batch) {
  std::uint32_t x = 0x7FC00001u;
  const auto fill = [&](std::vector<std::int32_t>& values, std::int32_t from) {
    for (std::size_t i = static_cast<std::size_t>(from); i < values.size(); ++i) {
      values[i] = static_cast<std::int32_t>(x);
      x = i % 3 == 0 ? 0x7FC00001u : x * 1664525u + 1013904223u;
    }
  };
  fill(batch.tokens, batch.counts.num_tokens);
  fill(batch.labels, batch.counts.num_tokens);
  fill(batch.positions, batch.counts.num_tokens);
  fill(batch.supervised_rows, batch.counts.num_supervised);
  return batch;
}

TEST(Tail, GarbageChangesNoBit) {
  for (RecipeKind recipe : kAllRecipes) {
    // 1 token beyond a multiple of 128, a full batch but one, and a single supervised document.
    Fixture setup("qwen2", {{100, 29}, {127}, {2}});
    const auto clean = setup.engine(bf16_options(recipe)), dirty = setup.engine(bf16_options(recipe));
    for (std::size_t step = 0; step < 3; ++step) {
      const HostBatch garbage = with_garbage(setup.batches[step].host);
      const StepResult a = clean->train_step(setup.batch(step), 1e-3, 1.0),
                       b = dirty->train_step({&garbage, 1}, 1e-3, 1.0);
      ASSERT_TRUE(a.ok && b.ok);
      EXPECT_EQ(a.loss, b.loss);
      EXPECT_EQ(a.grad_norm, b.grad_norm);
      EXPECT_TRUE(same_bits(hf_gradients(*clean, 1.0), hf_gradients(*dirty, 1.0))) << label(recipe);
      EXPECT_TRUE(state_bytes(*clean) == state_bytes(*dirty)) << label(recipe) << " step " << step;
    }
  }
}

// What an earlier, larger batch left in the arena and in the device's batch is not seen.
TEST(Tail, StaleMemoryChangesNoBit) {
  for (RecipeKind recipe : kAllRecipes) {
    Fixture setup("llama_tied", {{60, 50, 40, 100}, {33, 10}});
    EngineOptions options = bf16_options(recipe);
    options.fp8_start = Fp8Start::te;
    const auto fresh = setup.engine(options), used = setup.engine(options);
    ASSERT_TRUE(used->gradients(setup.batch(0)).ok);
    const StepResult a = fresh->gradients(setup.batch(1)), b = used->gradients(setup.batch(1));
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_TRUE(same_bits(hf_gradients(*fresh, 1.0), hf_gradients(*used, 1.0))) << label(recipe);
  }
}

// The same tokens in a batch of a larger capacity.
TEST(Tail, CapacityChangesNoBit) {
  for (RecipeKind recipe : kAllRecipes) {
    Fixture setup("llama_untied", {{33, 10}, {300}});
    HostBatch roomy = setup.batches[0].host;
    roomy.capacity = setup.batches[1].host.capacity;
    for (auto* values : {&roomy.tokens, &roomy.labels, &roomy.positions, &roomy.supervised_rows}) {
      values->resize(static_cast<std::size_t>(roomy.capacity), 0x7FC00001);
    }
    const auto tight = setup.engine(bf16_options(recipe)), loose = setup.engine(bf16_options(recipe));
    const StepResult a = tight->train_step(setup.batch(0), 1e-3, 1.0), b = loose->train_step({&roomy, 1}, 1e-3, 1.0);
    EXPECT_EQ(a.loss, b.loss) << label(recipe);
    EXPECT_EQ(a.grad_norm, b.grad_norm) << label(recipe);
    EXPECT_TRUE(state_bytes(*tight) == state_bytes(*loose)) << label(recipe);
  }
}

// ---- recompute

TEST(RecomputeLevels, GiveIdenticalBytes) {
  for (RecipeKind recipe : kAllRecipes) {
    Fixture setup("qwen2", {{40, 50, 60}, {20, 70}});
    State wanted;
    HfTensors gradients;
    for (Recompute level : kRecomputeLevels) {
      EngineOptions options = bf16_options(recipe);
      options.recompute = level;
      const auto engine = setup.engine(options);
      const std::vector<HostBatch> both = hosts(setup.batches);
      for (int step = 0; step < 2; ++step) ASSERT_TRUE(engine->train_step(both, 1e-3, 1.0).ok);
      if (level == Recompute::none) {
        wanted = state_bytes(*engine);
        gradients = hf_gradients(*engine, 1.0);
        continue;
      }
      EXPECT_TRUE(same_bits(hf_gradients(*engine, 1.0), gradients))
          << label(recipe) << " level " << static_cast<int>(level);
      EXPECT_TRUE(state_bytes(*engine) == wanted) << label(recipe) << " level " << static_cast<int>(level);
    }
  }
}

TEST(RecomputeLevels, EachNeedsLessMemoryThanTheOneBefore) {
  Fixture setup("qwen2", {{200, 300}});
  std::size_t before = std::numeric_limits<std::size_t>::max();
  for (Recompute level : kRecomputeLevels) {
    EngineOptions options = bf16_options(RecipeKind::standard);
    options.recompute = level;
    const std::size_t bytes = setup.engine(options)->arena().plan().peak_bytes();
    EXPECT_LT(bytes, before) << static_cast<int>(level);
    before = bytes;
  }
}

// ---- arena

TEST(ArenaOfTheEngine, IsUsedUpToThePlannedPeak) {
  for (RecipeKind recipe : kAllRecipes) {
    Fixture setup("llama_tied", {{100}, {300, 20}});
    EngineOptions options = bf16_options(recipe);
    options.eval_limits = setup.limits;
    const auto engine = setup.engine(options);
    EXPECT_EQ(engine->arena().high_water_bytes(), 0u);
    // Train and evaluate with two capacities each, the optimizer step, the weights in FP8; calibrate with two capacities.
    EXPECT_EQ(engine->arena().plan().phases.size(), Recipe(recipe).delayed() ? 8u : 6u) << label(recipe);
    for (const ParityBatch& batch : setup.batches) {
      ASSERT_TRUE(engine->train_step({&batch.host, 1}, 1e-3, 1.0).ok);
      EXPECT_GT(engine->evaluate(batch.host).loss_sum, 0.0);
    }
    EXPECT_EQ(engine->arena().high_water_bytes(), engine->arena().plan().peak_bytes()) << label(recipe);
    EXPECT_EQ(engine->memory().back().what, "activations and scratch");
    EXPECT_EQ(engine->memory().back().bytes, engine->arena().plan().peak_bytes());
  }
}

TEST(ArenaOfTheEngine, WhatWasNotPlannedThrows) {
  Fixture setup("llama_tied", {{100}, {300, 20}});
  const auto engine = setup.engine(bf16_options(RecipeKind::none));
  HostBatch other = random_batch(engine->config(), {200}, 3).host;
  other.cu_seqlens.resize(setup.batches[0].host.cu_seqlens.size(), other.counts.num_tokens);
  EXPECT_THROW(engine->train_step({&other, 1}, 1e-3, 1.0), Error);  // capacity 256
  EXPECT_THROW(engine->evaluate(setup.batches[0].host), Error);     // made without evaluation
  Arena planned(engine->arena().plan(), reinterpret_cast<void*>(kArenaAlignment), engine->arena().plan().peak_bytes());
  EXPECT_THROW(planned.begin_phase("micro-step of 256 tokens"), Error);
  planned.begin_phase("micro-step of 128 tokens");
  EXPECT_THROW(planned.take("something else", DType::f32, Shape{1}), Error);
  planned.abandon_phase();
}

// A step that throws half-way leaves an engine that can go on.
TEST(ArenaOfTheEngine, SurvivesAnException) {
  Fixture setup("llama_tied", {{100}});
  const auto engine = setup.engine(bf16_options(RecipeKind::none)),
             untouched = setup.engine(bf16_options(RecipeKind::none));
  HostBatch bad = setup.batches[0].host;
  bad.labels[0] = static_cast<std::int32_t>(engine->config().vocab_size);
  EXPECT_THROW(engine->train_step({&bad, 1}, 1e-3, 1.0), Error);
  ASSERT_TRUE(engine->train_step(setup.batch(0), 1e-3, 1.0).ok);
  ASSERT_TRUE(untouched->train_step(setup.batch(0), 1e-3, 1.0).ok);
  EXPECT_TRUE(state_bytes(*engine) == state_bytes(*untouched));
}

// ---- evaluation

TEST(Evaluation, IsInHighPrecisionAndChangesNothing) {
  for (RecipeKind recipe : kAllRecipes) {
    Fixture setup("llama_untied", {{100, 50}});
    EngineOptions options = bf16_options(recipe), bf16 = bf16_options(RecipeKind::none);
    options.eval_limits = bf16.eval_limits = setup.limits;
    const auto engine = setup.engine(options), plain = setup.engine(bf16);
    const State before = state_bytes(*engine);
    const EvalResult result = engine->evaluate(setup.batches[0].host);
    EXPECT_EQ(result.loss_sum, plain->evaluate(setup.batches[0].host).loss_sum) << label(recipe);
    EXPECT_EQ(result.num_supervised, setup.batches[0].host.counts.num_supervised);
    EXPECT_TRUE(state_bytes(*engine) == before) << label(recipe);
  }
}

// ---- what really ran

// What a recorded micro-step counts when it is launched over other numbers of rows.
TEST(Ledger, AddsAPassOverOtherRows) {
  Fixture setup("llama_tied", {{100}, {37}});
  const auto records_of = [&](const std::vector<std::size_t>& batches) {
    const auto engine = setup.engine(bf16_options(RecipeKind::standard));
    EXPECT_TRUE(engine->train_step(setup.batch(0), 1e-3, 1.0).ok);  // calibrates
    engine->ledger().clear();
    for (const std::size_t i : batches) EXPECT_TRUE(engine->train_step(setup.batch(i), 1e-3, 1.0).ok);
    return engine->ledger();
  };
  const BatchCounts first = setup.batches[0].host.counts, second = setup.batches[1].host.counts;
  const GemmLedger of_first = records_of({0}), wanted = records_of({0, 1});
  for (const Product product : {Product::qkv, Product::down, Product::lm_head}) {
    for (const GemmPass pass : {GemmPass::fprop, GemmPass::dgrad, GemmPass::wgrad}) {
      GemmLedger of_one(2), sum(2);
      std::vector<GemmRecord> records = of_first.records();
      for (std::size_t i = 0; i < records.size(); ++i) records[i].flops /= i < 3 ? first.num_supervised : first.num_tokens;
      of_one.set_records(records);
      sum.add(of_one, first.num_tokens, first.num_supervised);
      sum.add(of_one, second.num_tokens, second.num_supervised);
      const Site site{1, product};
      EXPECT_EQ(sum.find(site, pass).calls, wanted.find(site, pass).calls);
      EXPECT_EQ(sum.find(site, pass).scaling, wanted.find(site, pass).scaling);
      EXPECT_NEAR(sum.find(site, pass).flops, wanted.find(site, pass).flops, 1e-9 * wanted.find(site, pass).flops);
      EXPECT_GT(sum.find(site, pass).flops, of_first.find(site, pass).flops);
    }
  }
}

TEST(Ledger, SaysTheFormatsThatRan) {
  struct Want {
    RecipeKind recipe;
    DType attention_gradient, mlp_gradient;
    Scaling scaling;
    bool just_in_time;
  };
  const Want wants[] = {{RecipeKind::standard, DType::e5m2, DType::e4m3, Scaling::tensor, false},
                        {RecipeKind::hybrid, DType::e5m2, DType::e5m2, Scaling::tensor, false},
                        {RecipeKind::mxfp8, DType::e4m3, DType::e4m3, Scaling::mx_1x32, false},
                        {RecipeKind::current, DType::e5m2, DType::e5m2, Scaling::tensor, true}};
  for (const Want& want : wants) {
    for (bool head : {false, true}) {
      Fixture setup("llama_tied", {{100}});
      EngineOptions options = bf16_options(want.recipe);
      options.fp8_lm_head = head;
      const auto engine = setup.engine(options);
      ASSERT_TRUE(engine->train_step(setup.batch(0), 1e-3, 1.0).ok);
      const GemmLedger& ledger = engine->ledger();
      for (Product product : {Product::qkv, Product::o, Product::gate_up, Product::down, Product::lm_head}) {
        for (int layer = 0; layer < 2; ++layer) {
          for (GemmPass pass : {GemmPass::fprop, GemmPass::dgrad, GemmPass::wgrad}) {
            const GemmRecord& r = ledger.find({layer, product}, pass);
            const bool fp8 = head || product != Product::lm_head;
            const bool mlp = product == Product::gate_up || product == Product::down;
            const DType gradient = mlp ? want.mlp_gradient : want.attention_gradient;
            EXPECT_EQ(r.calls, 1);
            EXPECT_EQ(r.scaling, fp8 ? want.scaling : Scaling::none);
            EXPECT_EQ(r.a, !fp8                      ? DType::bf16
                           : pass == GemmPass::fprop ? DType::e4m3
                                                     : gradient)
                << label(want.recipe) << name(product);
            EXPECT_EQ(r.b, fp8 ? DType::e4m3 : DType::bf16);
            EXPECT_EQ(r.just_in_time, fp8 && want.just_in_time);
          }
        }
      }
      const ModelConfig& c = engine->config();
      const double layers =
          2.0 * static_cast<double>(c.hidden_size * (c.qkv_size() + c.q_size() + 3 * c.intermediate_size)) * 100.0;
      const double supervised = static_cast<double>(setup.batches[0].host.counts.num_supervised);
      const double head_work = static_cast<double>(c.hidden_size * c.vocab_size) * supervised;
      EXPECT_NEAR(ledger.fp8_share(), head ? 1.0 : layers / (layers + head_work), 1e-9);
    }
  }
  Fixture setup("llama_tied", {{100}});
  const auto bf16 = setup.engine(bf16_options(RecipeKind::none));
  ASSERT_TRUE(bf16->train_step(setup.batch(0), 1e-3, 1.0).ok);
  EXPECT_EQ(bf16->ledger().fp8_share(), 0.0);
}

// A recipe's first step is one of sane scales: with calibration no code saturates and none is lost, so that the loss of
// step 0 is as near to bf16's as just-in-time scaling brings it.
TEST(Fp8Start, CalibratedScalesAreThoseOfTheFirstBatch) {
  Fixture setup("llama_tied", {{100}});
  EngineOptions delayed = bf16_options(RecipeKind::hybrid), current = bf16_options(RecipeKind::current);
  const auto a = setup.engine(delayed), b = setup.engine(current);
  // The same formats and, by the calibration, the same scales: the same bits.
  EXPECT_EQ(a->gradients(setup.batch(0)).loss, b->gradients(setup.batch(0)).loss);
  delayed.fp8_start = Fp8Start::te;
  const auto te = setup.engine(delayed);
  te->gradients(setup.batch(0));
  const std::vector<float> scales = values_of(*te, te->fp8().history().scales());
  EXPECT_TRUE(std::all_of(scales.begin(), scales.end(), [](float scale) { return scale == 1.0f; }));
}

}  // namespace
}  // namespace llmfp8::testing
