// The CUDA backend of a program: opens libllmfp8_cuda.so, and NVIDIA's libraries before it, on first use.
#include <dlfcn.h>

#include <cstdlib>
#include <sstream>
#include <string_view>

#include "backend/cuda_module/cuda_module.h"
#include "backend/cuda_module/interface_id.h"
#include "backend/cuda_module/nvidia_libraries.h"
#include "core/modules.h"

namespace llmfp8 {
namespace {

constexpr const char* kModule = "libllmfp8_cuda.so";

struct Opened {
  const CudaModule* module = nullptr;
  std::string why_not;
  std::vector<std::string> files;
};

bool has_driver() {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver != nullptr) dlclose(driver);
  return driver != nullptr;
}

std::string value_of(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// In the order of the list, which has what others need first. Nothing, or what is missing.
std::string open_nvidia_libraries(std::vector<std::string>* files) {
  const NvidiaPlaces places = nvidia_places(program_folder(), value_of);
  std::istringstream names(LLMFP8_CUDA_LIBRARIES);
  for (std::string name; names >> name;) {
    const NvidiaLibrary library = open_nvidia_library(name, places);
    if (library.file.empty()) {
      return has_driver() ? library.problem : "no NVIDIA driver was found; " + library.problem;
    }
    files->push_back(library.file);
  }
  return "";
}

// Nothing, or how the module differs from what this program was compiled for.
std::string why_of_another_build(const CudaModule& module) {
  const auto is = [](const char* found, const char* wanted) {
    return found != nullptr && std::string_view(found) == wanted;
  };
  if (module.abi != kCudaModuleAbi) return fmt::format("its ABI is {}, {} is wanted", module.abi, kCudaModuleAbi);
  if (!is(module.version, LLMFP8_VERSION)) {
    return fmt::format("it is of version {}, this program of {}", module.version, LLMFP8_VERSION);
  }
  if (!is(module.interface, LLMFP8_INTERFACE_ID)) {
    return fmt::format("its interface is {}, this program's {}", module.interface, LLMFP8_INTERFACE_ID);
  }
  return "";
}

Opened open() {
  Opened opened;
  const std::filesystem::path path = find_module(kModule);
  if (path.empty()) {
    opened.why_not = fmt::format("{} was not found in {}", kModule, module_places());
    return opened;
  }
  opened.files.push_back(path.string());
  opened.why_not = open_nvidia_libraries(&opened.files);
  if (!opened.why_not.empty()) return opened;
  // Never closed: the CUDA runtime in it has threads and static objects, as have NVIDIA's libraries.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    opened.why_not = fmt::format("{} does not load: {}", path.string(), dlerror());
    return opened;
  }
  const auto entrance = reinterpret_cast<decltype(&llmfp8_cuda_module)>(dlsym(library, "llmfp8_cuda_module"));
  const CudaModule* module = entrance != nullptr ? entrance() : nullptr;
  const std::string other = module != nullptr ? why_of_another_build(*module) : "it is no CUDA module";
  if (!other.empty()) {
    opened.why_not =
        fmt::format("{} belongs to another build of this program ({}); build it again", path.string(), other);
    return opened;
  }
  module->forward_log(&log::write);
  opened.module = module;
  return opened;
}

const Opened& opened() {
  static const Opened instance = open();
  return instance;
}

}  // namespace

std::unique_ptr<Backend> create_cuda_backend(std::string* why_not, const BackendOptions& options) {
  *why_not = opened().why_not;
  if (opened().module == nullptr) return nullptr;
  return std::unique_ptr<Backend>(opened().module->create(options, why_not));
}

std::vector<std::string> cuda_backend_files() { return opened().files; }

}  // namespace llmfp8
