#include "report/hardware_source.h"

#include <cstdio>
#include <cstdlib>
#include <ctime>

#include <dlfcn.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"

namespace llmfp8 {
namespace {

double process_cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Resident; nothing where /proc is not mounted.
std::optional<double> process_memory_mb() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return std::nullopt;
  long pages = 0;
  const bool is_read = std::fscanf(file, "%*s %ld", &pages) == 1;
  std::fclose(file);
  if (!is_read) return std::nullopt;
  return static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1e6;
}

// NVML's interface, as in nvml.h, which comes with CUDA and is not needed to build.
using Device = void*;
struct Memory {
  unsigned long long total, free, used;  // bytes
};
struct Utilisation {
  unsigned gpu, memory;  // percent
};
constexpr double kLeastEnergySeconds = 1;
// A reading takes 5 ms and holds the GPU up for 0.8 ms (H100): at every step that would be 0.6 % of one of 130 ms.
constexpr double kSecondsBetweenReadings = 1;
constexpr int kTemperatureOfGpu = 0;
constexpr int kClockOfSms = 1;

}  // namespace

struct NvmlGpu::Library {
  void* handle = nullptr;
  bool is_initialised = false;
  Device device = nullptr;

  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*by_index)(unsigned, Device*) = nullptr;
  int (*by_uuid)(const char*, Device*) = nullptr;
  // Each may be missing in an old driver.
  int (*memory)(Device, Memory*) = nullptr;
  int (*utilisation)(Device, Utilisation*) = nullptr;
  int (*power)(Device, unsigned*) = nullptr;             // mW
  int (*energy)(Device, unsigned long long*) = nullptr;  // mJ since the driver was loaded
  int (*temperature)(Device, int, unsigned*) = nullptr;  // °C
  int (*clock)(Device, int, unsigned*) = nullptr;        // MHz

  ~Library() {
    if (is_initialised) shutdown();
    if (handle != nullptr) dlclose(handle);
  }

  template <typename Function>
  void find(Function*& function, const char* name) {
    function = reinterpret_cast<Function*>(dlsym(handle, name));
  }

  // An empty text, or why it cannot be used.
  std::string open(const char* path) {
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) return dlerror();
    find(init, "nvmlInit_v2");
    find(shutdown, "nvmlShutdown");
    find(by_index, "nvmlDeviceGetHandleByIndex_v2");
    find(by_uuid, "nvmlDeviceGetHandleByUUID");
    find(memory, "nvmlDeviceGetMemoryInfo");
    find(utilisation, "nvmlDeviceGetUtilizationRates");
    find(power, "nvmlDeviceGetPowerUsage");
    find(energy, "nvmlDeviceGetTotalEnergyConsumption");
    find(temperature, "nvmlDeviceGetTemperature");
    find(clock, "nvmlDeviceGetClockInfo");
    if (init == nullptr || shutdown == nullptr || by_index == nullptr) return std::string(path) + " is no NVML";
    if (const int status = init(); status != 0) return "NVML does not start (error " + std::to_string(status) + ")";
    is_initialised = true;
    return select_device() ? "" : "NVML does not know the GPU";
  }

  // CUDA_VISIBLE_DEVICES lists indices or names such as GPU-8932f937-… and MIG-…; CUDA's device 0 is the first of them.
  // The indices are NVML's where all GPUs are alike or CUDA_DEVICE_ORDER is PCI_BUS_ID.
  bool select_device() {
    const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
    std::string first = visible == nullptr ? "0" : visible;
    first = first.substr(0, first.find(','));
    char* end = nullptr;
    const unsigned long index = std::strtoul(first.c_str(), &end, 10);
    if (!first.empty() && *end == '\0') return by_index(static_cast<unsigned>(index), &device) == 0;
    return by_uuid != nullptr && by_uuid(first.c_str(), &device) == 0;
  }
};

std::unique_ptr<NvmlGpu> NvmlGpu::open(std::string* why_not, const char* library) {
  auto opened = std::make_unique<Library>();
  *why_not = opened->open(library);
  if (!why_not->empty()) return nullptr;
  return std::unique_ptr<NvmlGpu>(new NvmlGpu(std::move(opened)));
}

NvmlGpu::NvmlGpu(std::unique_ptr<Library> library) : library_(std::move(library)) { read(); }

NvmlGpu::~NvmlGpu() = default;

GpuReading NvmlGpu::read() {
  const Library& nvml = *library_;
  GpuReading reading;
  Memory memory{};
  Utilisation utilisation{};
  unsigned number = 0;
  unsigned long long energy_mj = 0;
  if (nvml.utilisation && nvml.utilisation(nvml.device, &utilisation) == 0)
    reading.utilisation = utilisation.gpu / 100.0;
  if (nvml.memory && nvml.memory(nvml.device, &memory) == 0)
    reading.memory_used_mb = static_cast<double>(memory.used) / 1e6;
  if (nvml.temperature && nvml.temperature(nvml.device, kTemperatureOfGpu, &number) == 0)
    reading.temperature_c = number;
  if (nvml.clock && nvml.clock(nvml.device, kClockOfSms, &number) == 0) reading.sm_clock_mhz = number;
  if (nvml.power && nvml.power(nvml.device, &number) == 0) reading.power_w = number / 1e3;
  if (nvml.energy && nvml.energy(nvml.device, &energy_mj) == 0) {
    const double now = now_seconds();
    const double seconds = now - read_at_;
    // The counter moves ten times a second: in a shorter time than this its steps would show.
    if (seconds > kLeastEnergySeconds) {
      if (read_at_ > 0 && energy_mj >= energy_mj_)
        reading.power_w = static_cast<double>(energy_mj - energy_mj_) / 1e3 / seconds;
      energy_mj_ = energy_mj;
      read_at_ = now;
    }
  }
  return reading;
}

HardwareSource::HardwareSource(std::unique_ptr<NvmlGpu> gpu)
    : gpu_(std::move(gpu)), cpu_seconds_(process_cpu_seconds()), wall_seconds_(now_seconds()) {}

void HardwareSource::append(MetricValues& values) {
  const auto add = [&](std::string_view name, std::optional<double> value) {
    if (value) values.emplace_back(std::string(name), *value);
  };
  if (gpu_ && now_seconds() - asked_at_ >= kSecondsBetweenReadings) {
    asked_at_ = now_seconds();
    const GpuReading reading = gpu_->read();
    add(kGpuUtilisation, reading.utilisation);
    add(kGpuMemoryUsed, reading.memory_used_mb);
    add(kGpuPower, reading.power_w);
    add(kGpuTemperature, reading.temperature_c);
    add(kGpuClock, reading.sm_clock_mhz);
  }
  add(kProcessMemory, process_memory_mb());
  const double cpu = process_cpu_seconds(), wall = now_seconds();
  if (wall > wall_seconds_) add(kProcessCpu, (cpu - cpu_seconds_) / (wall - wall_seconds_));
  cpu_seconds_ = cpu;
  wall_seconds_ = wall;
}

std::unique_ptr<MetricsSource> open_hardware_source(bool is_gpu) {
  std::string why_not;
  std::unique_ptr<NvmlGpu> gpu = is_gpu ? NvmlGpu::open(&why_not) : nullptr;
  if (!why_not.empty()) log::info("no power, temperature and utilisation of the GPU: {}", why_not);
  return std::make_unique<HardwareSource>(std::move(gpu));
}

}  // namespace llmfp8
