// A container's CPU quota, from the files of both cgroup versions.
#include "core/cpu_quota.h"

#include <fstream>

#include <gtest/gtest.h>

#include "support/golden.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

TEST(CpuQuota, Version2) {
  const TempDir temp;
  EXPECT_EQ(cpu_quota(temp.path()), std::nullopt);
  for (const auto& [text, wanted] : std::initializer_list<std::pair<const char*, std::optional<int>>>{
           {"200000 100000\n", 2}, {"150000 100000\n", 2}, {"1000 100000\n", 1}, {"max 100000\n", std::nullopt},
           {"", std::nullopt}, {"0 0\n", std::nullopt}, {"-5 100000\n", std::nullopt}}) {
    write(temp.path() / "cpu.max", text);
    EXPECT_EQ(cpu_quota(temp.path()), wanted) << text;
  }
}

TEST(CpuQuota, Version1) {
  for (const char* controller : {"cpu", "cpu,cpuacct"}) {
    const TempDir temp;
    write(temp.path() / controller / "cpu.cfs_period_us", "100000\n");
    write(temp.path() / controller / "cpu.cfs_quota_us", "-1\n");
    EXPECT_EQ(cpu_quota(temp.path()), std::nullopt);
    write(temp.path() / controller / "cpu.cfs_quota_us", "350000\n");
    EXPECT_EQ(cpu_quota(temp.path()), 4);
  }
}

}  // namespace
}  // namespace llmfp8::testing
