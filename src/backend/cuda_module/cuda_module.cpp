// The entrance of libllmfp8_cuda.so.
#include "backend/cuda_module/cuda_module.h"

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda_module/interface_id.h"

namespace llmfp8 {
namespace {

Backend* create(const BackendOptions& options, std::string* why_not) {
  return cuda::open_backend(why_not, options).release();
}

}  // namespace
}  // namespace llmfp8

extern "C" const llmfp8::CudaModule* llmfp8_cuda_module() {
  static const llmfp8::CudaModule module{llmfp8::kCudaModuleAbi, LLMFP8_VERSION, LLMFP8_INTERFACE_ID,
                                         &llmfp8::log::forward_to, &llmfp8::create};
  return &module;
}
