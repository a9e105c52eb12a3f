// NVML through a stand-in for the driver's library, its absence, and what is said of the process.
#include "report/hardware_source.h"

#include <chrono>
#include <cstdlib>
#include <map>
#include <thread>

#include <gtest/gtest.h>

namespace llmfp8 {
namespace {

std::map<std::string, double> values_of(HardwareSource& source) {
  MetricValues values;
  source.append(values);
  return {values.begin(), values.end()};
}

class Nvml : public testing::Test {
 protected:
  void SetUp() override { unsetenv("CUDA_VISIBLE_DEVICES"); }
  void TearDown() override { unsetenv("CUDA_VISIBLE_DEVICES"); }

  static std::unique_ptr<NvmlGpu> open() {
    std::string why_not;
    auto gpu = NvmlGpu::open(&why_not, LLMFP8_FAKE_NVML);
    EXPECT_EQ(gpu == nullptr, !why_not.empty()) << why_not;
    return gpu;
  }
};

TEST_F(Nvml, IsReadAndWhatItLacksIsLeftOut) {
  HardwareSource source(open());
  const auto first = values_of(source);
  EXPECT_DOUBLE_EQ(first.at("hardware/gpu_utilisation"), 0.97);
  EXPECT_DOUBLE_EQ(first.at("hardware/gpu_memory_used_mb"), 5000.0);
  EXPECT_DOUBLE_EQ(first.at("hardware/gpu_temperature_c"), 61.0);
  EXPECT_DOUBLE_EQ(first.at("hardware/gpu_power_w"), 700.0);  // of this moment: no second has gone by
  EXPECT_FALSE(first.contains("hardware/gpu_sm_clock_mhz"));
  EXPECT_FALSE(values_of(source).contains("hardware/gpu_power_w"));  // not asked again so soon
  std::this_thread::sleep_for(std::chrono::milliseconds(1050));
  EXPECT_NEAR(values_of(source).at("hardware/gpu_power_w"), 250.0, 1.0);
}

TEST_F(Nvml, TheGpuIsTheFirstThatCudaSees) {
  const auto memory = [](const char* visible) {
    setenv("CUDA_VISIBLE_DEVICES", visible, 1);
    auto gpu = open();
    return gpu ? gpu->read().memory_used_mb.value() : -1.0;
  };
  EXPECT_EQ(memory("1,0"), 7000.0);
  EXPECT_EQ(memory("0"), 5000.0);
  EXPECT_EQ(memory("GPU-1"), 7000.0);
  EXPECT_EQ(memory("GPU-2"), -1.0);
  EXPECT_EQ(memory("7"), -1.0);
  EXPECT_EQ(memory(""), -1.0);
}

TEST_F(Nvml, AbsentIsNoError) {
  std::string why_not;
  EXPECT_EQ(NvmlGpu::open(&why_not, "libno-such-nvml.so.1"), nullptr);
  EXPECT_NE(why_not.find("libno-such-nvml.so.1"), std::string::npos) << why_not;
  EXPECT_EQ(NvmlGpu::open(&why_not, "libc.so.6"), nullptr);
  EXPECT_EQ(why_not, "libc.so.6 is no NVML");
}

// Where there is a driver, its own library is asked.
TEST_F(Nvml, TheDriversOwn) {
  std::string why_not;
  const auto gpu = NvmlGpu::open(&why_not);
  if (!gpu) GTEST_SKIP() << why_not;
  const GpuReading reading = gpu->read();
  EXPECT_GT(reading.memory_used_mb.value_or(0), 0.0);
  EXPECT_GT(reading.power_w.value_or(0), 10.0);
  EXPECT_LT(reading.power_w.value_or(0), 2000.0);
  EXPECT_GE(reading.utilisation.value_or(-1), 0.0);
  EXPECT_LE(reading.utilisation.value_or(2), 1.0);
  EXPECT_GT(reading.temperature_c.value_or(0), 10.0);
  EXPECT_GT(reading.sm_clock_mhz.value_or(0), 100.0);
  std::printf("%.0f MB, %.1f W, %.2f, %.0f C, %.0f MHz\n", *reading.memory_used_mb, *reading.power_w,
              *reading.utilisation, *reading.temperature_c, *reading.sm_clock_mhz);
}

TEST(HardwareSource, TheProcessIsMeasured) {
  HardwareSource source(nullptr);
  const auto begin = std::chrono::steady_clock::now();
  volatile double sum = 0;
  while (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(100)) sum = sum + 1;
  const auto values = values_of(source);
  EXPECT_EQ(values.size(), 2u);
  EXPECT_GT(values.at("hardware/process_memory_mb"), 1.0);
  EXPECT_LT(values.at("hardware/process_memory_mb"), 10000.0);
  EXPECT_GT(values.at("hardware/process_cpu_cores"), 0.01);  // a busy machine may have given it little
  EXPECT_LT(values.at("hardware/process_cpu_cores"), 1.5);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_LT(values_of(source).at("hardware/process_cpu_cores"), 0.05);
}

TEST(Metrics, SourcesAreAskedForEveryRecord) {
  struct Counter : MetricsSource {
    void append(MetricValues& values) override { values.emplace_back("n", ++n); }
    int n = 0;
  };
  struct Last : MetricsSink {
    explicit Last(MetricValues& heard) : values(heard) {}
    void log(const MetricRecord& record) override { values = record.values; }
    void summary(const std::string&, double) override {}
    void text(const std::string&, const std::string&) override {}
    MetricValues& values;
  };
  MetricValues heard;
  Metrics metrics;
  metrics.add(std::make_unique<Last>(heard));
  metrics.add(std::make_unique<Counter>());
  metrics.log(1, {});  // a record without values is none
  metrics.log(2, {{"a", 3.0}});
  EXPECT_EQ(heard, (MetricValues{{"a", 3.0}, {"n", 1.0}}));
}

}  // namespace
}  // namespace llmfp8
