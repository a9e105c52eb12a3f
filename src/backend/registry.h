// Which backends this program was built with, and the one a run uses.
#pragma once

#include <memory>
#include <string_view>

#include "backend/backend.h"

namespace llmfp8 {

struct BackendOptions {
  // The same inputs give the same bytes every time: no atomics in sums, no choice by timing. The CPU always is.
  bool deterministic = false;
};

// device: auto | cpu | cuda. auto takes cuda where it is built in and a GPU is usable, else cpu, and logs why.
// Throws Error where the device asked for by name cannot be had; the message says why.
std::unique_ptr<Backend> create_backend(std::string_view device, const BackendOptions& options = {});

std::unique_ptr<Backend> create_cpu_backend();

// no_cuda/ gives a null implementation: nullptr, and the reason.
std::unique_ptr<Backend> create_cuda_backend(std::string* why_not, const BackendOptions& options = {});

}  // namespace llmfp8
