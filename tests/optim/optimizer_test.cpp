// AdamWOptimizer: layout, names, memory, decay rule, fp32 sources, scalars. Runs on a backend in plain host memory.
#include "optim/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <set>

#include "backend/cpu/adamw.h"
#include "backend/plan/plan_ops.h"
#include "core/adamw_math.h"

namespace llmfp8 {
namespace {

// Every operation but AdamW does nothing.
class AdamwOnlyOps : public PlanOps {
 public:
  explicit AdamwOnlyOps(Arena& arena) : PlanOps(*this, arena) {}

 protected:
  void do_adamw(const AdamwArgs& args) override { cpu::adamw(args); }
};

class HostBackend : public Backend {
 public:
  std::string_view name() const override { return "host"; }
  const Capabilities& capabilities() const override { return capabilities_; }
  Buffer allocate(std::size_t bytes, std::string_view) override {
    allocated_bytes += bytes;
    return Buffer(std::calloc(1, bytes + 1), bytes, [](void* p) { std::free(p); });
  }
  Buffer allocate_host(std::size_t bytes, std::string_view what) override { return allocate(bytes, what); }
  std::unique_ptr<Stream> create_stream(StreamUse) override { return std::make_unique<Stream>(); }
  std::unique_ptr<Event> create_event(EventKind) override { return std::make_unique<Event>(); }
  double elapsed_ms(Event&, Event&) override { return 0.0; }
  void record(Event&, Stream&) override {}
  void wait(Stream&, Event&) override {}
  void synchronize(Event&) override {}
  void synchronize(Stream&) override {}
  void copy_to_device(void* to, const void* from, std::size_t bytes, Stream&) override { std::memcpy(to, from, bytes); }
  void copy_to_host(void* to, const void* from, std::size_t bytes, Stream&) override { std::memcpy(to, from, bytes); }
  std::unique_ptr<Ops> create_ops(Stream&, Arena& arena) override { return std::make_unique<AdamwOnlyOps>(arena); }

  std::size_t allocated_bytes = 0;

 private:
  Capabilities capabilities_;
};

class OptimizerTest : public ::testing::Test {
 protected:
  // A matrix of two blocks and a bit, and a norm.
  std::vector<OptimizedParam> params(DType dtype) {
    matrix_.assign(600 * 4, std::byte{});
    norm_.assign(8 * 4, std::byte{});
    return {{"model.layers.0.mlp.up_proj.weight", Tensor(matrix_.data(), dtype, Shape{20, 30}), true, 4},
            {"model.norm.weight", Tensor(norm_.data(), dtype, Shape{8}), false, 9}};
  }

  HostBackend backend_;
  std::vector<std::byte> matrix_, norm_;
};

TEST_F(OptimizerTest, AllocatesWhatTheMemoryTableSays) {
  for (const OptimState state : {OptimState::fp32, OptimState::bf16, OptimState::eight_bit}) {
    for (const WeightUpdate update : {WeightUpdate::exact, WeightUpdate::stochastic, WeightUpdate::python}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        HostBackend backend;
        OptimizerConfig config;
        config.state = state;
        config.weight_update = update;
        const AdamWOptimizer optimizer(backend, params(dtype), config);
        const OptimizerMemory memory = optimizer.memory_bytes();
        EXPECT_EQ(backend.allocated_bytes, memory.total_bytes());
        EXPECT_EQ(memory.scale_bytes > 0, state == OptimState::eight_bit);
        EXPECT_EQ(memory.remainder_bytes > 0, update == WeightUpdate::exact && dtype == DType::bf16);
        const std::size_t size = state == OptimState::fp32 ? 4 : state == OptimState::bf16 ? 2 : 1;
        EXPECT_GE(memory.m_bytes, 608 * size);
        EXPECT_LE(memory.m_bytes, 608 * size + 2 * 256);
        std::size_t in_tensors = 0;
        std::set<std::string> names;
        for (const NamedTensor& entry : optimizer.state_tensors()) {
          in_tensors += entry.tensor.bytes();
          EXPECT_TRUE(names.insert(entry.name).second);
          EXPECT_EQ(reinterpret_cast<std::uintptr_t>(entry.tensor.data) % size_bytes(entry.tensor.dtype), 0u);
        }
        EXPECT_LE(in_tensors, memory.total_bytes());
      }
    }
  }
}

TEST_F(OptimizerTest, StateIsFoundByItsCheckpointName) {
  OptimizerConfig config;
  config.state = OptimState::eight_bit;
  const AdamWOptimizer optimizer(backend_, params(DType::bf16), config);
  const std::string param = "model.layers.0.mlp.up_proj.weight";
  EXPECT_EQ(optimizer.state_tensors().size(), 10u);
  EXPECT_EQ(optimizer.state_tensor("optimizer.m." + param).dtype, DType::u8);
  EXPECT_EQ(optimizer.state_tensor("optimizer.v_scale." + param).shape, (Shape{3}));
  EXPECT_EQ(optimizer.state_tensor("optimizer.remainder." + param).shape, (Shape{600}));
  EXPECT_THROW(optimizer.state_tensor("optimizer.m.lm_head.weight"), Error);
}

TEST_F(OptimizerTest, StepUpdatesEveryParameterAndDecaysWhereTold) {
  AdamWOptimizer optimizer(backend_, params(DType::f32), {});
  const std::vector<float> ones(600, 1.0f);
  optimizer.set_master(0, ones.data());
  optimizer.set_master(1, ones.data());
  std::vector<float> grad0(600, 0.0f), grad1(8, 0.0f);
  grad1[3] = 2.0f;
  const Tensor grads[] = {Tensor(grad0.data(), DType::f32, Shape{20, 30}), Tensor(grad1.data(), DType::f32, Shape{8})};
  StepScalars scalars;
  optimizer.fill_scalars(scalars, 1, 0.1, 1.0, 42);
  scalars.grad_scale = 1.0f;
  scalars.step_ok = 1;
  Arena arena;
  AdamwOnlyOps ops(arena);
  optimizer.step(ops, grads, &scalars);
  const auto* matrix = reinterpret_cast<const float*>(matrix_.data());
  const auto* norm = reinterpret_cast<const float*>(norm_.data());
  EXPECT_FLOAT_EQ(matrix[599], 1.0f - 0.1f * 0.01f);
  EXPECT_EQ(norm[2], 1.0f);
  EXPECT_FLOAT_EQ(norm[3], 0.9f);
  EXPECT_THROW(optimizer.step(ops, std::span(grads, 1), &scalars), Error);
}

TEST_F(OptimizerTest, MastersKeepAllBitsOnlyWithARemainder) {
  std::vector<float> source(600);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = std::sin(static_cast<float>(i) + 0.1f);
  AdamWOptimizer exact(backend_, params(DType::bf16), {});
  exact.set_master(0, source.data());
  const auto* hi = reinterpret_cast<const std::uint16_t*>(matrix_.data());
  const auto* lo = exact.state_tensor("optimizer.remainder.model.layers.0.mlp.up_proj.weight").as<std::uint16_t>();
  for (std::size_t i = 0; i < source.size(); ++i) EXPECT_EQ(join_master(SplitFloat{hi[i], lo[i]}), source[i]);

  OptimizerConfig config;
  config.weight_update = WeightUpdate::stochastic;
  AdamWOptimizer rounded(backend_, params(DType::bf16), config);
  rounded.set_master(0, source.data());
  hi = reinterpret_cast<const std::uint16_t*>(matrix_.data());
  for (std::size_t i = 0; i < source.size(); ++i) EXPECT_EQ(hi[i], to_bf16(source[i]).bits);
}

TEST_F(OptimizerTest, ScalarsOfAStep) {
  const AdamWOptimizer optimizer(backend_, params(DType::f32), {});
  StepScalars scalars;
  scalars.step_ok = 1;
  scalars.loss_sum = 3.0;
  optimizer.fill_scalars(scalars, 7, 2e-5, 1.0, 42);
  EXPECT_EQ(scalars.step, 7u);
  EXPECT_EQ(scalars.learning_rate, 2e-5f);
  EXPECT_EQ(scalars.max_grad_norm, 1.0f);
  EXPECT_NEAR(scalars.bias_correction1, 1 - std::pow(0.9, 7), 1e-6);
  EXPECT_NEAR(scalars.bias_correction2, 1 - std::pow(0.999, 7), 2e-7);
  EXPECT_EQ(scalars.step_ok, 0u);
  EXPECT_EQ(scalars.loss_sum, 0.0);
  EXPECT_THROW(optimizer.fill_scalars(scalars, 0, 2e-5, 1.0, 42), Error);
  std::set<std::uint64_t> keys;
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    for (std::uint32_t t = 1; t <= 100; ++t) {
      optimizer.fill_scalars(scalars, t, 1e-5, 1.0, seed);
      keys.insert(scalars.rounding_key);
    }
  }
  EXPECT_EQ(keys.size(), 1000u);
}

TEST_F(OptimizerTest, RefusesParametersThatShareRandomBits) {
  std::vector<OptimizedParam> twice = params(DType::bf16);
  twice[1].index = twice[0].index;
  EXPECT_THROW(AdamWOptimizer(backend_, twice, {}), Error);
}

}  // namespace
}  // namespace llmfp8
