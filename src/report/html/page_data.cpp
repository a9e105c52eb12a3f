// The curves as the page's scripts want them: thinned, as columns, numbers with six digits.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "report/comparison.h"
#include "report/html/html_text.h"
#include "report/html/page.h"

namespace llmfp8 {
namespace {

using Json = nlohmann::ordered_json;

// A point takes some 30 bytes of the page, so that all together stay below a megabyte.
constexpr std::size_t kPointsOfPage = 30000;
constexpr std::size_t kMostPoints = 1500;  // of one curve: more than a screen has columns
constexpr std::size_t kLeastPoints = 60;

// Six significant digits: a curve shows no more, and the page is half the size.
Json number(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr);
}

Json count(double value) {
  if (!std::isfinite(value)) return nullptr;
  return static_cast<std::int64_t>(std::llround(value));
}

Json columns(const SeriesPoints& all, std::size_t max_points) {
  Json step = Json::array(), seconds = Json::array(), tokens = Json::array(), value = Json::array();
  const SeriesPoints points = thinned(all, max_points);
  const bool has_tokens =
      std::all_of(points.begin(), points.end(), [](const SeriesPoint& p) { return std::isfinite(p.tokens); });
  for (const SeriesPoint& point : points) {
    step.push_back(count(point.step));
    seconds.push_back(number(std::round(point.seconds * 1000.0) / 1000.0));
    if (has_tokens) tokens.push_back(count(point.tokens));
    value.push_back(number(point.value));
  }
  Json result = {{"step", std::move(step)}, {"seconds", std::move(seconds)}};
  if (has_tokens) result["tokens"] = std::move(tokens);
  result["value"] = std::move(value);
  result["logged"] = all.size();
  return result;
}

std::size_t curves_of(const RunRecord& run) {
  return run.series.size() + run.health.amax.size() + run.health.saturated_share.size() + run.shadow_cosine.size();
}

}  // namespace

Json page_data(std::span<const RunRecord> runs, std::size_t baseline) {
  std::size_t all_curves = 1;
  for (const RunRecord& run : runs) all_curves += curves_of(run);
  const std::size_t max_points = std::clamp(kPointsOfPage / all_curves, kLeastPoints, kMostPoints);

  Json data = {{"baseline", baseline}, {"charts", Json::array()}, {"runs", Json::array()}};
  for (const SeriesSpec& spec : kSeriesSpecs) {
    const bool is_logged =
        std::any_of(runs.begin(), runs.end(), [&](const RunRecord& run) { return run.find(spec.id) != nullptr; });
    if (is_logged) data["charts"].push_back({{"id", spec.id}, {"title", spec.title}, {"unit", spec.unit}});
  }
  for (std::size_t r = 0; r < runs.size(); ++r) {
    Json series = Json::object();
    for (const auto& [id, points] : runs[r].series) series[id] = columns(points, max_points);
    // A chart of this run alone, with a line for each of `lines`.
    const auto add_chart = [&](const std::string& id, const std::string& title, Json lines) {
      data["charts"].push_back({{"id", fmt::format("{}-{}", id, r)},
                                {"title", fmt::format("{}: {}", runs[r].name, title)},
                                {"unit", ""},
                                {"run", r},
                                {"lines", std::move(lines)}});
    };
    // One for each quantity and role, with a line for each product.
    const auto add_health = [&](const RunHealth::Curves& curves, const char* id, const char* title) {
      std::map<std::string, Json> lines_of_role;
      for (const auto& [name, points] : curves) {  // "qkv input"
        const std::size_t blank = name.rfind(' ');
        const std::string key = fmt::format("{}/{}", id, name);
        series[key] = columns(points, max_points);
        const std::string role = blank == std::string::npos ? "" : name.substr(blank + 1);
        lines_of_role[role].push_back({{"key", key}, {"label", name.substr(0, blank)}});
      }
      for (const auto& [role, lines] : lines_of_role)
        add_chart(fmt::format("{}-{}", id, role), fmt::format("{}, {}", title, role), lines);
    };
    add_health(runs[r].health.amax, "fp8_amax", "FP8 amax");
    add_health(runs[r].health.saturated_share, "fp8_saturation", "FP8 codes at the largest value");
    // One for each part of a layer, with a line for each module: more than a handful have no colours of their own.
    std::map<std::string, Json> lines_of_part;
    for (const auto& [module, points] : runs[r].shadow_cosine) {  // "self_attn.q_proj", "norm"
      const std::string key = "shadow_cosine/" + module;
      series[key] = columns(points, max_points);
      const std::size_t dot = module.find('.');
      const std::string part = dot == std::string::npos ? "other" : module.substr(0, dot);
      lines_of_part[part].push_back({{"key", key}, {"label", module}});
    }
    for (const auto& [part, lines] : lines_of_part)
      add_chart("shadow_cosine-" + part, fmt::format("cosine of the gradient with bf16's, {}", part), lines);
    data["runs"].push_back({{"name", runs[r].name}, {"precision", runs[r].precision}, {"series", std::move(series)}});
  }
  return data;
}

}  // namespace llmfp8
