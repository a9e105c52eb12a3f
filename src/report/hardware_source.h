// What the machine does while a run goes on: GPU through NVML, where its library is, and this process. Written beside
// whatever is logged; put together by src/cli.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "report/metrics.h"

namespace llmfp8 {

inline constexpr std::string_view kGpuUtilisation = "hardware/gpu_utilisation";    // 0 … 1, see GpuReading
inline constexpr std::string_view kGpuMemoryUsed = "hardware/gpu_memory_used_mb";  // by every process
inline constexpr std::string_view kGpuPower = "hardware/gpu_power_w";              // mean since the last record
inline constexpr std::string_view kGpuTemperature = "hardware/gpu_temperature_c";
inline constexpr std::string_view kGpuClock = "hardware/gpu_sm_clock_mhz";
inline constexpr std::string_view kProcessMemory = "hardware/process_memory_mb";  // resident
inline constexpr std::string_view kProcessCpu = "hardware/process_cpu_cores";     // mean since the last record

// What a GPU does not tell stays empty.
struct GpuReading {
  std::optional<double> utilisation;  // 0 … 1: share of NVML's last sampling period in which any kernel ran
  std::optional<double> memory_used_mb;
  std::optional<double>
      power_w;  // mean since an earlier reading a second or more ago where energy is counted, else at this moment
  std::optional<double> temperature_c;
  std::optional<double> sm_clock_mhz;
};

// One GPU through NVML, whose library belongs to the driver and is opened at run time.
class NvmlGpu {
 public:
  // The first GPU that CUDA_VISIBLE_DEVICES lets CUDA see. Null where the library or the GPU is absent; why_not then says
  // so. library: another path, for tests.
  static std::unique_ptr<NvmlGpu> open(std::string* why_not, const char* library = "libnvidia-ml.so.1");
  ~NvmlGpu();
  NvmlGpu(const NvmlGpu&) = delete;
  NvmlGpu& operator=(const NvmlGpu&) = delete;

  GpuReading read();

 private:
  struct Library;
  explicit NvmlGpu(std::unique_ptr<Library> library);

  std::unique_ptr<Library> library_;
  unsigned long long energy_mj_ = 0;  // where the mean begins
  double read_at_ = 0;                // seconds, steady clock; 0: there is none yet
};

// For a run on a GPU, or on the CPU alone. Without NVML it lacks what that tells, which is said, and nothing else.
std::unique_ptr<MetricsSource> open_hardware_source(bool is_gpu);

class HardwareSource : public MetricsSource {
 public:
  explicit HardwareSource(std::unique_ptr<NvmlGpu> gpu);  // null: the process alone
  // The GPU is asked once a second at most; records in between lack what it tells.
  void append(MetricValues& values) override;

 private:
  std::unique_ptr<NvmlGpu> gpu_;
  double asked_at_ = -1e9;  // the GPU; seconds, steady clock
  double cpu_seconds_ = 0;  // of this process, at the last record
  double wall_seconds_ = 0;
};

}  // namespace llmfp8
