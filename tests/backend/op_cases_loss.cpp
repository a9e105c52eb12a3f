#include <cmath>
#include <limits>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "op_cases.h"
#include "op_harness.h"

namespace llmfp8::testing {
namespace {

constexpr std::int64_t kRows = 21, kOffset = 7;
std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// live: rows of this chunk below the count, which counts from row 0 of all chunks.
void cross_entropy_case(Backend& backend, DType a, std::int64_t live, std::int64_t vocab) {
  Device device(backend);
  const auto logits = rounded(random_values(kRows * vocab, 1, 5.0f), a);
  const auto labels = random_integers(kRows, 2, static_cast<std::int32_t>(vocab));
  const auto out = expect_blind_to_tail(device, [&](float tail) {
    auto wild = labels;
    for (std::int64_t r = live; r < kRows; ++r) wild[at(r)] = tail == 0.0f ? 0 : -100;
    CrossEntropyArgs args{device.upload(with_tail(logits, vocab, live, tail), a, Shape{kRows, vocab}),
                          device.upload(wild, Shape{kRows}),
                          device.count(static_cast<std::int32_t>(live + kOffset)),
                          kOffset,
                          false,
                          device.garbage(DType::f32, Shape{kRows})};
    CrossEntropyArgs with_gradient = args;
    with_gradient.with_gradient = true;
    with_gradient.token_loss = device.garbage(DType::f32, Shape{kRows});
    device.run([&](Ops& ops) {
      ops.cross_entropy(args);
      ops.cross_entropy(with_gradient);
    });
    EXPECT_EQ(device.bytes(args.token_loss), device.bytes(with_gradient.token_loss));
    return std::vector<Tensor>{args.token_loss, args.logits};
  });
  std::vector<Expected> loss(at(kRows)), gradient(at(kRows * vocab));
  for (std::int64_t r = 0; r < live; ++r) {
    double total = 0, largest = -1e30;
    for (std::int64_t v = 0; v < vocab; ++v) largest = std::max(largest, double{logits[at(r * vocab + v)]});
    for (std::int64_t v = 0; v < vocab; ++v) total += std::exp(logits[at(r * vocab + v)] - largest);
    loss[at(r)].add(std::log(total));
    loss[at(r)].add(largest - logits[at(r * vocab + labels[at(r)])]);
    loss[at(r)].magnitude += 1;
    for (std::int64_t v = 0; v < vocab; ++v) {
      const double below = logits[at(r * vocab + v)] - largest, p = std::exp(below) / total;
      gradient[at(r * vocab + v)].add(p);
      gradient[at(r * vocab + v)].magnitude += p * std::abs(below);  // the rounding of the exponent
      if (v == labels[at(r)]) gradient[at(r * vocab + v)].add(-1.0);
    }
  }
  expect_close("loss", device.floats(out[0]), loss, DType::f32, 8);
  expect_close("gradient", device.floats(out[1]), gradient, a, 8);
  expect_zero_tail(device, "loss", out[0], live);
  expect_zero_tail(device, "gradient", out[1], live);
}

void cross_entropy_extremes(Backend& backend) {
  Device device(backend);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor logits = device.upload({1000.0f, -1000.0f, 0.0f, 1.0f, nan, 2.0f}, DType::f32, Shape{2, 3});
  const Tensor loss = device.garbage(DType::f32, Shape{2}),
               labels = device.upload(std::vector<std::int32_t>{1, 0}, Shape{2});
  const Tensor count = device.count(2);
  device.run([&](Ops& ops) { ops.cross_entropy({logits, labels, count, 0, true, loss}); });
  EXPECT_EQ(device.floats(loss)[0], 2000.0f);
  EXPECT_TRUE(std::isnan(device.floats(loss)[1]));  // a bad logit must reach step_ok
  EXPECT_EQ(device.floats(logits)[0], 1.0f);
  EXPECT_EQ(device.floats(logits)[1], -1.0f);
}

void rows_case(Backend& backend, std::int64_t live) {
  Device device(backend);
  constexpr std::int64_t kSource = 40, kWidth = 33;
  const auto x = random_values(kSource * kWidth, 1);
  std::vector<std::int32_t> index(at(kRows + kOffset));
  for (std::size_t i = 0; i < index.size(); ++i) {
    const bool used = static_cast<std::int64_t>(i) < live + kOffset;
    index[i] = used ? static_cast<std::int32_t>((i * 7) % kSource) : -5;  // beyond the count: undefined
  }
  std::vector<std::int32_t> ids(at(kSource));
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(1000 + i);
  const Tensor source = device.upload(x, DType::f32, Shape{kSource, kWidth}),
               positions = device.upload(index, Shape{kRows + kOffset});
  const Tensor count = device.count(static_cast<std::int32_t>(live + kOffset)),
               out = device.garbage(DType::f32, Shape{kRows, kWidth});
  const Tensor labels = device.upload(ids, Shape{kSource}), picked = device.garbage(DType::i32, Shape{kRows});
  const Tensor target =
      device.upload(std::vector<float>(at(kSource * kWidth), 5.0f), DType::f32, Shape{kSource, kWidth});
  device.run([&](Ops& ops) {
    ops.gather_rows({source, positions, count, kOffset, out});
    ops.gather_rows({labels, positions, count, kOffset, picked});
    ops.scatter_rows({out, positions, count, kOffset, target});
  });
  std::vector<float> want(at(kRows * kWidth)), spread(at(kSource * kWidth), 5.0f);
  std::vector<std::int32_t> want_ids(at(kRows));
  for (std::int64_t r = 0; r < live; ++r) {
    const std::int64_t from = index[at(r + kOffset)];
    want_ids[at(r)] = ids[at(from)];
    for (std::int64_t c = 0; c < kWidth; ++c)
      want[at(r * kWidth + c)] = spread[at(from * kWidth + c)] = x[at(from * kWidth + c)];
  }
  EXPECT_EQ(device.floats(out), want);
  EXPECT_EQ(device.floats(target), spread);
  const auto raw = device.bytes(picked);
  EXPECT_EQ(0, std::memcmp(raw.data(), want_ids.data(), raw.size()));
}

std::vector<std::int32_t> integers(Device& device, const Tensor& t) {
  const auto raw = device.bytes(t);
  std::vector<std::int32_t> values(at(t.numel()));
  std::memcpy(values.data(), raw.data(), raw.size());
  return values;
}

// The lowest id among equals; draws follow softmax within five standard deviations; top_p keeps the smallest set.
void sample_case(Backend& backend, DType a) {
  Device device(backend);
  const std::vector<float> logits{0.0f, 2.0f, 1.0f, 2.0f, -1.0f};
  constexpr std::int64_t kDraws = 4000, kVocab = 5;
  std::vector<float> many;
  for (std::int64_t i = 0; i < kDraws; ++i) many.insert(many.end(), logits.begin(), logits.end());
  const Tensor t = device.upload(many, a, Shape{kDraws, kVocab});
  const Tensor greedy = device.garbage(DType::i32, Shape{kDraws}), drawn = device.garbage(DType::i32, Shape{kDraws});
  const Tensor again = device.garbage(DType::i32, Shape{kDraws}), narrow = device.garbage(DType::i32, Shape{kDraws});
  device.run([&](Ops& ops) {
    ops.sample({t, 0.0f, 1.0f, 1, 2, greedy});
    ops.sample({t, 2.0f, 1.0f, 1, 2, drawn});
    ops.sample({t, 2.0f, 1.0f, 1, 2, again});
    ops.sample({t, 2.0f, 0.6f, 1, 3, narrow});
  });
  EXPECT_EQ(integers(device, greedy), std::vector<std::int32_t>(at(kDraws), 1));
  EXPECT_EQ(integers(device, drawn), integers(device, again));
  double total = 0;
  for (float l : logits) total += std::exp(l / 2.0);
  std::vector<double> counts(at(kVocab));
  for (std::int32_t id : integers(device, drawn)) counts[at(id)] += 1;
  for (std::int64_t v = 0; v < kVocab; ++v) {
    const double p = std::exp(logits[at(v)] / 2.0) / total;
    EXPECT_NEAR(counts[at(v)], p * kDraws, 5 * std::sqrt(kDraws * p * (1 - p))) << "token " << v;
  }
  // Masses 0.33, 0.33, 0.20, …: 0.6 takes tokens 1 and 3.
  for (std::int32_t id : integers(device, narrow)) EXPECT_TRUE(id == 1 || id == 3) << id;
}

void scalars_case(Backend& backend) {
  Device device(backend);
  const auto loss = random_values(kRows, 1);
  const auto finish = [&](const StepScalars& start) {
    StepScalars* s = device.scalars(start);
    device.run([&](Ops& ops) { ops.finish_gradient(s); });
    return device.download(s);
  };
  StepScalars start;
  StepScalars* s = device.scalars(start);
  const Tensor t =
      device.upload(with_tail(loss, 1, 11, std::numeric_limits<float>::quiet_NaN()), DType::f32, Shape{kRows});
  const Tensor count = device.count(18);
  device.run([&](Ops& ops) {
    ops.accumulate_loss(t, count, kOffset, s);
    ops.accumulate_loss(t, count, kOffset, s);
  });
  double want = 0;
  for (std::int64_t r = 0; r < 11; ++r) want += loss[at(r)];
  EXPECT_NEAR(device.download(s).loss_sum, 2 * want, 1e-12);
  EXPECT_EQ(device.download(s).num_supervised, 22u);

  start.num_supervised = 10;
  start.grad_sum_squares = 400.0;
  start.loss_sum = 5.0;
  start.max_grad_norm = 1.0f;
  StepScalars done = finish(start);
  EXPECT_FLOAT_EQ(done.inv_denominator, 0.1f);
  EXPECT_FLOAT_EQ(done.grad_norm, 2.0f);
  EXPECT_FLOAT_EQ(done.grad_scale, 0.1f / (2.0f + 1e-6f));
  EXPECT_EQ(done.step_ok, 1u);
  start.max_grad_norm = 0.0f;
  EXPECT_FLOAT_EQ(finish(start).grad_scale, 0.1f);
  start.max_grad_norm = 5.0f;
  EXPECT_FLOAT_EQ(finish(start).grad_scale, 0.1f);
  StepScalars bad = start;
  bad.loss_sum = std::numeric_limits<double>::infinity();
  EXPECT_EQ(finish(bad).step_ok, 0u);
  bad = start;
  bad.grad_sum_squares = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(finish(bad).step_ok, 0u);
  bad = start;
  bad.num_supervised = 0;
  done = finish(bad);
  EXPECT_EQ(done.step_ok, 0u);
  EXPECT_EQ(done.inv_denominator, 0.0f);
  EXPECT_EQ(done.grad_scale, 0.0f);
}

}  // namespace

void add_loss_cases(std::vector<OpCase>& cases) {
  for (DType a : {DType::f32, DType::bf16}) {
    for (std::int64_t live : {std::int64_t{0}, std::int64_t{1}, kRows - 1, kRows}) {
      cases.push_back({fmt::format("cross_entropy/{}/{}", name(a), live),
                       [=](Backend& b) { cross_entropy_case(b, a, live, 1237); }});
    }
    cases.push_back({fmt::format("cross_entropy/{}/large_vocabulary", name(a)),
                     [=](Backend& b) { cross_entropy_case(b, a, 2, 150001); }});
    cases.push_back({fmt::format("sample/{}", name(a)), [=](Backend& b) { sample_case(b, a); }});
  }
  cases.push_back({"cross_entropy/extremes", cross_entropy_extremes});
  for (std::int64_t live : {std::int64_t{0}, std::int64_t{1}, kRows - 1, kRows}) {
    cases.push_back({fmt::format("gather_scatter/{}", live), [=](Backend& b) { rows_case(b, live); }});
  }
  cases.push_back({"step_scalars", scalars_case});
}

}  // namespace llmfp8::testing
