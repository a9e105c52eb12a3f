// A libllmfp8_cuda.so without CUDA: of another build, or with a word to say. LLMFP8_FAKE chooses; see
// cuda_module_test.cpp.
#include <cstdlib>
#include <string>

#include "backend/cuda_module/cuda_module.h"
#include "backend/cuda_module/interface_id.h"
#include "core/error.h"

namespace llmfp8 {
namespace {

std::string wish() {
  const char* text = std::getenv("LLMFP8_FAKE");
  return text != nullptr ? text : "";
}

// Caught by its base, whose type the program has a description of its own for.
struct InModule : Error {
  InModule() : Error("thrown in the module", ErrorKind::usage) {}
};

Backend* create(const BackendOptions&, std::string* why_not) {
  if (wish() == "usage_error") throw InModule();
  log::warning("a warning of the module");
  log::info("a note of the module");
  *why_not = "the module found nothing";
  return nullptr;
}

CudaModule described() {
  CudaModule module{kCudaModuleAbi, LLMFP8_VERSION, LLMFP8_INTERFACE_ID, &log::forward_to, &create};
  if (wish() == "abi") module.abi += 1;
  if (wish() == "version") module.version = "0.0.1";
  if (wish() == "interface") module.interface = "0123456789abcdef";
  return module;
}

}  // namespace
}  // namespace llmfp8

extern "C" const llmfp8::CudaModule* llmfp8_cuda_module() {
  static const llmfp8::CudaModule module = llmfp8::described();
  return llmfp8::wish() == "null" ? nullptr : &module;
}
