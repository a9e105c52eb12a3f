#include "train/whole_folder.h"

#include <cstdio>
#include <regex>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>

#include "core/error.h"
#include "hub/file_io.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIncomplete = ".incomplete";
constexpr const char* kOld = ".old";
constexpr const char* kRemoved = ".removed";

fs::path beside(const fs::path& folder, const char* suffix) {
  return folder.parent_path() / fmt::format(".{}{}", folder.filename().string(), suffix);
}

void sync_folders(const fs::path& folder) {
  sync_folder(folder);
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder, ignored))
    if (entry.is_directory(ignored)) sync_folder(entry.path());
}

// Both names are there at every moment. False where the file system cannot do it.
bool exchange(const fs::path& a, const fs::path& b) {
  return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
}

void put_in_place(const fs::path& temporary, const fs::path& folder) {
  std::error_code ignored, error;
  if (!fs::exists(folder, ignored)) {
    fs::rename(temporary, folder, error);
  } else if (!exchange(temporary, folder)) {
    const fs::path old = beside(folder, kOld);
    fs::remove_all(old, ignored);
    fs::rename(folder, old, error);
    if (!error) fs::rename(temporary, folder, error);
    if (error) fs::rename(old, folder, ignored);
    if (!error) fs::remove_all(old, ignored);
  }
  CHECK(!error, "{}: cannot be replaced: {}", folder.string(), error.message());
}

}  // namespace

void write_whole_folder(const fs::path& folder, const WriteFolder& write) {
  const fs::path temporary = beside(folder, kIncomplete);
  std::error_code ignored, error;
  fs::remove_all(temporary, ignored);
  fs::create_directories(temporary, error);
  CHECK(!error, "{}: cannot be created: {}", temporary.string(), error.message());
  try {
    write(temporary);
    sync_folders(temporary);
    put_in_place(temporary, folder);
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
  sync_folder(folder.parent_path());
  fs::remove_all(temporary, ignored);  // after an exchange, the folder that was replaced
}

void remove_whole_folder(const fs::path& folder) {
  const fs::path removed = beside(folder, kRemoved);
  std::error_code ignored, error;
  fs::remove_all(removed, ignored);
  fs::rename(folder, removed, error);
  fs::remove_all(error ? folder : removed, ignored);
}

void clear_remains(const fs::path& parent) {
  static const std::regex kRemains(R"(\.(step-\d+|checkpoint_best|model)\.(incomplete|old|removed))");
  std::error_code ignored;
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(parent, ignored))
    names.push_back(entry.path().filename().string());
  for (const std::string& name : names) {
    std::smatch parts;
    if (!std::regex_match(name, parts, kRemains)) continue;
    const fs::path folder = parent / parts[1].str();
    if (name.ends_with(kOld) && !fs::exists(folder, ignored)) fs::rename(parent / name, folder, ignored);
    fs::remove_all(parent / name, ignored);
  }
}

}  // namespace llmfp8
