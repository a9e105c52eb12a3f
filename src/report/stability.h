// The stability report at the end of a run: statistics of loss, gradient norm and learning rate over the last steps.
// The trainer adds each optimizer step; values that are not finite are left out.
#pragma once

#include <cstddef>
#include <deque>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "report/metrics.h"

namespace llmfp8 {

inline constexpr std::size_t kStabilityWindow = 10000;    // steps
inline constexpr std::size_t kStabilityRatioLeast = 100;  // below, stability_ratio is 1
inline constexpr std::size_t kNormalityLeast = 9;         // below, normality_p_value is NaN

// Moments have numpy's default: divided by n, not n - 1.
struct StabilityStatistics {
  double mean = 0.0;
  double median = 0.0;
  double std = 0.0;
  double variance = 0.0;
  double cv = 0.0;                 // std / |mean|
  double iqr = 0.0;                // 75 % less 25 % quantile, linearly interpolated as numpy's
  double max_deviation = 0.0;      // largest |x - mean|
  double range = 0.0;              // largest less smallest
  double convergence_rate = 0.0;   // least-squares slope of log(x) over the step; steps with x <= 0 are left out
  double oscillation_index = 0.0;  // sign changes of x[i+1] - x[i] over the number of differences; a difference of 0
                                   // keeps the sign before it
  double stability_ratio = 0.0;    // std of the first half over std of the second; 1 where both are 0
  double normality_p_value = 0.0;  // D'Agostino and Pearson, as scipy.stats.normaltest

  // In the order of the struct, for printing and for the summary.
  std::vector<std::pair<std::string_view, double>> entries() const;
};

// What cannot be computed (no values, mean 0 for cv, too few points) is NaN.
StabilityStatistics stability_statistics(std::span<const double> values);

class StabilityTracker {
 public:
  void add(double loss, double grad_norm, double learning_rate);
  StabilityStatistics loss() const { return statistics(loss_); }
  StabilityStatistics gradient_norm() const { return statistics(gradient_norm_); }
  StabilityStatistics learning_rate() const { return statistics(learning_rate_); }

  // The three series, for a checkpoint: {"loss": [...], "gradient_norm": [...], "learning_rate": [...]}.
  nlohmann::ordered_json state() const;
  void restore(const nlohmann::ordered_json& state);

  // stability_report/{loss,gradient_norm,learning_rate}/{stat}; nothing before the first step.
  void report(Metrics& metrics) const;

 private:
  static StabilityStatistics statistics(const std::deque<double>& series);

  std::deque<double> loss_, gradient_norm_, learning_rate_;
};

}  // namespace llmfp8
