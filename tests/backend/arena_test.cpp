// The arena: a plan without overlaps, replayed exactly, and refused where a run departs from it.
#include <gtest/gtest.h>

#include "backend/arena.h"
#include "backend/plan/plan_ops.h"
#include "backend/registry.h"
#include "core/rng.h"

namespace llmfp8 {
namespace {

// Takes and releases tensors in an order that depends on the seed alone.
void play(Arena& arena, std::uint64_t seed, int events) {
  std::vector<ArenaTensor> held;
  for (int i = 0; i < events; ++i) {
    const Philox4 bits = philox4x32(seed, static_cast<std::uint64_t>(i), 0);
    if (bits.x[0] % 3 == 0 && !held.empty()) {
      held.erase(held.begin() + bits.x[1] % held.size());
    } else {
      const std::int64_t n = 1 + bits.x[2] % 3000;
      held.push_back(arena.take("block " + std::to_string(i), DType::u8, Shape{n}));
      if (arena.planning()) continue;
      // Fills its block; the check below sees whether another block that is alive was hit.
      std::uint8_t* data = held.back().get().as<std::uint8_t>();
      std::fill_n(data, n, static_cast<std::uint8_t>(i));
    }
    for (const ArenaTensor& t : held) {
      if (arena.planning()) break;
      const std::uint8_t* data = t.get().as<std::uint8_t>();
      for (std::int64_t k = 0; k < t.get().numel(); ++k) ASSERT_EQ(data[k], data[0]);
    }
  }
}

void expect_no_overlap(const PhasePlan& phase) {
  for (std::size_t i = 0; i < phase.blocks.size(); ++i) {
    const PlannedBlock& a = phase.blocks[i];
    EXPECT_EQ(a.offset % kArenaAlignment, 0u);
    EXPECT_LE(a.offset + a.bytes, phase.peak_bytes);
    for (std::size_t j = 0; j < i; ++j) {
      const PlannedBlock& b = phase.blocks[j];
      const bool together = a.first < b.last && b.first < a.last;
      const bool apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
      EXPECT_TRUE(!together || apart) << a.what << " and " << b.what;
    }
  }
}

TEST(Arena, PlansWithoutOverlapAndReplays) {
  Arena planner;
  for (std::uint64_t seed : {1u, 2u, 3u}) {
    planner.begin_phase("phase " + std::to_string(seed));
    play(planner, seed, 300);
    planner.end_phase();
  }
  std::size_t largest = 0;
  for (const auto& [name, phase] : planner.plan().phases) {
    expect_no_overlap(phase);
    largest = std::max(largest, phase.peak_bytes);
  }
  EXPECT_EQ(planner.plan().peak_bytes(), largest);

  std::vector<std::byte> memory(planner.plan().peak_bytes() + kArenaAlignment);
  Arena arena(planner.plan(), memory.data(), memory.size());
  for (std::uint64_t seed : {3u, 1u, 2u, 1u}) {
    arena.begin_phase("phase " + std::to_string(seed));
    play(arena, seed, 300);
    arena.end_phase();
  }
  EXPECT_EQ(arena.high_water_bytes(), planner.plan().peak_bytes());
}

TEST(Arena, ReusesMemory) {
  Arena planner;
  planner.begin_phase("p");
  for (int i = 0; i < 10; ++i) planner.take("t", DType::f32, Shape{1000});
  planner.end_phase();
  EXPECT_EQ(planner.plan().peak_bytes(), 4096u);
}

TEST(Arena, RefusesWhatWasNotPlanned) {
  Arena planner;
  planner.begin_phase("p");
  planner.take("a", DType::f32, Shape{100});
  planner.take("b", DType::f32, Shape{100});
  planner.end_phase();
  EXPECT_THROW(planner.take("outside", DType::f32, Shape{1}), Error);
  std::vector<std::byte> memory(planner.plan().peak_bytes());
  EXPECT_THROW(Arena(planner.plan(), memory.data(), memory.size() - 1), Error);

  Arena arena(planner.plan(), memory.data(), memory.size());
  EXPECT_THROW(arena.begin_phase("q"), Error);
  arena.begin_phase("p");
  EXPECT_THROW(arena.take("b", DType::f32, Shape{100}), Error);  // another name
  arena.abandon_phase();
  arena.begin_phase("p");
  EXPECT_THROW(arena.take("a", DType::f32, Shape{200}), Error);  // another size
  arena.abandon_phase();
  arena.begin_phase("p");
  arena.take("a", DType::f32, Shape{100});
  EXPECT_THROW(arena.end_phase(), Error);  // one too few
  arena.abandon_phase();
  arena.begin_phase("p");
  arena.take("a", DType::f32, Shape{100});
  arena.take("b", DType::f32, Shape{100});
  EXPECT_THROW(arena.take("c", DType::f32, Shape{100}), Error);  // one too many
  arena.abandon_phase();
  arena.begin_phase("p");
  {
    const ArenaTensor held = arena.take("a", DType::f32, Shape{100});
    EXPECT_THROW(arena.begin_phase("p"), Error);
    EXPECT_THROW(arena.end_phase(), Error);  // still taken
  }
}

// PlanOps on shapes alone takes, block by block, the scratch that the real Ops takes when it runs.
TEST(PlanOps, TakesTheScratchOfTheRealOps) {
  const std::unique_ptr<Backend> backend = create_cpu_backend();
  const std::unique_ptr<Stream> stream = backend->create_stream();
  constexpr std::int64_t kTokens = 256, kHidden = 64;
  const AttentionShape shape{2, 1, 32, 100, 1.0f};
  std::vector<Buffer> buffers;
  const auto body = [&](Ops& ops, bool real) {
    const auto tensor = [&](DType dtype, Shape s) {
      Tensor t(nullptr, dtype, s);
      if (!real) return t;
      buffers.push_back(backend->allocate(t.bytes(), "test"));
      t.data = buffers.back().data();
      return t;
    };
    const Tensor count = tensor(DType::i32, Shape{1}), x = tensor(DType::bf16, Shape{kTokens, kHidden});
    const Tensor qkv = tensor(DType::bf16, Shape{kTokens, 4 * 32}), out = tensor(DType::bf16, Shape{kTokens, 2 * 32});
    const Tensor lse = tensor(DType::f32, Shape{2, kTokens}), cu = tensor(DType::i32, Shape{4});
    const Tensor weight = tensor(DType::bf16, Shape{kHidden}), rstd = tensor(DType::f32, Shape{kTokens});
    const GradDestination d_weight{tensor(DType::f32, Shape{kHidden}), false};
    const GradDestination d_table{tensor(DType::f32, Shape{50, kHidden}), false};
    const Tensor w = tensor(DType::bf16, Shape{96, kHidden}), y = tensor(DType::bf16, Shape{kTokens, 96});
    QTensor q;
    q.scaling = Scaling::tensor;
    q.format = DType::e4m3;
    q.shape = Shape{kTokens, kHidden};
    q.rowwise = tensor(DType::u8, q.shape);
    q.scale = tensor(DType::f32, Shape{1});
    q.rowwise_scale_inv = tensor(DType::f32, Shape{1});
    ops.attention({shape, qkv, cu, count, out, lse});
    ops.attention_backward({shape, out, qkv, out, lse, cu, count, qkv});
    ops.rmsnorm_quantize({x, weight, count, 1e-5, q, rstd});
    ops.rmsnorm_backward({x, x, weight, rstd, count, Tensor(), x, d_weight});
    ops.embedding_backward({x, tensor(DType::i32, Shape{kTokens}), count, d_table});
    GemmArgs gemm;
    gemm.a = QTensor::high_precision(x);
    gemm.b = QTensor::high_precision(w);
    gemm.bias = tensor(DType::bf16, Shape{96});
    gemm.out = y;
    gemm.num_rows = count;
    ops.gemm(gemm);
  };
  Arena planner;
  const auto real = backend->create_ops(*stream, planner);
  PlanOps plan_ops(*real, planner);
  planner.begin_phase("step");
  body(plan_ops, false);
  planner.end_phase();
  EXPECT_GT(planner.plan().peak_bytes(), 0u);
  const Buffer memory = backend->allocate(planner.plan().peak_bytes(), "arena");
  Arena arena(planner.plan(), memory.data(), memory.bytes());
  const auto ops = backend->create_ops(*stream, arena);
  arena.begin_phase("step");
  EXPECT_NO_THROW(body(*ops, true));
  EXPECT_NO_THROW(arena.end_phase());
  EXPECT_EQ(arena.high_water_bytes(), planner.plan().peak_bytes());
}

TEST(Backend, AllocatesZeroedAndAligned) {
  const std::unique_ptr<Backend> backend = create_cpu_backend();
  for (std::size_t bytes : {std::size_t{1}, std::size_t{1000}, std::size_t{3000001}}) {
    const Buffer buffer = backend->allocate(bytes, "test");
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % kArenaAlignment, 0u);
    for (std::size_t i = 0; i < bytes; ++i) ASSERT_EQ(static_cast<const std::uint8_t*>(buffer.data())[i], 0);
  }
  EXPECT_TRUE(backend->capabilities().fp8_tensor.available);
  EXPECT_EQ(backend->capabilities().mxfp8.reason, "emulated exactly");
  EXPECT_FALSE(backend->capabilities().matmul.empty());
  try {
    backend->allocate(std::size_t{1} << 60, "the weights");
    FAIL() << "an exabyte was allocated";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("the weights"), std::string::npos);
  }
}

}  // namespace
}  // namespace llmfp8
