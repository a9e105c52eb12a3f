// The arithmetic of a comparison, and the thinning of curves.
#include "report/comparison.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "core/error.h"
#include "report/run_folders.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

using testing::FakeRun;

SeriesPoints curve(const std::vector<double>& values) {
  SeriesPoints points;
  for (std::size_t i = 0; i < values.size(); ++i)
    points.push_back({.step = static_cast<double>(i + 1), .seconds = 0, .tokens = 0, .value = values[i]});
  return points;
}

TEST(CompareRuns, RatiosAndTheLastTenth) {
  const testing::TempDir dir;
  const RunRecord base = read_run(FakeRun{.tokens_per_second = 1000, .memory_mb = 200}.write(dir.path() / "a"));
  const RunRecord run = read_run(
      FakeRun{.precision = "fp8 (default)", .loss_offset = 0.5, .tokens_per_second = 1300, .memory_mb = 150}.write(
          dir.path() / "b"));
  const Comparison c = compare_runs(run, base);
  EXPECT_DOUBLE_EQ(c.speed_up.value(), 1.3);
  EXPECT_DOUBLE_EQ(c.memory_ratio.value(), 0.75);
  ASSERT_TRUE(c.loss.has_value());
  EXPECT_EQ(c.loss->count, 10u);  // steps 91 to 100
  EXPECT_EQ(c.loss->first_step, 91);
  EXPECT_EQ(c.loss->last_step, 100);
  double mean = 0;
  for (int step = 91; step <= 100; ++step) mean += 5.0 / (1.0 + step / 20.0) / 10.0;
  EXPECT_NEAR(c.loss->baseline_mean, mean, 1e-12);
  EXPECT_NEAR(c.loss->difference(), 0.5, 1e-12);
  EXPECT_NEAR(c.loss->relative(), 0.5 / mean, 1e-12);
  EXPECT_NEAR(c.eval_loss.value().difference(), 0.5, 1e-12);
  EXPECT_TRUE(c.other_flags.empty());
}

TEST(CompareRuns, ALongerRunIsComparedOverTheCommonSteps) {
  const testing::TempDir dir;
  const RunRecord base = read_run(FakeRun{.steps = 100}.write(dir.path() / "a"));
  const RunRecord run = read_run(FakeRun{.steps = 400, .batch_size = 16}.write(dir.path() / "b"));
  const Comparison c = compare_runs(run, base);
  EXPECT_EQ(c.loss.value().last_step, 100);
  EXPECT_NEAR(c.loss.value().difference(), 0.0, 1e-12);  // the same curve up to there
  EXPECT_FALSE(c.eval_loss.has_value());                 // never evaluated at the same step
  EXPECT_EQ(c.other_flags, std::vector<std::string>{"batch_size"});
}

TEST(CompareRuns, WhatIsNotKnownIsAbsent) {
  const RunRecord nothing;
  const Comparison c = compare_runs(nothing, nothing);
  EXPECT_FALSE(c.speed_up || c.memory_ratio || c.loss || c.eval_loss);
  RunRecord broken;
  broken.series["loss"] = curve({kUnknown, kUnknown});
  EXPECT_FALSE(compare_runs(broken, broken).loss.has_value());
  EXPECT_FALSE(last_tenth(broken, "loss").has_value());
}

TEST(Baseline, TheFirstBf16RunUnlessNamed) {
  std::vector<RunRecord> runs(3);
  runs[0].name = "a", runs[0].precision = "fp8 (default)";
  runs[1].name = "b", runs[1].precision = "fp8 (mxfp8)";
  runs[2].name = "c", runs[2].folder = "runs/c", runs[2].precision = "bf16";
  EXPECT_EQ(baseline_of(runs, ""), 2u);
  EXPECT_EQ(baseline_of(runs, "b"), 1u);
  EXPECT_EQ(baseline_of(runs, "runs/c"), 2u);
  runs[2].precision = "fp32";
  EXPECT_EQ(baseline_of(runs, ""), 0u);
  try {
    baseline_of(runs, "d");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    EXPECT_STREQ(error.what(), "--baseline d: none of the runs has this name, wanted one of a, b, c");
  }
}

TEST(Thinned, KeepsEndsSpikesAndOrder) {
  std::vector<double> values(10000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<double>(i) / 300.0);
  values[4321] = 50;
  values[8765] = -50;
  const SeriesPoints kept = thinned(curve(values), 200);
  EXPECT_LE(kept.size(), 200u);
  EXPECT_GT(kept.size(), 150u);
  EXPECT_EQ(kept.front().step, 1);
  EXPECT_EQ(kept.back().step, 10000);
  bool high = false, low = false;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    high |= kept[i].value == 50;
    low |= kept[i].value == -50;
    if (i > 0) {
      EXPECT_GT(kept[i].step, kept[i - 1].step);
    }
  }
  EXPECT_TRUE(high && low);
}

TEST(Thinned, ShortCurvesStayAndAGapSurvives) {
  EXPECT_EQ(thinned(curve({1, 2, 3}), 4).size(), 3u);
  std::vector<double> values(1000, 1.0);
  values[500] = kUnknown;
  const SeriesPoints kept = thinned(curve(values), 20);
  EXPECT_LE(kept.size(), 20u);
  EXPECT_EQ(std::count_if(kept.begin(), kept.end(), [](const SeriesPoint& p) { return std::isnan(p.value); }), 1);
  EXPECT_THROW(thinned(curve(values), 3), Error);
}

}  // namespace
}  // namespace llmfp8
