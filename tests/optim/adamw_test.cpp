// cpu::adamw: against a double reference, exact mode against fp32, decay of the second moment, pieces, bad steps.
#include "backend/cpu/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "core/adamw_math.h"
#include "core/thread_pool.h"

namespace llmfp8 {
namespace {

struct Storage {
  DType param = DType::f32;
  bool remainder = false;
  bool stochastic = true;
  DType grad = DType::f32;
  DType state = DType::f32;
};

// One parameter with its state in host memory.
class Problem {
 public:
  Problem(const Storage& storage, std::int64_t n) : storage_(storage), n_(n) {
    const auto bytes = [n](DType dtype) {
      return std::vector<std::byte>(static_cast<std::size_t>(n) * size_bytes(dtype));
    };
    param_ = bytes(storage.param);
    if (storage.remainder) remainder_ = bytes(DType::u16);
    grad_ = bytes(storage.grad);
    m_ = bytes(storage.state);
    v_ = bytes(storage.state);
    if (storage.state == DType::u8) {
      m_scale_.resize(static_cast<std::size_t>(n + 255) / 256);
      v_scale_ = m_scale_;
    }
    scalars.learning_rate = 1e-3f;
    scalars.grad_scale = 1.0f;
    scalars.step_ok = 1;
    args.beta1 = 0.9f;
    args.beta2 = 0.999f;
    args.eps = 1e-8f;
    args.weight_decay = 0.01f;
    args.param_index = 3;
  }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  AdamwArgs piece(std::int64_t begin, std::int64_t count) {
    AdamwArgs a = args;
    const auto view = [&](std::vector<std::byte>& bytes, DType dtype) {
      return Tensor(bytes.data() + static_cast<std::size_t>(begin) * size_bytes(dtype), dtype, Shape{count});
    };
    a.param = view(param_, storage_.param);
    if (storage_.remainder) a.remainder = view(remainder_, DType::u16);
    a.stochastic_rounding = storage_.stochastic;
    a.grad = view(grad_, storage_.grad);
    a.m = view(m_, storage_.state);
    a.v = view(v_, storage_.state);
    if (storage_.state == DType::u8) {
      a.m_scale = Tensor(m_scale_.data() + begin / 256, DType::f32, Shape{(count + 255) / 256});
      a.v_scale = Tensor(v_scale_.data() + begin / 256, DType::f32, Shape{(count + 255) / 256});
    }
    a.element_offset = static_cast<std::uint64_t>(begin);
    a.scalars = &scalars;
    return a;
  }

  void begin_step(std::uint32_t t) {
    scalars.step = t;
    scalars.bias_correction1 = static_cast<float>(1.0 - std::pow(static_cast<double>(args.beta1), t));
    scalars.bias_correction2 = static_cast<float>(1.0 - std::pow(static_cast<double>(args.beta2), t));
    scalars.rounding_key = 0x9E3779B97F4A7C15u * t;
  }
  void step(std::uint32_t t) {
    begin_step(t);
    cpu::adamw(piece(0, n_));
  }

  void set_grad(std::int64_t i, float x) { put(grad_, storage_.grad, i, x); }
  void set_param(std::int64_t i, float x) { put(param_, storage_.param, i, x); }
  void set_v(std::int64_t i, float x) { put(v_, storage_.state, i, x); }
  float grad(std::int64_t i) { return get(grad_, storage_.grad, i); }
  float param(std::int64_t i) {
    if (!storage_.remainder) return get(param_, storage_.param, i);
    SplitFloat split{};
    std::memcpy(&split.hi, &param_[static_cast<std::size_t>(i) * 2], 2);
    std::memcpy(&split.lo, &remainder_[static_cast<std::size_t>(i) * 2], 2);
    return join_master(split);
  }
  float m(std::int64_t i) {
    const auto k = static_cast<std::size_t>(i);
    return storage_.state == DType::u8 ? decode_m8(static_cast<std::uint8_t>(m_[k]), m_scale_[k / 256])
                                       : get(m_, storage_.state, i);
  }
  float v(std::int64_t i) {
    const auto k = static_cast<std::size_t>(i);
    return storage_.state == DType::u8 ? decode_v8(static_cast<std::uint8_t>(v_[k]), v_scale_[k / 256])
                                       : get(v_, storage_.state, i);
  }

  // Everything that a step may change, as bytes.
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> all;
    for (const auto* part : {&param_, &remainder_, &m_, &v_}) all.insert(all.end(), part->begin(), part->end());
    for (const auto* part : {&m_scale_, &v_scale_}) {
      const auto* raw = reinterpret_cast<const std::byte*>(part->data());
      all.insert(all.end(), raw, raw + part->size() * sizeof(float));
    }
    return all;
  }

  StepScalars scalars;
  AdamwArgs args;

 private:
  static void put(std::vector<std::byte>& to, DType dtype, std::int64_t i, float x) {
    const auto k = static_cast<std::size_t>(i);
    if (dtype == DType::f32) {
      std::memcpy(&to[k * 4], &x, 4);
    } else {
      const bf16 rounded = to_bf16(x);
      std::memcpy(&to[k * 2], &rounded, 2);
    }
  }
  static float get(const std::vector<std::byte>& from, DType dtype, std::int64_t i) {
    const auto k = static_cast<std::size_t>(i);
    if (dtype == DType::f32) {
      float x = 0;
      std::memcpy(&x, &from[k * 4], 4);
      return x;
    }
    bf16 x;
    std::memcpy(&x, &from[k * 2], 2);
    return to_float(x);
  }

  Storage storage_;
  std::int64_t n_;
  std::vector<std::byte> param_, remainder_, grad_, m_, v_;
  std::vector<float> m_scale_, v_scale_;
};

const Storage kAll[] = {
    {DType::f32, false, true, DType::f32, DType::f32},    {DType::bf16, true, true, DType::bf16, DType::f32},
    {DType::bf16, true, true, DType::f32, DType::bf16},   {DType::bf16, true, true, DType::bf16, DType::u8},
    {DType::bf16, false, true, DType::bf16, DType::bf16}, {DType::bf16, false, true, DType::bf16, DType::u8},
    {DType::bf16, false, true, DType::f32, DType::f32},   {DType::bf16, false, false, DType::bf16, DType::bf16},
    {DType::f32, false, true, DType::f32, DType::bf16},   {DType::f32, false, true, DType::f32, DType::u8},
};

void fill_random(Problem& problem, std::int64_t n, std::uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < n; ++i) {
    problem.set_param(i, 0.05f * normal(rng));
    problem.set_grad(i, normal(rng) * std::exp2(static_cast<float>(i % 20) - 15.0f));
  }
}

void new_grads(Problem& problem, std::int64_t n, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < n; ++i) problem.set_grad(i, normal(rng) * std::exp2(static_cast<float>(i % 20) - 15.0f));
}

TEST(Adamw, FollowsTheFormulaInDouble) {
  constexpr std::int64_t kCount = 1003;
  Problem problem({}, kCount);
  fill_random(problem, kCount, 1);
  problem.scalars.grad_scale = 0.37f;
  std::vector<double> p(kCount), m(kCount), v(kCount);
  for (std::int64_t i = 0; i < kCount; ++i) p[static_cast<std::size_t>(i)] = problem.param(i);
  std::mt19937 rng(2);
  const double b1 = problem.args.beta1, b2 = problem.args.beta2, lr = problem.scalars.learning_rate;
  const double eps = problem.args.eps, wd = problem.args.weight_decay;
  for (std::uint32_t t = 1; t <= 20; ++t) {
    new_grads(problem, kCount, rng);
    problem.step(t);
    for (std::size_t i = 0; i < kCount; ++i) {
      const double g = static_cast<double>(problem.grad(static_cast<std::int64_t>(i))) * problem.scalars.grad_scale;
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      p[i] = p[i] * (1 - lr * wd) -
             lr / (1 - std::pow(b1, t)) * m[i] / (std::sqrt(v[i]) / std::sqrt(1 - std::pow(b2, t)) + eps);
    }
  }
  for (std::size_t i = 0; i < kCount; ++i) {
    const auto k = static_cast<std::int64_t>(i);
    // 20 steps of a few roundings each: of p (0.2 at most), and of updates of 1e-3 with m's rounding relative to its
    // addends.
    EXPECT_NEAR(problem.param(k), p[i], 20 * (0.2 * 0x1p-24 * 2 + 1e-3 * 0x1p-24 * 16)) << i;
    EXPECT_NEAR(problem.v(k), v[i], v[i] * 20 * 0x1p-22) << i;
  }
}

TEST(Adamw, EpsLiesOutsideTheBiasCorrection) {
  Problem problem({}, 1);
  problem.args.eps = 0.5f;
  problem.args.weight_decay = 0.0f;
  problem.set_grad(0, 1.0f);
  problem.step(1);
  // m / bc1 = 1, sqrt(v) / sqrt(bc2) = 1: the update is lr / (1 + eps)
  EXPECT_NEAR(problem.param(0), -1e-3 / 1.5, 1e-9);
}

TEST(Adamw, ExactUpdateEqualsFp32BitForBit) {
  constexpr std::int64_t kCount = 777;
  for (const DType state : {DType::f32, DType::bf16, DType::u8}) {
    Problem master({DType::f32, false, true, DType::f32, state}, kCount);
    Problem split({DType::bf16, true, true, DType::f32, state}, kCount);
    fill_random(split, kCount, 5);
    fill_random(master, kCount, 5);
    for (std::int64_t i = 0; i < kCount; ++i) master.set_param(i, split.param(i));
    std::mt19937 rng_a(6), rng_b(6);
    int moved = 0;
    for (std::uint32_t t = 1; t <= 50; ++t) {
      new_grads(master, kCount, rng_a);
      new_grads(split, kCount, rng_b);
      master.scalars.learning_rate = split.scalars.learning_rate = 1e-6f;  // far under a bf16 step of the weights
      master.step(t);
      split.step(t);
      for (std::int64_t i = 0; i < kCount; ++i) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(master.param(i)), std::bit_cast<std::uint32_t>(split.param(i)))
            << i << " step " << t;
        moved += split.param(i) != to_float(to_bf16(split.param(i)));
      }
    }
    EXPECT_GT(moved, 0);
  }
}

TEST(Adamw, BadStepChangesNothing) {
  constexpr std::int64_t kCount = 600;
  for (const Storage& storage : kAll) {
    Problem problem(storage, kCount);
    fill_random(problem, kCount, 9);
    problem.step(1);
    const std::vector<std::byte> before = problem.bytes();
    problem.scalars.step_ok = 0;
    problem.set_grad(5, std::numeric_limits<float>::quiet_NaN());
    problem.step(2);
    EXPECT_EQ(problem.bytes(), before);
    problem.scalars.step_ok = 1;
    problem.step(2);
    EXPECT_NE(problem.bytes(), before);
  }
}

TEST(Adamw, PiecesAndThreadsGiveTheSameBits) {
  constexpr std::int64_t kCount = 256 * 150 + 77;
  const int threads = num_threads();
  for (const Storage& storage : kAll) {
    Problem whole(storage, kCount), pieces(storage, kCount), threaded(storage, kCount);
    for (Problem* problem : {&whole, &pieces, &threaded}) fill_random(*problem, kCount, 11);
    // 8-bit blocks share a scale and may not be cut; everything else may be, anywhere.
    const std::vector<std::int64_t> cuts = storage.state == DType::u8
                                               ? std::vector<std::int64_t>{0, 256, 256 * 40, 256 * 149, kCount}
                                               : std::vector<std::int64_t>{0, 1, 9, 300, 20000, kCount - 3, kCount};
    for (std::uint32_t t = 1; t <= 3; ++t) {
      set_num_threads(1);
      whole.step(t);
      pieces.begin_step(t);
      for (std::size_t c = 0; c + 1 < cuts.size(); ++c) cpu::adamw(pieces.piece(cuts[c], cuts[c + 1] - cuts[c]));
      set_num_threads(3);
      threaded.step(t);
      set_num_threads(threads);
    }
    EXPECT_EQ(whole.bytes(), pieces.bytes());
    EXPECT_EQ(whole.bytes(), threaded.bytes());
  }
  Problem eight_bit({DType::f32, false, true, DType::f32, DType::u8}, 600);
  EXPECT_THROW(cpu::adamw([&] {
                 AdamwArgs a = eight_bit.piece(256, 300);
                 a.element_offset = 100;
                 return a;
               }()),
               Error);
}

// The vectorised draws are those that core/adamw_math.h documents, which other backends follow.
TEST(Adamw, RandomBitsAreTheDocumentedOnes) {
  constexpr std::int64_t kCount = 1000;
  constexpr std::uint64_t kOffset = (1ull << 35) - 256;  // the counter's high word takes part
  Problem problem({DType::bf16, false, true, DType::f32, DType::bf16}, kCount);
  fill_random(problem, kCount, 13);
  problem.begin_step(1);
  std::vector<float> before(kCount);
  for (std::int64_t i = 0; i < kCount; ++i) before[static_cast<std::size_t>(i)] = problem.param(i);
  AdamwArgs args = problem.piece(0, kCount);
  args.element_offset = kOffset;
  cpu::adamw(args);
  const AdamwFactors factors = adamw_factors({args.beta1, args.beta2, args.eps, args.weight_decay}, problem.scalars);
  for (std::int64_t i = 0; i < kCount; ++i) {
    float p = before[static_cast<std::size_t>(i)], m = 0, v = 0;
    adamw_element(factors, problem.grad(i), p, m, v);
    const std::uint64_t e = kOffset + static_cast<std::uint64_t>(i);
    const auto rounded = [&](float x, RoundingStream stream) {
      const Philox4 words = rounding_words(problem.scalars.rounding_key, args.param_index, e);
      return to_float(to_bf16_stochastic(x, rounding_bits(words, e, stream)));
    };
    EXPECT_EQ(problem.param(i), rounded(p, RoundingStream::param)) << i;
    EXPECT_EQ(problem.m(i), rounded(m, RoundingStream::m)) << i;
    EXPECT_EQ(problem.v(i), rounded(v, RoundingStream::v)) << i;
  }
}

// Mean of v over what 0.999^3000 would make of it, with zero gradients but for one element per 256 (`busy`), whose
// gradient keeps the block's largest v, and so its scale, where it is.
double decay_ratio(const Storage& storage, bool busy) {
  // Codes of 3 mantissa bits scatter by half of v by then; so many elements bring the mean's sigma to 0.4 %.
  const std::int64_t count = storage.state == DType::u8 && busy ? 256 * 256 : 256 * 16;
  constexpr std::uint32_t kSteps = 3000;
  Problem problem(storage, count);
  std::mt19937 rng(17);
  std::uniform_real_distribution<float> uniform(0.3f, 3.0f);
  // Through gradients, since v may be codes: one step from zero gives v = 0.001 g^2.
  for (std::int64_t i = 0; i < count; ++i) problem.set_grad(i, busy && i % 256 == 0 ? 3.0f : uniform(rng));
  problem.step(1);
  const auto mean_v = [&] {
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += i % 256 == 0 ? 0.0 : problem.v(i);
    return sum;
  };
  const double start = mean_v();
  for (std::int64_t i = 0; i < count; ++i) problem.set_grad(i, busy && i % 256 == 0 ? 3.0f : 0.0f);
  const int threads = num_threads();
  set_num_threads(1);  // waking a second one costs more than these short steps take
  for (std::uint32_t t = 2; t <= kSteps + 1; ++t) problem.step(t);
  set_num_threads(threads);
  return mean_v() / start / std::pow(static_cast<double>(problem.args.beta2), kSteps);
}

TEST(Adamw, SecondMomentDecaysWhateverItsStorage) {
  for (const DType state : {DType::f32, DType::bf16, DType::u8}) {
    for (const bool busy : {false, true}) {
      EXPECT_NEAR(decay_ratio({DType::bf16, true, true, DType::f32, state}, busy), 1.0, 0.02)
          << name(state) << " " << busy;
    }
  }
  // Rounded to nearest, a bf16 v stays where it is: what the test above is there to catch.
  EXPECT_GT(decay_ratio({DType::bf16, false, false, DType::f32, DType::bf16}, false), 15.0);
}

TEST(Adamw, StochasticBf16WeightsTakeSmallUpdatesOnAverage) {
  constexpr std::int64_t kCount = 256 * 64;
  const auto mean_move = [](bool stochastic) {
    Problem problem({DType::bf16, false, stochastic, DType::f32, DType::f32}, kCount);
    problem.args.weight_decay = 0.0f;
    for (std::int64_t i = 0; i < kCount; ++i) {
      problem.set_param(i, 1.0f);
      problem.set_grad(i, 1.0f);
    }
    problem.scalars.learning_rate = 1e-5f;  // a bf16 step below 1 is 390 times as long
    for (std::uint32_t t = 1; t <= 100; ++t) problem.step(t);
    double sum = 0;
    for (std::int64_t i = 0; i < kCount; ++i) sum += 1.0 - problem.param(i);
    return sum / kCount;
  };
  // 100 steps of 1e-5. A step up or down of 2^-8 with p = 0.00256: the mean's sigma is 2^-8 sqrt(100 p / 16384), 1.5e-5
  EXPECT_NEAR(mean_move(true), 1e-3, 6e-5);
  EXPECT_EQ(mean_move(false), 0.0);
}

// Least squares with columns of very different size, noisy gradients: all storages must reach fp32's loss.
double toy_loss(const Storage& storage) {
  constexpr std::int64_t kCount = 1024;
  Problem problem(storage, kCount);
  problem.args.weight_decay = 0.0f;
  std::mt19937 rng(23);
  std::normal_distribution<float> normal;
  std::vector<float> target(kCount), curvature(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    target[i] = normal(rng);
    curvature[i] = std::exp2(-static_cast<float>(i % 12));
  }
  constexpr std::uint32_t kSteps = 600;
  const auto loss = [&] {
    double sum = 0;
    for (std::size_t i = 0; i < kCount; ++i) {
      const double d = problem.param(static_cast<std::int64_t>(i)) - target[i];
      sum += 0.5 * curvature[i] * d * d;
    }
    return sum / kCount;
  };
  for (std::uint32_t t = 1; t <= kSteps; ++t) {
    for (std::size_t i = 0; i < kCount; ++i) {
      const auto k = static_cast<std::int64_t>(i);
      problem.set_grad(k, curvature[i] * (problem.param(k) - target[i] + 0.3f * normal(rng)));
    }
    problem.scalars.learning_rate = 0.03f * (1.0f - static_cast<float>(t - 1) / kSteps);
    problem.step(t);
  }
  return loss();
}

TEST(Adamw, EightBitReachesTheLossOfFp32OnAToyProblem) {
  const double start = 0.5 * 0.166;  // mean curvature / 2, for unit targets
  const double reference = toy_loss({DType::f32, false, true, DType::f32, DType::f32});
  EXPECT_LT(reference, start / 100);
  EXPECT_LT(toy_loss({DType::f32, false, true, DType::f32, DType::bf16}), 1.1 * reference);
  EXPECT_LT(toy_loss({DType::f32, false, true, DType::f32, DType::u8}), 1.1 * reference);
  EXPECT_LT(toy_loss({DType::bf16, true, true, DType::f32, DType::u8}), 1.1 * reference);
}

// A rarely used row beside a busy one: its moments lie far under the block's largest and must not make a leap.
TEST(Adamw, EightBitUpdatesStayBoundedUnderAHugeNeighbour) {
  for (const float small : {1e-1f, 1e-3f, 1e-5f, 1e-7f, 1e-9f}) {
    Problem problem({DType::f32, false, true, DType::f32, DType::u8}, 256);
    problem.args.weight_decay = 0.0f;
    std::mt19937 rng(29);
    std::normal_distribution<float> normal;
    float largest_move = 0;
    for (std::uint32_t t = 1; t <= 300; ++t) {
      for (std::int64_t i = 0; i < 256; ++i) problem.set_grad(i, normal(rng) * (i == 0 ? 1.0f : small));
      std::vector<float> before(256);
      for (std::int64_t i = 0; i < 256; ++i) before[static_cast<std::size_t>(i)] = problem.param(i);
      problem.step(t);
      for (std::int64_t i = 1; i < 256; ++i) {
        largest_move = std::max(largest_move, std::abs(problem.param(i) - before[static_cast<std::size_t>(i)]));
      }
    }
    // fp32's AdamW moves by about lr at most here; m's rounding may add 2 more.
    EXPECT_LT(largest_move, 4 * problem.scalars.learning_rate) << small;
  }
}

}  // namespace
}  // namespace llmfp8
