// How much host memory this process may still take. Called before a checkpoint's copies are made.
#pragma once

#include <cstddef>
#include <filesystem>

namespace llmfp8 {

// Bytes: what the kernel calls available, at most what is left of the memory limit of a container (cgroup version 2 or
// 1). The largest size_t where neither can be read. proc, cgroup: where they are mounted.
std::size_t available_host_bytes(const std::filesystem::path& proc = "/proc",
                                 const std::filesystem::path& cgroup = "/sys/fs/cgroup");

}  // namespace llmfp8
