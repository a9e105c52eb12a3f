#include "train/run_folder.h"

#include <fstream>
#include <system_error>

#include "core/error.h"
#include "hub/file_io.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;

bool holds_finished_run(const fs::path& folder) {
  std::error_code ignored;
  if (fs::exists(folder / "model.safetensors", ignored) || fs::exists(folder / "model.safetensors.index.json", ignored)) return true;
  return fs::exists(folder / "summary.json", ignored);
}

}  // namespace

RunFolder::RunFolder(const fs::path& folder, bool overwrite) : path_(folder) {
  std::error_code error;
  CHECK(!fs::exists(folder, error) || fs::is_directory(folder, error), "--output_dir {}: it is a file, wanted a folder", folder.string());
  CHECK(overwrite || !holds_finished_run(folder),
        "--output_dir {}: it holds a finished run; give another folder, or --overwrite to replace it", folder.string());
  created_ = fs::create_directories(folder, error);
  CHECK(!error, "--output_dir {}: cannot be created ({})", folder.string(), error.message());
  const fs::path probe = folder / ".writable";
  {
    std::ofstream file(probe);
    file << "1";
    CHECK(file.flush().good(), "--output_dir {}: not writable, or the disk is full", folder.string());
  }
  fs::remove(probe, error);
}

RunFolder::~RunFolder() {
  std::error_code ignored;
  if (created_ && fs::is_empty(path_, ignored) && !ignored) fs::remove(path_, ignored);
}

void RunFolder::write_run(const nlohmann::ordered_json& run) const { write_file_atomically(path_ / "run.json", run.dump(2) + "\n"); }

}  // namespace llmfp8
