// Where the scaling state of every matrix lies, what a step clears and updates, and the QTensors made from it.
#include "fp8/amax_history.h"

#include <cstring>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "core/fp8_scaling.h"
#include "fp8/quantizer.h"

namespace llmfp8 {
namespace {

constexpr int kLayers = 3;
constexpr Product kLayerList[] = {Product::qkv, Product::o, Product::gate_up, Product::down};

struct Fixture {
  std::unique_ptr<Backend> backend = create_cpu_backend();
  std::unique_ptr<Stream> stream = backend->create_stream();
  Arena arena;
  std::unique_ptr<Ops> ops = backend->create_ops(*stream, arena);
  Buffer scalars_buffer = backend->allocate(sizeof(StepScalars), "scalars");

  AmaxHistory history(const Recipe& recipe) { return AmaxHistory(recipe, kLayers, *backend, *stream); }
  const StepScalars* scalars(bool ok) {
    StepScalars host;
    host.step_ok = ok ? 1 : 0;
    backend->copy_to_device(scalars_buffer.data(), &host, sizeof host, *stream);
    backend->synchronize(*stream);
    return static_cast<StepScalars*>(scalars_buffer.data());
  }
  float get(const Tensor& one) {
    float value = 0;
    backend->copy_to_host(&value, one.data, sizeof value, *stream);
    backend->synchronize(*stream);
    return value;
  }
  void set(const Tensor& one, float value) {
    backend->copy_to_device(one.data, &value, sizeof value, *stream);
    backend->synchronize(*stream);
  }
};

TEST(AmaxHistory, SlotsAreDistinctWeightsFirst) {
  Fixture f;
  const AmaxHistory history = f.history(Recipe(RecipeKind::standard, true));
  EXPECT_EQ(history.num_slots(), 3 * (4 * kLayers + 1));
  std::set<int> seen;
  for (Role role : {Role::weight, Role::input, Role::gradient}) {
    for (int layer = 0; layer < kLayers; ++layer)
      for (Product product : kLayerList) seen.insert(history.slot({layer, product}, role));
    seen.insert(history.slot({0, Product::lm_head}, role));
    EXPECT_EQ(history.slot({0, Product::lm_head}, role), history.slot({2, Product::lm_head}, role));
  }
  EXPECT_EQ(seen.size(), static_cast<std::size_t>(history.num_slots()));
  EXPECT_EQ(*seen.begin(), 0);
  EXPECT_EQ(*seen.rbegin(), history.num_slots() - 1);
  EXPECT_LT(history.slot({2, Product::down}, Role::weight), history.num_slots() / 3);
  EXPECT_LT(history.slot({0, Product::lm_head}, Role::weight), history.num_slots() / 3);
  EXPECT_GE(history.slot({0, Product::qkv}, Role::input), history.num_slots() / 3);
  EXPECT_GE(history.slot({0, Product::qkv}, Role::gradient), 2 * history.num_slots() / 3);
}

TEST(AmaxHistory, PartsDoNotOverlapAndScalesAreAligned) {
  Fixture f;
  const AmaxHistory history = f.history(Recipe(RecipeKind::standard, true));
  EXPECT_EQ(history.histories().shape, (Shape{history.num_slots(), 16}));
  const std::uintptr_t end_alignment = 16;
  std::vector<std::pair<const std::byte*, const std::byte*>> ranges;
  for (const Tensor& part : {history.scales(), history.scale_invs(), history.amaxes(), history.histories()}) {
    ranges.emplace_back(part.as<std::byte>(), part.as<std::byte>() + part.bytes());
  }
  for (std::size_t i = 0; i < ranges.size(); ++i)
    for (std::size_t j = i + 1; j < ranges.size(); ++j)
      EXPECT_TRUE(ranges[i].second <= ranges[j].first || ranges[j].second <= ranges[i].first);
  for (int slot = 0; slot < history.num_slots(); ++slot) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(history.scale(slot).data) % end_alignment, 0u);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(history.scale_inv(slot).data) % end_alignment, 0u);
    EXPECT_EQ(f.get(history.scale(slot)), 1.0f);
    EXPECT_EQ(f.get(history.scale_inv(slot)), 1.0f);
    EXPECT_EQ(f.get(history.amax(slot)), 0.0f);
  }
}

// A weight's amax is measured when it is cast, at the end of a step; it must survive the start of the next.
TEST(AmaxHistory, BeginStepKeepsTheWeights) {
  Fixture f;
  const AmaxHistory history = f.history(Recipe(RecipeKind::standard, true));
  for (int slot = 0; slot < history.num_slots(); ++slot) f.set(history.amax(slot), 3.0f);
  history.begin_step(*f.ops);
  for (int slot = 0; slot < history.num_slots(); ++slot) {
    EXPECT_EQ(f.get(history.amax(slot)), slot < history.num_slots() / 3 ? 3.0f : 0.0f) << slot;
  }
}

TEST(AmaxHistory, UpdateGivesEachSlotTheScaleOfItsFormat) {
  Fixture f;
  const Recipe recipe(RecipeKind::standard, false);
  const AmaxHistory history = f.history(recipe);
  for (int slot = 0; slot < history.num_slots(); ++slot) f.set(history.amax(slot), 2.0f);
  history.update(*f.ops, f.scalars(true));
  const auto expect = [&](Site site, Role role, float scale) {
    EXPECT_EQ(f.get(history.scale(history.slot(site, role))), scale) << name(site.product) << " " << name(role);
    EXPECT_EQ(f.get(history.scale_inv(history.slot(site, role))), 1.0f / scale);
  };
  for (int layer = 0; layer < kLayers; ++layer) {
    for (Product product : kLayerList) {
      const bool mlp = product == Product::gate_up || product == Product::down;
      expect({layer, product}, Role::input, 224.0f);
      expect({layer, product}, Role::weight, 224.0f);
      expect({layer, product}, Role::gradient, mlp ? 224.0f : 28672.0f);
    }
  }
  // The head is not quantised: its slots stay.
  for (Role role : {Role::input, Role::weight, Role::gradient}) expect({0, Product::lm_head}, role, 1.0f);
}

TEST(AmaxHistory, BadStepAndOtherRecipesUpdateNothing) {
  Fixture f;
  const AmaxHistory delayed = f.history(Recipe(RecipeKind::hybrid)), current = f.history(Recipe(RecipeKind::current));
  for (const AmaxHistory* history : {&delayed, &current}) {
    f.set(history->amax(0), 2.0f);
    history->update(*f.ops, f.scalars(history == &current));
    EXPECT_EQ(f.get(history->scale(0)), 1.0f);
    EXPECT_EQ(f.get(history->histories().slice_rows(0, 1)), 0.0f);
  }
}

// Sixteen steps later the largest amax has left the window.
TEST(AmaxHistory, RemembersSixteenSteps) {
  Fixture f;
  const AmaxHistory history = f.history(Recipe(RecipeKind::hybrid));
  const int slot = history.slot({1, Product::down}, Role::input);
  f.set(history.amax(slot), 8.0f);
  history.update(*f.ops, f.scalars(true));
  f.set(history.amax(slot), 1.0f);
  for (int step = 0; step < 15; ++step) {
    history.update(*f.ops, f.scalars(true));
    EXPECT_EQ(f.get(history.scale(slot)), 56.0f) << step;
  }
  history.update(*f.ops, f.scalars(true));
  EXPECT_EQ(f.get(history.scale(slot)), 448.0f);
}

TEST(Quantizer, MakesTheFormsThatAreAskedFor) {
  Fixture f;
  std::vector<Buffer> storage;
  std::vector<std::string> parts;
  const AllocateTensor allocate = [&](std::string_view what, DType dtype, Shape shape) {
    parts.emplace_back(what);
    storage.push_back(f.backend->allocate(static_cast<std::size_t>(shape.numel()) * size_bytes(dtype), what));
    return storage.back().tensor(dtype, shape);
  };
  const Usages both{true, true};
  const Site site{1, Product::gate_up};

  Fp8State delayed(Recipe(RecipeKind::standard), kLayers, *f.backend, *f.stream);
  QTensor q = delayed.quantizer(site, Role::input).create(Shape{128, 64}, DType::bf16, both, allocate);
  EXPECT_EQ(q.scaling, Scaling::tensor);
  EXPECT_EQ(q.rowwise.shape, (Shape{128, 64}));
  EXPECT_EQ(q.columnwise.shape, (Shape{64, 128}));
  EXPECT_EQ(q.scale.data, delayed.history().scale(delayed.history().slot(site, Role::input)).data);
  EXPECT_EQ(q.amax.data, delayed.history().amax(delayed.history().slot(site, Role::input)).data);
  EXPECT_EQ(q.rowwise_scale_inv.data, q.columnwise_scale_inv.data);
  EXPECT_FALSE(q.just_in_time);
  delayed.set_calibrating(true);
  EXPECT_TRUE(delayed.quantizer(site, Role::input).create(Shape{128, 64}, DType::bf16, both, allocate).just_in_time);

  Fp8State mx(Recipe(RecipeKind::mxfp8), kLayers, *f.backend, *f.stream);
  q = mx.quantizer(site, Role::gradient).create(Shape{128, 64}, DType::bf16, both, allocate);
  EXPECT_EQ(q.scaling, Scaling::mx_1x32);
  EXPECT_EQ(q.format, DType::e4m3);
  EXPECT_EQ(q.columnwise.shape, (Shape{128, 64}));
  EXPECT_EQ(q.rowwise_scale_inv.shape, (Shape{128, 2}));
  EXPECT_EQ(q.columnwise_scale_inv.shape, (Shape{4, 64}));
  EXPECT_FALSE(q.just_in_time);

  Fp8State current(Recipe(RecipeKind::current), kLayers, *f.backend, *f.stream);
  EXPECT_TRUE(
      current.quantizer(site, Role::weight).create(Shape{64, 64}, DType::bf16, {true, false}, allocate).just_in_time);

  parts.clear();
  q = current.quantizer({0, Product::lm_head}, Role::input).create(Shape{128, 64}, DType::bf16, both, allocate);
  EXPECT_FALSE(q.quantized());
  EXPECT_EQ(q.format, DType::bf16);
  EXPECT_EQ(parts, (std::vector<std::string>{"values"}));
}

}  // namespace
}  // namespace llmfp8
