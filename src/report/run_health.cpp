#include "report/run_health.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <system_error>

#include "core/error.h"
#include "report/json_values.h"

namespace llmfp8 {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uintmax_t kMaxBytes = std::uintmax_t{1} << 30;
constexpr std::size_t kMaxMatrices = 100000;

SeriesPoint point_at(double step, const SeriesPoints& known) {
  const auto it = std::find_if(known.begin(), known.end(), [&](const SeriesPoint& p) { return p.step == step; });
  if (it != known.end()) return *it;
  SeriesPoint point;
  point.step = step;
  point.seconds = kUnknown;
  return point;
}

void raise(RunHealth::Curves& curves, const std::string& name, SeriesPoint point, double value) {
  if (!std::isfinite(value)) return;
  SeriesPoints& points = curves[name];
  point.value = value;
  if (!points.empty() && points.back().step == point.step) {
    points.back().value = std::max(points.back().value, value);
  } else {
    append(points, point);
  }
}

// False: the line is no record.
bool add(const Json& record, const SeriesPoints& known, RunHealth& health) {
  if (!std::isfinite(number_at(record, "step"))) return false;
  const Json& matrices = member(record, "matrices");
  if (!matrices.is_array() || matrices.size() > kMaxMatrices) return false;
  const SeriesPoint point = point_at(number_at(record, "step"), known);
  // A step that was done again replaces what was recorded of it.
  for (RunHealth::Curves* curves : {&health.amax, &health.saturated_share, &health.zero_share}) {
    for (auto& [name, points] : *curves)
      while (!points.empty() && points.back().step >= point.step) points.pop_back();
  }
  health.last.clear();
  health.last_step = point.step;
  for (const Json& matrix : matrices) {
    if (!matrix.is_object()) continue;
    Fp8MatrixRecord one{text_at(matrix, "product"), text_at(matrix, "role")};
    const double layer = number_at(matrix, "layer");
    if (layer >= 0 && layer < 1e6) one.layer = static_cast<std::int64_t>(layer);
    one.zero_share = number_at(matrix, "zero_share");
    one.saturated_share = number_at(matrix, "saturated_share");
    const std::string name = one.product + " " + one.role;
    const double amax = number_at(matrix, "amax");
    if (amax > 0) raise(health.amax, name, point, amax);  // 0: the recipe does not keep it
    raise(health.saturated_share, name, point, one.saturated_share);
    raise(health.zero_share, name, point, one.zero_share);
    health.last.push_back(std::move(one));
  }
  return true;
}

}  // namespace

RunHealth read_health(const std::filesystem::path& file, const SeriesPoints& known) {
  RunHealth health;
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(file, error);
  if (error) return health;
  CHECK(bytes <= kMaxBytes, "{}: {} bytes, wanted at most {}", file.string(), bytes, kMaxBytes);
  std::ifstream in(file, std::ios::binary);
  for (std::string line; std::getline(in, line);) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (!add(parse_bounded(line), known, health)) ++health.broken_lines;
  }
  return health;
}

}  // namespace llmfp8
