#include "backend/cuda/cuda_backend.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "backend/cuda/cuda_ops.h"
#include "backend/cuda/gemm_kernels.h"
#include "backend/cuda/kernels/kernels.h"
#include "backend/cuda/versions.h"
#include "backend/registry.h"
#include "core/log.h"

namespace llmfp8::cuda {
namespace {

constexpr int kMinimumCapability = 80;  // bf16 in the tensor cores
constexpr int kFp8Capability = 89;
constexpr int kMxCapability = 100, kMxEnd = 120;  // from, and no longer from
constexpr std::size_t kMxCublasLt = 120800;       // 12.8: the first with block-scaled products

class CudaGraph : public WorkGraph {
 public:
  explicit CudaGraph(cudaGraphExec_t ready) : handle_(ready) {}
  cudaGraphExec_t get() const { return handle_.get(); }

 private:
  GraphExecHandle handle_;
};

class CudaStream : public Stream {
 public:
  explicit CudaStream(StreamUse use) : use(use) {}
  cudaStream_t get() const { return handle_.get(); }

  const StreamUse use;
  // Workspaces, made for the first Ops of the stream: streams that only copy need none.
  Buffer gemm_workspace, kernel_workspace;

 private:
  StreamHandle handle_ = make_stream();
};

class CudaEvent : public Event {
 public:
  explicit CudaEvent(EventKind kind) : handle_(make_event(kind)) {}
  cudaEvent_t get() const { return handle_.get(); }

 private:
  EventHandle handle_;
};

CudaStream& own(Stream& stream) { return static_cast<CudaStream&>(stream); }
CudaEvent& own(Event& event) { return static_cast<CudaEvent&>(event); }

std::string version(int cuda) { return fmt::format("{}.{}", cuda / 1000, cuda % 1000 / 10); }
std::string capability_name(int capability) { return fmt::format("{}.{}", capability / 10, capability % 10); }

// The driver's version of CUDA; 0 where there is no driver.
int driver_version() {
  int found = 0;
  return cudaDriverGetVersion(&found) == cudaSuccess ? found : 0;
}

std::string reason_without_device(cudaError_t status) {
  if (status == cudaErrorNoDevice) return "no NVIDIA GPU was found";
  if (status == cudaErrorInsufficientDriver) {
    const int driver = driver_version();
    if (driver == 0) return "no NVIDIA driver was found";
    return fmt::format("the NVIDIA driver is for CUDA {}, this build needs {}", version(driver),
                       version(CUDART_VERSION));
  }
  return fmt::format("{} ({})", cudaGetErrorString(status), cudaGetErrorName(status));
}

// Ranks of one machine take a GPU each; a process by itself takes the first.
int wanted_device() {
  const char* text = std::getenv("LOCAL_RANK");
  if (text == nullptr || *text == '\0') return 0;
  int rank = -1;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), rank);
  CHECK(error == std::errc() && *end == '\0' && rank >= 0, "LOCAL_RANK={}: wanted the number of a GPU", text);
  return rank;
}

// Nothing, or why this machine's GPU cannot be used.
std::string find_device(DeviceInfo* device) {
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess) {
    cudaGetLastError();
    return reason_without_device(status);
  }
  device->index = wanted_device();
  if (count == 0) return reason_without_device(cudaErrorNoDevice);
  if (device->index >= count) return fmt::format("LOCAL_RANK={}, but there are {} GPUs", device->index, count);
  const LibraryVersions built{CUDART_VERSION, CUBLAS_VERSION, cudnn_built_version()};
  const LibraryVersions loaded{static_cast<std::size_t>(driver_version()), cublasLtGetVersion(), cudnn_loaded_version()};
  if (const std::string reason = why_unfit(built, loaded); !reason.empty()) return reason;
  cudaDeviceProp properties{};
  LLMFP8_CUDA_CHECK(cudaGetDeviceProperties(&properties, device->index));
  device->name = properties.name;
  set_gpu_name(fmt::format("{} (GPU {})", device->name, device->index));
  device->capability = 10 * properties.major + properties.minor;
  device->memory_bytes = properties.totalGlobalMem;
  device->driver_version = driver_version();
  device->cublaslt_version = cublasLtGetVersion();
  if (device->capability < kMinimumCapability) {
    return fmt::format("{} has compute capability {}, {} or higher is needed", device->name,
                       capability_name(device->capability), capability_name(kMinimumCapability));
  }
  if (const cudaError_t status = cudaSetDevice(device->index); status != cudaSuccess) {
    cudaGetLastError();
    return fmt::format("{} cannot be used: {}", device->name, cudaGetErrorString(status));
  }
  if (const cudaError_t status = kernels_fit_device(); status != cudaSuccess) {
    return fmt::format("{} has compute capability {}; this build is for {}: {}", device->name,
                       capability_name(device->capability), LLMFP8_CUDA_ARCHITECTURES, cudaGetErrorString(status));
  }
  return "";
}

// Where MXFP8 products run: 10.x. From 12.0 on cuBLASLt multiplies FP8 as TN only, for which the codes of dgrad and
// wgrad would have to be transposed ones.
FormatSupport mxfp8_support(const DeviceInfo& device) {
  FormatSupport support{.available = false, .can_emulate = true};
  if (device.capability < kMxCapability) {
    support.reason = "MXFP8 needs compute capability 10.0, ";
  } else if (device.capability >= kMxEnd) {
    support.reason = "MXFP8 is built for compute capability 10.x, ";
  } else if (device.cublaslt_version < kMxCublasLt) {
    support.reason = fmt::format("MXFP8 needs cuBLASLt 12.8, found {}.{}", device.cublaslt_version / 10000,
                                 device.cublaslt_version / 100 % 100);
    return support;
  } else {
    return {.available = true};
  }
  support.reason += fmt::format("{} has {}", device.name, capability_name(device.capability));
  return support;
}

}  // namespace

Capabilities capabilities_of(const DeviceInfo& device) {
  Capabilities c;
  c.device = fmt::format("cuda: {}, sm_{}, CUDA {}", device.name, device.capability, version(device.driver_version));
  c.matmul = fmt::format("cuBLASLt {}.{}.{}", device.cublaslt_version / 10000, device.cublaslt_version / 100 % 100,
                         device.cublaslt_version % 100);
  c.fp8_tensor.available = device.capability >= kFp8Capability;
  if (!c.fp8_tensor.available) {
    c.fp8_tensor.reason = fmt::format("FP8 needs compute capability {}, {} has {}", capability_name(kFp8Capability),
                                      device.name, capability_name(device.capability));
  }
  c.mxfp8 = mxfp8_support(device);
  c.memory_bytes = device.memory_bytes;
  c.asynchronous = true;
  c.graphs = true;
  c.logits_bytes = std::size_t{2} << 30;
  return c;
}

std::string DeviceInfo::machine() const {
  return fmt::format("{} sm_{} driver {} cuBLASLt {}", name, capability, version(driver_version), cublaslt_version);
}

CudaBackend::CudaBackend(const DeviceInfo& device, const BackendOptions& options)
    : device_(device), capabilities_(capabilities_of(device)) {
  use_device();
  gemm_ = std::make_unique<GemmEngine>(device.machine(), options.deterministic ? AlgorithmChoice::first : AlgorithmChoice::timed);
  attention_ = std::make_unique<AttentionContext>(AttentionOptions{.deterministic = options.deterministic});
}

CudaBackend::~CudaBackend() = default;

void CudaBackend::use_device() const { LLMFP8_CUDA_CHECK(cudaSetDevice(device_.index)); }

Buffer CudaBackend::allocate(std::size_t bytes, std::string_view what) {
  if (bytes == 0) return Buffer();
  use_device();
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free = 0, total = 0;
    LLMFP8_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    throw OutOfMemory({"GPU", std::string(what), bytes, free, total});
  }
  check(status, "cudaMalloc");
  Buffer buffer(data, bytes, [](void* p) { static_cast<void>(cudaFree(p)); });
  // Streams here do not wait for the default stream, so the host does.
  LLMFP8_CUDA_CHECK(cudaMemset(data, 0, bytes));
  LLMFP8_CUDA_CHECK(cudaStreamSynchronize(cudaStreamLegacy));
  return buffer;
}

Buffer CudaBackend::allocate_host(std::size_t bytes, std::string_view what) {
  if (bytes == 0) return Buffer();
  use_device();
  void* data = nullptr;
  const cudaError_t status = cudaHostAlloc(&data, bytes, cudaHostAllocDefault);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail("out of pinned host memory: {:.2f} GB wanted for {}", static_cast<double>(bytes) / 1e9, what);
  }
  check(status, "cudaHostAlloc");
  std::memset(data, 0, bytes);
  return Buffer(data, bytes, [](void* p) { static_cast<void>(cudaFreeHost(p)); });
}

std::unique_ptr<Stream> CudaBackend::create_stream(StreamUse use) {
  use_device();
  return std::make_unique<CudaStream>(use);
}

std::unique_ptr<Event> CudaBackend::create_event(EventKind kind) {
  use_device();
  return std::make_unique<CudaEvent>(kind);
}

void CudaBackend::record(Event& event, Stream& stream) {
  LLMFP8_CUDA_CHECK(cudaEventRecord(own(event).get(), own(stream).get()));
}

void CudaBackend::wait(Stream& stream, Event& event) {
  LLMFP8_CUDA_CHECK(cudaStreamWaitEvent(own(stream).get(), own(event).get(), 0));
}

void CudaBackend::synchronize(Event& event) { check(cudaEventSynchronize(own(event).get()), "waiting for the GPU"); }
void CudaBackend::synchronize(Stream& stream) {
  check(cudaStreamSynchronize(own(stream).get()), "waiting for the GPU");
}

double CudaBackend::elapsed_ms(Event& from, Event& to) {
  float milliseconds = 0.0f;
  check(cudaEventElapsedTime(&milliseconds, own(from).get(), own(to).get()), "measuring time on the GPU");
  return static_cast<double>(milliseconds);
}

void CudaBackend::copy_to_device(void* device, const void* host, std::size_t bytes, Stream& stream) {
  if (bytes == 0) return;
  use_device();
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, own(stream).get()), "copying to the GPU");
}

void CudaBackend::copy_to_host(void* host, const void* device, std::size_t bytes, Stream& stream) {
  if (bytes == 0) return;
  use_device();
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, own(stream).get()), "copying from the GPU");
}

std::unique_ptr<WorkGraph> CudaBackend::capture(Stream& stream, const std::function<void()>& enqueue) {
  use_device();
  const cudaStream_t on = own(stream).get();
  // Of this thread alone: another one may be loading the next batch.
  LLMFP8_CUDA_CHECK(cudaStreamBeginCapture(on, cudaStreamCaptureModeThreadLocal));
  std::string refused;
  std::exception_ptr failed;
  try {
    enqueue();
  } catch (const DeviceFailed&) {
    failed = std::current_exception();
  } catch (const Error& error) {
    refused = error.what();
  }
  cudaGraph_t raw = nullptr;
  cudaError_t status = cudaStreamEndCapture(on, &raw);
  const GraphHandle graph(raw);
  if (failed) std::rethrow_exception(failed);
  cudaGraphExec_t ready = nullptr;
  if (refused.empty() && status == cudaSuccess) status = cudaGraphInstantiate(&ready, raw, 0);
  if (refused.empty() && status == cudaSuccess) return std::make_unique<CudaGraph>(ready);
  cudaGetLastError();
  log::info("steps are given to the GPU a kernel at a time, not as a graph: {}", refused.empty() ? cudaGetErrorString(status) : refused);
  return nullptr;
}

void CudaBackend::launch(WorkGraph& graph, Stream& stream) {
  use_device();
  check(cudaGraphLaunch(static_cast<CudaGraph&>(graph).get(), own(stream).get()), "launching a step");
}

std::unique_ptr<Ops> CudaBackend::create_ops(Stream& stream, Arena& arena) {
  use_device();
  CudaStream& on = own(stream);
  if (on.use == StreamUse::main && on.gemm_workspace.data() == nullptr) on.gemm_workspace = allocate(kGemmWorkspaceBytes, "cuBLASLt workspace");
  if (on.kernel_workspace.data() == nullptr) on.kernel_workspace = allocate(kWorkspaceBytes, "kernel workspace");
  OpsContext context;
  context.stream = on.get();
  context.gemm = gemm_.get();
  context.attention = attention_.get();
  context.gemm_workspace = {on.gemm_workspace.data(), on.gemm_workspace.bytes()};
  context.kernel_workspace = on.kernel_workspace.data();
  if (capabilities_.mxfp8.available) context.mx_scale_layout = MxScaleLayout::tiles_128x4;
  return std::make_unique<CudaOps>(arena, context);
}

std::unique_ptr<Backend> open_backend(std::string* why_not, const BackendOptions& options) {
  DeviceInfo device;
  *why_not = find_device(&device);
  if (!why_not->empty()) return nullptr;
  return std::make_unique<CudaBackend>(device, options);
}

}  // namespace llmfp8::cuda
