// One GPU as a Backend: memory, streams, capabilities. Made by cuda_module/cuda_module.cpp.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "backend/registry.h"
#include "backend/cuda/attention.h"
#include "backend/cuda/gemm.h"
#include "backend/cuda/handles.h"

namespace llmfp8::cuda {

// The GPU that a process uses, and what it can do.
struct DeviceInfo {
  int index = 0;
  std::string name;    // "NVIDIA H200"
  int capability = 0;  // 90: compute capability 9.0
  std::size_t memory_bytes = 0;
  int driver_version = 0;  // of CUDA that the driver brings, 13000: 13.0
  std::size_t cublaslt_version = 0;

  // Names all that a timed choice of algorithms depends on: "NVIDIA H200 sm_90 driver 13.0 cuBLASLt 130100".
  std::string machine() const;
};

// From the device alone: asks neither driver nor library.
Capabilities capabilities_of(const DeviceInfo& device);

class CudaBackend : public Backend {
 public:
  CudaBackend(const DeviceInfo& device, const BackendOptions& options);
  ~CudaBackend() override;

  std::string_view name() const override { return "cuda"; }
  const Capabilities& capabilities() const override { return capabilities_; }

  Buffer allocate(std::size_t bytes, std::string_view what) override;
  Buffer allocate_host(std::size_t bytes, std::string_view what) override;

  std::unique_ptr<Stream> create_stream(StreamUse use) override;
  std::unique_ptr<Event> create_event(EventKind kind) override;
  void record(Event& event, Stream& stream) override;
  void wait(Stream& stream, Event& event) override;
  void synchronize(Event& event) override;
  void synchronize(Stream& stream) override;
  double elapsed_ms(Event& from, Event& to) override;

  void copy_to_device(void* device, const void* host, std::size_t bytes, Stream& stream) override;
  void copy_to_host(void* host, const void* device, std::size_t bytes, Stream& stream) override;

  std::unique_ptr<WorkGraph> capture(Stream& stream, const std::function<void()>& enqueue) override;
  void launch(WorkGraph& graph, Stream& stream) override;

  std::unique_ptr<Ops> create_ops(Stream& stream, Arena& arena) override;

 private:
  // The device is a property of the calling thread, and a loader's thread starts with device 0.
  void use_device() const;

  DeviceInfo device_;
  Capabilities capabilities_;
  std::unique_ptr<GemmEngine> gemm_;
  std::unique_ptr<AttentionContext> attention_;
};

// nullptr, and the reason, where this machine has no GPU that can be used.
std::unique_ptr<Backend> open_backend(std::string* why_not, const BackendOptions& options = {});

}  // namespace llmfp8::cuda
