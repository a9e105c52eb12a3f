// health.jsonl of a run (train/step_health.h says what it holds) as the report shows it: curves by product and role, and
// every matrix of the last record. Called by read_run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "report/series.h"

namespace llmfp8 {

struct Fp8MatrixRecord {
  std::string product, role;  // "qkv", "input"
  std::int64_t layer = -1;    // -1: not of a layer
  double zero_share = kUnknown, saturated_share = kUnknown;
};

struct RunHealth {
  using Curves = std::map<std::string, SeriesPoints, std::less<>>;  // by "qkv input": the largest of all layers
  Curves amax, saturated_share, zero_share;
  double last_step = kUnknown;
  std::vector<Fp8MatrixRecord> last;  // of last_step, as recorded
  std::int64_t broken_lines = 0;
};

// Empty where the file is not there. known: points of the same run; a record takes seconds and tokens from the one with its
// step. Lines that are broken are counted and left out. Throws Error: the file is too large.
RunHealth read_health(const std::filesystem::path& file, const SeriesPoints& known);

}  // namespace llmfp8
