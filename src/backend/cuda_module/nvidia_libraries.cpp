#include "backend/cuda_module/nvidia_libraries.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <sstream>

#include <fmt/format.h>

#include "core/modules.h"

namespace llmfp8 {

namespace fs = std::filesystem;

namespace {

class Places {
 public:
  void add(const fs::path& folder) {
    std::error_code none;
    if (folder.is_relative() || !fs::is_directory(folder, none)) return;
    if (std::find(found_.begin(), found_.end(), folder) == found_.end()) found_.push_back(folder);
  }

  // Wheels put one library a folder below nvidia/; those of CUDA 13 share one.
  void add_wheels_of(const fs::path& python_prefix) {
    std::error_code none;
    std::vector<fs::path> pythons;
    for (const auto& entry : fs::directory_iterator(python_prefix / "lib", none)) {
      if (entry.path().filename().string().starts_with("python3")) pythons.push_back(entry.path());
    }
    std::sort(pythons.begin(), pythons.end());
    for (const fs::path& python : pythons) {
      for (const char* wheel : {"cu" LLMFP8_CUDA_MAJOR, "cudnn", "cublas", "cuda_nvrtc"})
        add(python / "site-packages" / "nvidia" / wheel / "lib");
    }
  }

  std::vector<fs::path> take() { return std::move(found_); }

 private:
  std::vector<fs::path> found_;
};

// Where the loader found it, links included.
std::string file_of(void* library, const std::string& otherwise) {
  const link_map* map = nullptr;
  if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0 || map == nullptr || map->l_name == nullptr) return otherwise;
  return map->l_name;
}

// Global: cuDNN's parts and NVRTC find each other among what is loaded, as they do where a program links them.
constexpr int kMode = RTLD_NOW | RTLD_GLOBAL;

// NVRTC asks the loader for this library of its own folder by name alone, when it first compiles something for cuDNN.
void open_builtins_of_nvrtc(const fs::path& nvrtc) {
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(nvrtc.parent_path(), none)) {
    if (entry.path().filename().string().starts_with("libnvrtc-builtins.so.")) dlopen(entry.path().c_str(), kMode);
  }
}

}  // namespace

std::string NvidiaPlaces::text() const {
  if (!forced.empty()) return "in LLMFP8_CUDA_LIB_DIR=" + forced;
  return "on the loader's path" + (folders.empty() ? "" : ", in " + folder_list(folders));
}

NvidiaPlaces nvidia_places(const fs::path& program_folder, const Environment& environment) {
  Places places;
  if (const std::string forced = environment("LLMFP8_CUDA_LIB_DIR"); !forced.empty()) {
    std::istringstream folders(forced);
    for (std::string folder; std::getline(folders, folder, ':');)
      if (!folder.empty()) places.add(fs::absolute(folder));
    return {forced, places.take()};
  }
  // bin/ of build/ in the repository; bin/ of a bundle.
  const fs::path above = program_folder.parent_path();
  places.add_wheels_of(above.parent_path() / ".venv");
  places.add_wheels_of(above / ".venv");
  for (const char* prefix : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (const fs::path python = environment(prefix); !python.empty()) places.add_wheels_of(python);
  }
  if (const fs::path conda = environment("CONDA_PREFIX"); !conda.empty()) places.add(conda / "lib");
  for (const char* toolkit : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const fs::path folder = environment(toolkit); !folder.empty()) places.add(folder / "lib64");
  }
  places.add("/usr/local/cuda/lib64");
  places.add("/usr/local/cuda-" LLMFP8_CUDA_MAJOR "/lib64");
  // What this program was built with.
  places.add(LLMFP8_CUDA_BUILD_LIB_DIR);
  places.add(LLMFP8_CUDNN_BUILD_LIB_DIR);
  return {"", places.take()};
}

NvidiaLibrary open_nvidia_library(const std::string& name, const NvidiaPlaces& places) {
  std::string broken;
  if (places.forced.empty()) {
    if (void* library = dlopen(name.c_str(), kMode)) return {file_of(library, name), ""};
    // The loader says this of a library that it has found nowhere; anything else, of one that it has found.
    const std::string error = dlerror();
    if (!error.starts_with(name) || error.find("No such file") == std::string::npos) broken = error;
  }
  for (const fs::path& folder : places.folders) {
    const fs::path path = folder / name;
    std::error_code none;
    if (!fs::exists(path, none)) continue;
    if (void* library = dlopen(path.c_str(), kMode)) {
      if (name.starts_with("libnvrtc.")) open_builtins_of_nvrtc(path);
      return {file_of(library, path.string()), ""};
    }
    if (const char* error = dlerror(); error != nullptr && broken.empty()) broken = error;
  }
  if (!broken.empty()) return {"", fmt::format("{} does not load: {}", name, broken)};
  return {"", fmt::format("{} was not found {}", name, places.text())};
}

}  // namespace llmfp8
