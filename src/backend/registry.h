// Which backends this program was built with, and the one a run uses.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"

namespace llmfp8 {

struct BackendOptions {
  // The same inputs give the same bytes every time: no atomics in sums, no choice by timing. The CPU always is.
  bool deterministic = false;
};

// device: auto | cpu | cuda. auto takes cuda where its module opens and a GPU is usable, else cpu, and logs why.
// Throws Error where the device asked for by name cannot be had; the message says why.
std::unique_ptr<Backend> create_backend(std::string_view device, const BackendOptions& options = {});

std::unique_ptr<Backend> create_cpu_backend();

// Opens the module of the CUDA backend (cuda_module/). nullptr, and the reason, where it, a library or a usable GPU is
// missing, and in a build without CUDA (no_cuda/).
std::unique_ptr<Backend> create_cuda_backend(std::string* why_not, const BackendOptions& options = {});
// The files that this took, as far as it came: the module, then NVIDIA's libraries.
std::vector<std::string> cuda_backend_files();

}  // namespace llmfp8
