// The CPU as a Backend: device memory is host memory, streams run at once. Made by create_cpu_backend() of registry.h.
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "backend/cpu/cpu_ops.h"
#include "backend/registry.h"
#include "core/thread_pool.h"

namespace llmfp8 {
namespace {

constexpr std::size_t kMapFrom = std::size_t{1}
                                 << 20;  // bytes; from here on pages come from the system, zeroed when touched

std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

std::size_t memory_of_pages(int name) {
  return static_cast<std::size_t>(sysconf(name)) * static_cast<std::size_t>(sysconf(_SC_PAGE_SIZE));
}

OutOfMemory refusal(std::size_t bytes, std::string_view what) {
  return OutOfMemory({"host", std::string(what), bytes, memory_of_pages(_SC_AVPHYS_PAGES), memory_of_pages(_SC_PHYS_PAGES)});
}

Buffer allocate_zeroed(std::size_t bytes, std::string_view what) {
  if (bytes == 0) return Buffer();
  if (bytes >= kMapFrom) {
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw refusal(bytes, what);
    madvise(data, bytes, MADV_HUGEPAGE);  // a hint: without it the large matrices miss the TLB
    return Buffer(data, bytes, [bytes](void* p) { munmap(p, bytes); });
  }
  const std::size_t rounded = (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  void* data = std::aligned_alloc(kArenaAlignment, rounded);
  if (data == nullptr) throw refusal(bytes, what);
  std::memset(data, 0, rounded);
  return Buffer(data, bytes, [](void* p) { std::free(p); });
}

class CpuEvent : public Event {
 public:
  std::chrono::steady_clock::time_point time;
};

CpuEvent& own(Event& event) { return static_cast<CpuEvent&>(event); }

class CpuBackend : public Backend {
 public:
  CpuBackend() : engine_(cpu::matmul_engine()) {
    capabilities_.device = fmt::format("cpu: {}, {} thread{}", processor_name(), num_threads(), num_threads() == 1 ? "" : "s");
    capabilities_.matmul = engine_.describe();
    capabilities_.fp8_tensor = {true, "emulated exactly"};
    capabilities_.mxfp8 = {true, "emulated exactly"};
    capabilities_.memory_bytes = memory_of_pages(_SC_PHYS_PAGES);
  }

  std::string_view name() const override { return "cpu"; }
  const Capabilities& capabilities() const override { return capabilities_; }

  Buffer allocate(std::size_t bytes, std::string_view what) override { return allocate_zeroed(bytes, what); }
  Buffer allocate_host(std::size_t bytes, std::string_view what) override { return allocate_zeroed(bytes, what); }

  std::unique_ptr<Stream> create_stream(StreamUse) override { return std::make_unique<Stream>(); }
  std::unique_ptr<Event> create_event(EventKind) override { return std::make_unique<CpuEvent>(); }
  void record(Event& event, Stream&) override { own(event).time = std::chrono::steady_clock::now(); }
  void wait(Stream&, Event&) override {}
  void synchronize(Event&) override {}
  void synchronize(Stream&) override {}
  double elapsed_ms(Event& from, Event& to) override {
    return std::chrono::duration<double, std::milli>(own(to).time - own(from).time).count();
  }

  void copy_to_device(void* device, const void* host, std::size_t bytes, Stream&) override {
    std::memcpy(device, host, bytes);
  }
  void copy_to_host(void* host, const void* device, std::size_t bytes, Stream&) override {
    std::memcpy(host, device, bytes);
  }

  std::unique_ptr<Ops> create_ops(Stream&, Arena& arena) override {
    return std::make_unique<cpu::CpuOps>(arena, engine_, num_threads());
  }

 private:
  const cpu::MatmulEngine& engine_;
  Capabilities capabilities_;
};

}  // namespace

std::unique_ptr<Backend> create_cpu_backend() { return std::make_unique<CpuBackend>(); }

}  // namespace llmfp8
