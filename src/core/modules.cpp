#include "core/modules.h"

#include <cstdlib>

namespace llmfp8 {

namespace fs = std::filesystem;

namespace {

// Empty: not set.
std::string forced_folder() {
  const char* folder = std::getenv("LLMFP8_LIB_DIR");
  return folder != nullptr ? folder : "";
}

}  // namespace

fs::path program_folder() {
  std::error_code none;
  return fs::read_symlink("/proc/self/exe", none).parent_path();
}

std::vector<fs::path> module_folders() {
  if (const std::string forced = forced_folder(); !forced.empty()) return {forced};
  const fs::path program = program_folder();
  return {program.parent_path() / "lib", program / "lib", program};
}

fs::path find_module(std::string_view name) {
  for (const fs::path& folder : module_folders()) {
    std::error_code none;
    if (fs::exists(folder / name, none)) return folder / name;
  }
  return {};
}

std::string module_places() {
  if (const std::string forced = forced_folder(); !forced.empty()) return "LLMFP8_LIB_DIR=" + forced;
  std::vector<fs::path> existing;
  for (const fs::path& folder : module_folders()) {
    std::error_code none;
    if (fs::is_directory(folder, none)) existing.push_back(folder);
  }
  return folder_list(existing);
}

std::string folder_list(const std::vector<fs::path>& folders) {
  std::string text;
  for (std::size_t i = 0; i < folders.size(); ++i) {
    if (i > 0) text += i + 1 == folders.size() ? " and " : ", ";
    text += folders[i].string();
  }
  return text;
}

}  // namespace llmfp8
