// Finds and opens NVIDIA's libraries, so that a user of PyPI's wheels needs no LD_LIBRARY_PATH. Called by
// open_module.cpp.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace llmfp8 {

// The value of an environment variable; empty where it is not set.
using Environment = std::function<std::string(const char* name)>;

// Where the libraries are looked for, in this order: the loader's own path (LD_LIBRARY_PATH, ld.so.conf), then folders.
// LLMFP8_CUDA_LIB_DIR, folders with a colon between them, replaces all of it.
struct NvidiaPlaces {
  std::string forced;                          // the value of LLMFP8_CUDA_LIB_DIR
  std::vector<std::filesystem::path> folders;  // those that exist
  std::string text() const;                    // "on the loader's path, in a and b"
};

NvidiaPlaces nvidia_places(const std::filesystem::path& program_folder, const Environment& environment);

// The file that was opened, for this process and for good; empty: problem says what was wrong, and where it was looked
// for. name: as in libcublasLt.so.13. What the module, or one of these libraries, asks for by that name later is
// this file.
struct NvidiaLibrary {
  std::string file;
  std::string problem;
};

NvidiaLibrary open_nvidia_library(const std::string& name, const NvidiaPlaces& places);

}  // namespace llmfp8
