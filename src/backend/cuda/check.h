// Turns the status of every CUDA and cuBLASLt call into an Error that names the call; DeviceFailed where the GPU is of no
// use any more (fault.h). Used by all of this folder.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "backend/cuda/fault.h"

namespace llmfp8::cuda {


inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) [[unlikely]] {
    cudaGetLastError();  // so that the next check does not report this one again
    throw_fault(status, what);
  }
}

inline void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]] {
    throw_if_faulted(what);  // a library says "execution failed" where the GPU was lost before its call
    fail("cuBLASLt: {}: {}", what, cublasLtGetStatusString(status));
  }
}

// After every kernel launch. A fault inside a kernel shows at a later call; a wrong launch shows here.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace llmfp8::cuda

#define LLMFP8_CUDA_CHECK(call) ::llmfp8::cuda::check((call), #call)
