// Whether the CUDA libraries that were found are those that it was built for. Called by cuda_backend.cpp.
#pragma once

#include <cstddef>
#include <string>

namespace llmfp8::cuda {

// As the libraries number themselves.
struct LibraryVersions {
  std::size_t driver = 0;    // of CUDA: 13000 is 13.0; built: that of the runtime, which the driver has to serve
  std::size_t cublaslt = 0;  // 130100: 13.1.0
  std::size_t cudnn = 0;     // 91900: 9.19.0; before 9: 8904
};

// Empty, or the first library that is too old or of another major version: found, wanted. A newer one of the same major
// version is fine; so is an older driver of it, which the runtime itself refuses where it must.
std::string why_unfit(const LibraryVersions& built, const LibraryVersions& loaded);

// Of cuDNN, which only attention_cudnn.cpp includes.
std::size_t cudnn_built_version();
std::size_t cudnn_loaded_version();

}  // namespace llmfp8::cuda
