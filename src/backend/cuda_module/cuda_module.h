// What libllmfp8_cuda.so gives the program that opens it (open_module.cpp): which build it is of, and its backend.
// Implemented by cuda_module.cpp. Objects with virtual functions and exceptions cross this boundary, so both sides must
// have been compiled from the same declarations: LLMFP8_INTERFACE_ID is a digest of them (cmake/interface_id.cmake).
#pragma once

#include <cstdint>
#include <string>

#include "backend/registry.h"
#include "core/log.h"

namespace llmfp8 {

// Of the structure below. Raised with every change to it.
constexpr std::uint32_t kCudaModuleAbi = 1;

struct CudaModule {
  // These three stay where they are in every version, and are read first.
  std::uint32_t abi;
  const char* version;    // of the project
  const char* interface;  // LLMFP8_INTERFACE_ID
  // The module has a copy of core of its own; its messages go to the program's log.
  void (*forward_log)(void (*program_write)(log::Level level, const std::string& message));
  // The caller owns the result; nullptr, and the reason, where there is no usable GPU. Throws Error.
  Backend* (*create)(const BackendOptions& options, std::string* why_not);
};

}  // namespace llmfp8

// The only symbol that the module exports.
extern "C" const llmfp8::CudaModule* llmfp8_cuda_module();
