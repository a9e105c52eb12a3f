#include "core/host_memory.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace llmfp8 {
namespace {

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

std::size_t meminfo_available(const std::filesystem::path& proc) {
  std::ifstream file(proc / "meminfo");
  std::string name;
  std::size_t kilobytes = 0;
  for (std::string rest; file >> name >> kilobytes; std::getline(file, rest))
    if (name == "MemAvailable:") return kilobytes * 1024;
  return kNoLimit;
}

// Nothing where the file is absent or says "max".
std::optional<std::size_t> number_in(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::size_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

// The file cache counts as used there but gives way.
std::size_t inactive_file_bytes(const std::filesystem::path& path, const std::string& wanted) {
  std::ifstream file(path);
  std::string name;
  std::size_t bytes = 0;
  while (file >> name >> bytes)
    if (name == wanted) return bytes;
  return 0;
}

std::size_t cgroup_left(const std::filesystem::path& cgroup) {
  auto limit = number_in(cgroup / "memory.max"), used = number_in(cgroup / "memory.current");
  std::size_t cache = inactive_file_bytes(cgroup / "memory.stat", "inactive_file");
  if (!limit) {
    const std::filesystem::path first = cgroup / "memory";
    limit = number_in(first / "memory.limit_in_bytes");
    used = number_in(first / "memory.usage_in_bytes");
    cache = inactive_file_bytes(first / "memory.stat", "total_inactive_file");
  }
  if (!limit || !used) return kNoLimit;
  const std::size_t kept = *used - std::min(*used, cache);
  return *limit - std::min(*limit, kept);
}

}  // namespace

std::size_t available_host_bytes(const std::filesystem::path& proc, const std::filesystem::path& cgroup) {
  return std::min(meminfo_available(proc), cgroup_left(cgroup));
}

}  // namespace llmfp8
