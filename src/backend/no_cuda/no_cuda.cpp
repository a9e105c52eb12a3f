// The CUDA backend of a build without it: absent, with the reason.
#include "backend/registry.h"

namespace llmfp8 {

std::unique_ptr<Backend> create_cuda_backend(std::string* why_not, const BackendOptions&) {
  *why_not = "this build has no CUDA backend";
  return nullptr;
}

std::vector<std::string> cuda_backend_files() { return {}; }

}  // namespace llmfp8
