// What is left of host memory, as the kernel and a container's limit tell it.
#include "core/host_memory.h"

#include <fstream>
#include <limits>

#include <gtest/gtest.h>

#include "support/golden.h"

namespace llmfp8::testing {
namespace {

void write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

TEST(HostMemory, TheSmallerOfKernelAndContainer) {
  TempDir temp;
  const auto proc = temp.path() / "proc", group = temp.path() / "cgroup";
  EXPECT_EQ(available_host_bytes(proc, group), std::numeric_limits<std::size_t>::max());
  write(proc / "meminfo", "MemTotal:       8000 kB\nMemFree:  10 kB\nMemAvailable:   4000 kB\nHugePages_Total: 0\n");
  EXPECT_EQ(available_host_bytes(proc, group), 4'096'000u);
  write(group / "memory.max", "max\n");
  write(group / "memory.current", "1000\n");
  EXPECT_EQ(available_host_bytes(proc, group), 4'096'000u);
  write(group / "memory.max", "5000\n");
  EXPECT_EQ(available_host_bytes(proc, group), 4000u);
  write(group / "memory.stat", "anon 300\ninactive_file 600\n");
  EXPECT_EQ(available_host_bytes(proc, group), 4600u);
  write(group / "memory.current", "9000\n");
  EXPECT_EQ(available_host_bytes(proc, group), 0u);
}

TEST(HostMemory, VersionOne) {
  TempDir temp;
  const auto proc = temp.path() / "proc", group = temp.path() / "cgroup";
  write(group / "memory" / "memory.limit_in_bytes", "3000\n");
  write(group / "memory" / "memory.usage_in_bytes", "1000\n");
  write(group / "memory" / "memory.stat", "inactive_file 1\ntotal_inactive_file 500\n");
  EXPECT_EQ(available_host_bytes(proc, group), 2500u);
}

TEST(HostMemory, ThisMachineHasSome) { EXPECT_GT(available_host_bytes(), std::size_t{1} << 20); }

}  // namespace
}  // namespace llmfp8::testing
