#include "report/comparison.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/ranges.h>

#include "core/error.h"

namespace llmfp8 {
namespace {

// What two runs of a comparison of precisions are expected to differ in: the precision, and names and places.
constexpr std::array kExpectedFlags = {
    std::string_view("mixed_precision"), std::string_view("fp8_scenario"),   std::string_view("use_te"),
    std::string_view("fp8_strict"),      std::string_view("fp8_lm_head"),    std::string_view("fp8_start"),
    std::string_view("output_dir"),      std::string_view("log_dir"),        std::string_view("use_wandb"),
    std::string_view("wandb_project"),   std::string_view("wandb_run_name"), std::string_view("config"),
    std::string_view("overwrite"),       std::string_view("quiet"),          std::string_view("resume"),
    std::string_view("log_interval"),    std::string_view("save_interval"),  std::string_view("keep_checkpoints")};

struct Mean {
  double value = kUnknown, first_step = 0, last_step = 0;
  std::size_t count = 0;
};

Mean mean_between(const SeriesPoints& points, double after, double until) {
  Mean mean;
  double sum = 0;
  for (const SeriesPoint& point : points) {
    if (!(point.step > after && point.step <= until) || !std::isfinite(point.value)) continue;
    if (mean.count++ == 0) mean.first_step = point.step;
    mean.last_step = point.step;
    sum += point.value;
  }
  if (mean.count > 0) mean.value = sum / static_cast<double>(mean.count);
  return mean;
}

std::optional<LossComparison> compare_loss(const RunRecord& run, const RunRecord& baseline) {
  const SeriesPoints *mine = run.find("loss"), *theirs = baseline.find("loss");
  if (mine == nullptr || theirs == nullptr) return std::nullopt;
  const double until = std::min(mine->back().step, theirs->back().step);
  const Mean a = mean_between(*mine, 0.9 * until, until), b = mean_between(*theirs, 0.9 * until, until);
  if (a.count == 0 || b.count == 0) return std::nullopt;
  return LossComparison{.first_step = std::min(a.first_step, b.first_step),
                        .last_step = std::max(a.last_step, b.last_step),
                        .count = a.count,
                        .baseline_count = b.count,
                        .mean = a.value,
                        .baseline_mean = b.value};
}

std::optional<LossComparison> compare_eval(const RunRecord& run, const RunRecord& baseline) {
  const SeriesPoints *mine = run.find("eval_loss"), *theirs = baseline.find("eval_loss");
  if (mine == nullptr || theirs == nullptr) return std::nullopt;
  for (auto a = mine->rbegin(); a != mine->rend(); ++a) {
    for (const SeriesPoint& b : *theirs) {
      if (b.step != a->step || !std::isfinite(a->value) || !std::isfinite(b.value)) continue;
      return LossComparison{a->step, a->step, 1, 1, a->value, b.value};
    }
  }
  return std::nullopt;
}

std::optional<double> ratio(double value, double baseline) {
  if (!std::isfinite(value) || !std::isfinite(baseline) || baseline <= 0) return std::nullopt;
  return value / baseline;
}

}  // namespace

std::optional<LossComparison> last_tenth(const RunRecord& run, std::string_view id) {
  const SeriesPoints* points = run.find(id);
  if (points == nullptr) return std::nullopt;
  const double until = points->back().step;
  const Mean mean = mean_between(*points, 0.9 * until, until);
  if (mean.count == 0) return std::nullopt;
  return LossComparison{mean.first_step, mean.last_step, mean.count, mean.count, mean.value, mean.value};
}

Comparison compare_runs(const RunRecord& run, const RunRecord& baseline) {
  Comparison result;
  result.speed_up = ratio(run.tokens_per_second, baseline.tokens_per_second);
  result.memory_ratio = ratio(run.memory_bytes, baseline.memory_bytes);
  result.loss = compare_loss(run, baseline);
  result.eval_loss = compare_eval(run, baseline);
  const std::array pair = {baseline, run};
  for (const std::string& name : differing_flags(pair)) {
    if (std::find(kExpectedFlags.begin(), kExpectedFlags.end(), name) == kExpectedFlags.end())
      result.other_flags.push_back(name);
  }
  return result;
}

std::size_t baseline_of(std::span<const RunRecord> runs, const std::string& name) {
  if (!name.empty()) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < runs.size(); ++i) {
      if (runs[i].name == name || runs[i].folder == std::filesystem::path(name)) return i;
      names.push_back(runs[i].name);
    }
    fail_usage("--baseline {}: none of the runs has this name, wanted one of {}", name, fmt::join(names, ", "));
  }
  const auto it = std::find_if(runs.begin(), runs.end(), [](const RunRecord& run) { return run.precision == "bf16"; });
  return it == runs.end() ? 0 : static_cast<std::size_t>(it - runs.begin());
}

SeriesPoints thinned(const SeriesPoints& points, std::size_t max_points) {
  CHECK(max_points >= 4, "thinned to {} points, wanted at least 4", max_points);
  if (points.size() <= max_points) return points;
  const std::size_t buckets = (max_points - 2) / 2, inner = points.size() - 2;
  SeriesPoints kept = {points.front()};
  for (std::size_t b = 0; b < buckets; ++b) {
    const std::size_t begin = 1 + b * inner / buckets, end = 1 + (b + 1) * inner / buckets;
    std::size_t least = begin, most = begin;
    for (std::size_t i = begin; i < end; ++i) {
      const double value = points[i].value;
      if (!std::isfinite(value)) {
        most = i;
        break;
      }
      if (value < points[least].value) least = i;
      if (value > points[most].value) most = i;
    }
    kept.push_back(points[std::min(least, most)]);
    if (least != most) kept.push_back(points[std::max(least, most)]);
  }
  kept.push_back(points.back());
  return kept;
}

std::vector<std::string> differing_flags(std::span<const RunRecord> runs) {
  std::vector<std::string> names;
  for (const RunRecord& run : runs) {
    for (const RunFlag& flag : run.flags) {
      if (std::find(names.begin(), names.end(), flag.name) == names.end()) names.push_back(flag.name);
    }
  }
  std::erase_if(names, [&](const std::string& name) {
    return std::all_of(runs.begin(), runs.end(),
                       [&](const RunRecord& run) { return run.flag(name) == runs.front().flag(name); });
  });
  return names;
}

}  // namespace llmfp8
