// How many cores a container's CPU quota amounts to. Called by core/thread_pool for its default.
#pragma once

#include <filesystem>
#include <optional>

namespace llmfp8 {

// Rounded up; nothing where there is no quota. root: where cgroups are mounted, version 2 or 1.
std::optional<int> cpu_quota(const std::filesystem::path& root = "/sys/fs/cgroup");

}  // namespace llmfp8
