#include "backend/cuda/versions.h"

#include <tuple>

#include <fmt/format.h>

namespace llmfp8::cuda {
namespace {

struct Version {
  std::size_t major = 0, minor = 0, patch = 0;
  std::string text() const { return fmt::format("{}.{}.{}", major, minor, patch); }
};

Version driver_version(std::size_t v) { return {v / 1000, v % 1000 / 10, 0}; }
Version library_version(std::size_t v) {
  if (v < 10000) return {v / 1000, v / 100 % 10, v % 100};  // cuDNN before 9
  return {v / 10000, v / 100 % 100, v % 100};
}

std::string why_library_unfit(const char* name, std::size_t built, std::size_t loaded) {
  const Version wanted = library_version(built), found = library_version(loaded);
  if (found.major == wanted.major && found.minor >= wanted.minor) return "";
  return fmt::format("{} {} was found, this build needs {}.{} or a later {}.x", name, found.text(), wanted.major,
                     wanted.minor, wanted.major);
}

}  // namespace

std::string why_unfit(const LibraryVersions& built, const LibraryVersions& loaded) {
  const Version wanted = driver_version(built.driver), found = driver_version(loaded.driver);
  if (found.major < wanted.major) {
    return fmt::format("the NVIDIA driver is for CUDA {}.{}, this build needs {}.{}", found.major, found.minor,
                       wanted.major, wanted.minor);
  }
  const std::string cublaslt = why_library_unfit("cuBLASLt", built.cublaslt, loaded.cublaslt);
  return !cublaslt.empty() ? cublaslt : why_library_unfit("cuDNN", built.cudnn, loaded.cudnn);
}

}  // namespace llmfp8::cuda
