#include "report/stability.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/error.h"
#include "report/metric_names.h"

namespace llmfp8 {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double mean_of(std::span<const double> x) {
  const auto n = static_cast<double>(x.size());
  double sum = 0.0;
  for (const double value : x) sum += value;
  const double mean = sum / n;
  // Once more on what is left: a constant series must have a variance of 0, not of rounding errors.
  double rest = 0.0;
  for (const double value : x) rest += value - mean;
  return mean + rest / n;
}

double central_moment(std::span<const double> x, double mean, int power) {
  double sum = 0.0;
  for (const double value : x) {
    const double d = value - mean;
    double product = d;
    for (int i = 1; i < power; ++i) product *= d;
    sum += product;
  }
  return sum / static_cast<double>(x.size());
}

double std_of(std::span<const double> x) { return std::sqrt(central_moment(x, mean_of(x), 2)); }

double quantile(const std::vector<double>& sorted, double q) {
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

double log_slope(std::span<const double> x) {
  double n = 0.0, sum_t = 0.0, sum_y = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] <= 0.0) continue;
    n += 1.0;
    sum_t += static_cast<double>(i);
    sum_y += std::log(x[i]);
  }
  if (n < 2.0) return kNaN;
  const double mean_t = sum_t / n, mean_y = sum_y / n;
  double covariance = 0.0, variance = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] <= 0.0) continue;
    const double t = static_cast<double>(i) - mean_t;
    covariance += t * (std::log(x[i]) - mean_y);
    variance += t * t;
  }
  return covariance / variance;
}

double oscillation(std::span<const double> x) {
  if (x.size() < 2) return kNaN;
  std::size_t changes = 0;
  double last = 0.0;
  for (std::size_t i = 1; i < x.size(); ++i) {
    const double difference = x[i] - x[i - 1];
    if (difference == 0.0) continue;
    if (last * difference < 0.0) ++changes;
    last = difference > 0.0 ? 1.0 : -1.0;
  }
  return static_cast<double>(changes) / static_cast<double>(x.size() - 1);
}

double half_ratio(std::span<const double> x) {
  if (x.size() < kStabilityRatioLeast) return 1.0;
  const double first = std_of(x.first(x.size() / 2));
  const double second = std_of(x.subspan(x.size() / 2));
  return first == 0.0 && second == 0.0 ? 1.0 : first / second;
}

// D'Agostino (1970): the skewness as a standard normal deviate. Formulas as in scipy.stats.skewtest.
double skewness_z(double skewness, double n) {
  double y = skewness * std::sqrt((n + 1) * (n + 3) / (6.0 * (n - 2)));
  const double beta2 = 3.0 * (n * n + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2.0) * (n + 5) * (n + 7) * (n + 9));
  const double w2 = -1 + std::sqrt(2 * (beta2 - 1));
  const double delta = 1 / std::sqrt(0.5 * std::log(w2));
  const double alpha = std::sqrt(2.0 / (w2 - 1));
  if (y == 0.0) y = 1.0;  // scipy does so
  return delta * std::log(y / alpha + std::sqrt((y / alpha) * (y / alpha) + 1));
}

// Anscombe and Glynn (1983): the kurtosis likewise. Formulas as in scipy.stats.kurtosistest.
double kurtosis_z(double kurtosis, double n) {
  const double expected = 3.0 * (n - 1) / (n + 1);
  const double variance = 24.0 * n * (n - 2) * (n - 3) / ((n + 1) * (n + 1) * (n + 3) * (n + 5));
  const double x = (kurtosis - expected) / std::sqrt(variance);
  const double sqrt_beta1 =
      6.0 * (n * n - 5 * n + 2) / ((n + 7) * (n + 9)) * std::sqrt(6.0 * (n + 3) * (n + 5) / (n * (n - 2) * (n - 3)));
  const double a = 6.0 + 8.0 / sqrt_beta1 * (2.0 / sqrt_beta1 + std::sqrt(1 + 4.0 / (sqrt_beta1 * sqrt_beta1)));
  const double term1 = 1 - 2 / (9.0 * a);
  const double denominator = 1 + x * std::sqrt(2 / (a - 4.0));
  if (denominator == 0.0) return kNaN;
  const double term2 = std::copysign(std::cbrt((1 - 2.0 / a) / std::abs(denominator)), denominator);
  return (term1 - term2) / std::sqrt(2 / (9.0 * a));
}

double normality(std::span<const double> x, double mean, double variance) {
  // A spread that is only rounding error has no shape; scipy calls it constant at this bound.
  const double bound = std::numeric_limits<double>::epsilon() * std::abs(mean);
  if (x.size() < kNormalityLeast || variance <= bound * bound) return kNaN;
  const auto n = static_cast<double>(x.size());
  const double skewness = central_moment(x, mean, 3) / std::pow(variance, 1.5);
  const double kurtosis = central_moment(x, mean, 4) / (variance * variance);
  const double z1 = skewness_z(skewness, n), z2 = kurtosis_z(kurtosis, n);
  return std::exp(-(z1 * z1 + z2 * z2) / 2);  // the chi-square tail with two degrees of freedom
}

}  // namespace

std::vector<std::pair<std::string_view, double>> StabilityStatistics::entries() const {
  return {{"mean", mean},
          {"median", median},
          {"std", std},
          {"variance", variance},
          {"cv", cv},
          {"iqr", iqr},
          {"max_deviation", max_deviation},
          {"range", range},
          {"convergence_rate", convergence_rate},
          {"oscillation_index", oscillation_index},
          {"stability_ratio", stability_ratio},
          {"normality_p_value", normality_p_value}};
}

StabilityStatistics stability_statistics(std::span<const double> x) {
  if (x.empty()) return {kNaN, kNaN, kNaN, kNaN, kNaN, kNaN, kNaN, kNaN, kNaN, kNaN, kNaN, kNaN};
  StabilityStatistics s;
  std::vector<double> sorted(x.begin(), x.end());
  std::sort(sorted.begin(), sorted.end());
  s.mean = mean_of(x);
  s.median = quantile(sorted, 0.5);
  s.variance = central_moment(x, s.mean, 2);
  s.std = std::sqrt(s.variance);
  s.cv = s.mean == 0.0 ? kNaN : s.std / std::abs(s.mean);
  s.iqr = quantile(sorted, 0.75) - quantile(sorted, 0.25);
  s.max_deviation = std::max(sorted.back() - s.mean, s.mean - sorted.front());
  s.range = sorted.back() - sorted.front();
  s.convergence_rate = log_slope(x);
  s.oscillation_index = oscillation(x);
  s.stability_ratio = half_ratio(x);
  s.normality_p_value = normality(x, s.mean, s.variance);
  return s;
}

void StabilityTracker::add(double loss, double grad_norm, double learning_rate) {
  const auto push = [](std::deque<double>& series, double value) {
    if (!std::isfinite(value)) return;
    series.push_back(value);
    if (series.size() > kStabilityWindow) series.pop_front();
  };
  push(loss_, loss);
  push(gradient_norm_, grad_norm);
  push(learning_rate_, learning_rate);
}

StabilityStatistics StabilityTracker::statistics(const std::deque<double>& series) {
  return stability_statistics(std::vector<double>(series.begin(), series.end()));
}

nlohmann::ordered_json StabilityTracker::state() const {
  return {{"loss", loss_}, {"gradient_norm", gradient_norm_}, {"learning_rate", learning_rate_}};
}

void StabilityTracker::restore(const nlohmann::ordered_json& state) {
  loss_ = state.at("loss").get<std::deque<double>>();
  gradient_norm_ = state.at("gradient_norm").get<std::deque<double>>();
  learning_rate_ = state.at("learning_rate").get<std::deque<double>>();
}

void StabilityTracker::report(Metrics& metrics) const {
  const std::pair<std::string_view, const std::deque<double>*> all[] = {
      {"loss", &loss_}, {"gradient_norm", &gradient_norm_}, {"learning_rate", &learning_rate_}};
  for (const auto& [metric, series] : all) {
    if (series->empty()) continue;
    for (const auto& [stat, value] : statistics(*series).entries()) {
      metrics.summary(fmt::format("{}/{}/{}", kStabilityReportPrefix, metric, stat), value);
    }
  }
}

}  // namespace llmfp8
