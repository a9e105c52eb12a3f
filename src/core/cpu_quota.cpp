#include "core/cpu_quota.h"

#include <algorithm>
#include <cmath>
#include <fstream>

namespace llmfp8 {
namespace {

std::optional<int> rounded_up(double quota, double period) {
  if (!(quota > 0 && period > 0)) return std::nullopt;
  return static_cast<int>(std::clamp(std::ceil(quota / period), 1.0, 1e6));
}

}  // namespace

std::optional<int> cpu_quota(const std::filesystem::path& root) {
  double quota = 0, period = 0;
  // Version 2: "200000 100000"; without a limit "max 100000", which is no number.
  if (std::ifstream file(root / "cpu.max"); file) {
    return file >> quota >> period ? rounded_up(quota, period) : std::nullopt;
  }
  // Version 1: two files; without a limit the quota is -1.
  for (const char* controller : {"cpu", "cpu,cpuacct"}) {
    std::ifstream quota_file(root / controller / "cpu.cfs_quota_us"), period_file(root / controller / "cpu.cfs_period_us");
    if (quota_file >> quota && period_file >> period) return rounded_up(quota, period);
  }
  return std::nullopt;
}

}  // namespace llmfp8
