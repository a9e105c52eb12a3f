// What a CUDA error means for a run: the GPU was lost, this program has a defect, or one call has failed. Used by check.h.
#pragma once

#include <string>
#include <string_view>

#include <cuda_runtime_api.h>

#include "core/error.h"

namespace llmfp8::cuda {

enum class Fault : std::uint8_t {
  none,    // the call has failed, the GPU goes on
  lost,    // the GPU, its driver or its memory: nothing that this program did
  defect,  // a kernel read or wrote where it must not, or stopped itself
};

// After lost and defect every later call fails, and what lay in the GPU's memory cannot be read.
Fault fault_of(cudaError_t status);

// gpu: as "NVIDIA H200 (GPU 0)"; what: the call, or what was waited for.
std::string fault_text(cudaError_t status, std::string_view what, std::string_view gpu);

// Named in errors from now on; a process uses one GPU.
void set_gpu_name(std::string name);

[[noreturn]] void throw_fault(cudaError_t status, std::string_view what);
// Throws where an earlier call has left the GPU unusable.
void throw_if_faulted(std::string_view what);

}  // namespace llmfp8::cuda
