// Statistics against numpy and scipy. The references come from numpy 2.4.6 and scipy 1.17.1:
//
//   def series(n, seed):
//       out = []; s = seed
//       for i in range(n):
//           s = (s * 1103515245 + 12345) % 2147483648
//           out.append(2.0 * 0.997**i + 0.5 * (s / 2147483648.0)**2)
//       return np.array(out)
//   d = np.sign(np.diff(x)); d = d[d != 0]; n = len(x)
//   x.mean(), np.median(x), x.std(), x.var(), x.std() / abs(x.mean()), np.percentile(x, 75) - np.percentile(x, 25),
//   np.abs(x - x.mean()).max(), x.max() - x.min(), np.polyfit(np.arange(n), np.log(x), 1)[0],
//   np.sum(np.diff(d) != 0) / (n - 1), 1.0 if n < 100 else x[:n//2].std() / x[n//2:].std(), stats.normaltest(x).pvalue
#include "report/stability.h"

#include <cmath>
#include <limits>
#include <map>

#include <gtest/gtest.h>

namespace llmfp8 {
namespace {

std::vector<double> series(int n, std::uint64_t seed) {
  std::vector<double> out;
  for (int i = 0; i < n; ++i) {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    const double u = static_cast<double>(seed) / 2147483648.0;
    out.push_back(2.0 * std::pow(0.997, i) + 0.5 * u * u);
  }
  return out;
}

struct Reference {
  int n;
  std::uint64_t seed;
  std::vector<double> values;
};

const Reference kReferences[] = {
    {9,
     1,
     {2.1090912446274346, 2.0749013690342677, 0.13272711531555906, 0.017616487139989714, 0.06293094983617219,
      0.12258872576991076, 0.316015881952032, 0.4410955842551014, -0.000831650421777391, 0.625, 1.0,
      0.022940245863312548}},
    {40,
     7,
     {2.0714695348685397, 2.0246447939490033, 0.17345034635115417, 0.030085022649335335, 0.08373299410467155,
      0.2483151754020625, 0.3974488551029869, 0.6738541901850967, -0.002785087099625059, 0.5897435897435898, 1.0,
      0.2219576227605632}},
    {333,
     42,
     {1.4451753586749085, 1.418376817021091, 0.38775773431416094, 0.15035606052045142, 0.26831189169299063,
      0.6148564889492909, 0.8952797872244809, 1.575744314108367, -0.002613618330928494, 0.6385542168674698,
      1.207314593346519, 2.876291628388517e-08}},
};

TEST(Stability, EqualsNumpyAndScipy) {
  for (const Reference& reference : kReferences) {
    const auto entries = stability_statistics(series(reference.n, reference.seed)).entries();
    ASSERT_EQ(entries.size(), reference.values.size());
    for (std::size_t i = 0; i < entries.size(); ++i) {
      // Sums of some hundred terms in another order, and the normality test amplifies its moments.
      const double tolerance = 1e-10 * std::abs(reference.values[i]);
      EXPECT_NEAR(entries[i].second, reference.values[i], tolerance) << entries[i].first << ", n " << reference.n;
    }
  }
}

TEST(Stability, CornerCases) {
  const StabilityStatistics none = stability_statistics({});
  for (const auto& [name, value] : none.entries()) EXPECT_TRUE(std::isnan(value)) << name;

  const StabilityStatistics one = stability_statistics(std::vector<double>{2.0});
  EXPECT_EQ(one.mean, 2.0);
  EXPECT_EQ(one.std, 0.0);
  EXPECT_TRUE(std::isnan(one.convergence_rate));
  EXPECT_TRUE(std::isnan(one.oscillation_index));

  const StabilityStatistics constant = stability_statistics(std::vector<double>(200, 0.1));
  EXPECT_NEAR(constant.std, 0.0, 1e-15);
  EXPECT_TRUE(std::isnan(constant.normality_p_value));
  EXPECT_EQ(constant.oscillation_index, 0.0);

  // Below nine points scipy's skewness test has no meaning.
  EXPECT_TRUE(std::isnan(stability_statistics(series(8, 1)).normality_p_value));

  std::vector<double> halving;
  for (int i = 0; i < 20; ++i) halving.push_back(std::pow(0.5, i));
  EXPECT_NEAR(stability_statistics(halving).convergence_rate, std::log(0.5), 1e-12);
  halving.front() = 0.0;  // a learning rate may begin at 0
  EXPECT_NEAR(stability_statistics(halving).convergence_rate, std::log(0.5), 1e-12);

  EXPECT_EQ(stability_statistics(std::vector<double>{1, 2, 1, 2, 1}).oscillation_index, 0.75);
  EXPECT_EQ(stability_statistics(std::vector<double>{1, 2, 2, 1, 1}).oscillation_index,
            0.25);  // up, flat, down: one change
  EXPECT_TRUE(std::isnan(stability_statistics(std::vector<double>{-1, 1}).cv));
}

TEST(Stability, TrackerKeepsTheLastStepsAndSkipsWhatIsNotFinite) {
  StabilityTracker tracker;
  tracker.add(1e9, 1.0, 0.5);
  for (std::size_t i = 0; i < kStabilityWindow; ++i) tracker.add(2.0, std::numeric_limits<double>::quiet_NaN(), 0.5);
  EXPECT_EQ(tracker.loss().mean, 2.0);  // the first value has left the window
  EXPECT_EQ(tracker.gradient_norm().mean, 1.0);
  EXPECT_EQ(tracker.learning_rate().mean, 0.5);
}

TEST(Stability, ReportsUnderTheContractsNames) {
  struct Collector : MetricsSink {
    explicit Collector(std::map<std::string, double>& map) : values(map) {}
    void log(const MetricRecord&) override {}
    void summary(const std::string& name, double value) override { values[name] = value; }
    void text(const std::string&, const std::string&) override {}
    std::map<std::string, double>& values;
  };
  std::map<std::string, double> values;
  Metrics metrics;
  metrics.add(std::make_unique<Collector>(values));
  StabilityTracker().report(metrics);
  EXPECT_TRUE(values.empty());
  StabilityTracker tracker;
  tracker.add(3.0, 2.0, 1.0);
  tracker.report(metrics);
  EXPECT_EQ(values.size(), 36u);
  EXPECT_EQ(values.at("stability_report/loss/mean"), 3.0);
  EXPECT_EQ(values.at("stability_report/gradient_norm/median"), 2.0);
  EXPECT_EQ(values.at("stability_report/learning_rate/mean"), 1.0);
  EXPECT_TRUE(values.contains("stability_report/loss/normality_p_value"));
}

}  // namespace
}  // namespace llmfp8
