// Curves as the report holds them.
#pragma once

#include <limits>
#include <vector>

namespace llmfp8 {

inline constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

// One logged value and where it stands on each axis.
struct SeriesPoint {
  double step = 0;
  double seconds = 0;        // since the run's first record
  double tokens = kUnknown;  // seen by the run so far; NaN where they cannot be told from the records
  double value = 0;          // NaN where the run logged a value that is not finite
};
using SeriesPoints = std::vector<SeriesPoint>;

// A record logged again, by a run that was resumed from an earlier step, replaces what the lost steps had logged.
inline void append(SeriesPoints& points, const SeriesPoint& point) {
  while (!points.empty() && points.back().step >= point.step) points.pop_back();
  points.push_back(point);
}

}  // namespace llmfp8
