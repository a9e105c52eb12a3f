// How two runs compare, and how a long curve is thinned for a page. Called by the report's page and by its command.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "report/run_record.h"

namespace llmfp8 {

// The mean loss of two runs over the last tenth of the steps that both have done.
struct LossComparison {
  double first_step = 0, last_step = 0;  // of the values that were averaged; steps > 0.9 · the last common step
  std::size_t count = 0, baseline_count = 0;
  double mean = 0, baseline_mean = 0;
  double difference() const { return mean - baseline_mean; }
  double relative() const { return difference() / baseline_mean; }  // not finite where the baseline's mean is 0
};

struct Comparison {
  std::optional<double> speed_up;      // tokens/s over the baseline's
  std::optional<double> memory_ratio;  // planned bytes over the baseline's
  std::optional<LossComparison> loss;
  std::optional<LossComparison> eval_loss;  // one value each, of the last step at which both were evaluated
  std::vector<std::string> other_flags;     // flags that differ and are not part of a precision, a name or a place
};

// Absent: one of the two has not logged it, or nothing finite in common.
Comparison compare_runs(const RunRecord& run, const RunRecord& baseline);

// The mean of the finite values of `id` over the last tenth of the run's own steps; nothing where there is none.
std::optional<LossComparison> last_tenth(const RunRecord& run, std::string_view id);

// The first run in bf16, else the first. `name`: that run, by its name or its folder as given; throws a usage Error that
// lists the names.
std::size_t baseline_of(std::span<const RunRecord> runs, const std::string& name);

// At most max_points (at least 4) of the points, in their order: the first, the last, and of each bucket of equal length
// its smallest and largest value, so that no spike is lost. A bucket with a value that is not finite keeps that one too,
// in the place of its largest.
SeriesPoints thinned(const SeriesPoints& points, std::size_t max_points);

// The names of flags whose values are not the same in all runs, in the order of the first run that has them.
std::vector<std::string> differing_flags(std::span<const RunRecord> runs);

}  // namespace llmfp8
