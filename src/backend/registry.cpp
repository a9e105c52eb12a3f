#include "backend/registry.h"

#include "core/log.h"

namespace llmfp8 {

std::unique_ptr<Backend> create_backend(std::string_view device, const BackendOptions& options) {
  if (device == "cpu") return create_cpu_backend();
  std::string why_not;
  if (device == "cuda") {
    auto cuda = create_cuda_backend(&why_not, options);
    CHECK(cuda != nullptr, "--device cuda: {}", why_not);
    return cuda;
  }
  if (device != "auto") fail_usage("--device {}: wanted auto, cpu or cuda", device);
  if (auto cuda = create_cuda_backend(&why_not, options)) return cuda;
  log::info("device: cpu ({})", why_not);
  return create_cpu_backend();
}

}  // namespace llmfp8
