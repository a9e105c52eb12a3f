// A driver's library for one test: a GPU that draws 250 W by its energy counter, and has no clock.
#include <chrono>
#include <cstring>

namespace {
int gpus[2];
double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
}  // namespace

extern "C" {
struct FakeMemory {
  unsigned long long total, free, used;
};
struct FakeUtilisation {
  unsigned gpu, memory;
};
int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  if (index > 1) return 2;
  *device = &gpus[index];
  return 0;
}
int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  if (std::strcmp(uuid, "GPU-1") != 0) return 2;
  *device = &gpus[1];
  return 0;
}
int nvmlDeviceGetMemoryInfo(void* device, FakeMemory* memory) {
  *memory = {80'000'000'000, 0, device == &gpus[1] ? 7'000'000'000ull : 5'000'000'000ull};
  return 0;
}
int nvmlDeviceGetUtilizationRates(void*, FakeUtilisation* utilisation) {
  *utilisation = {97, 40};
  return 0;
}
int nvmlDeviceGetPowerUsage(void*, unsigned* milliwatts) {
  *milliwatts = 700'000;
  return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void*, unsigned long long* millijoules) {
  *millijoules = static_cast<unsigned long long>(seconds() * 250e3);
  return 0;
}
int nvmlDeviceGetTemperature(void*, int, unsigned* celsius) {
  *celsius = 61;
  return 0;
}
int nvmlDeviceGetClockInfo(void*, int, unsigned*) { return 3; }  // not supported
}
