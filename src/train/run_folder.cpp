#include "train/run_folder.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <system_error>

#include "core/error.h"
#include "hub/file_io.h"
#include "train/model_snapshots.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;

// Its checkpoints and those of another run must not be taken for each other's.
bool holds_checkpoints(const fs::path& folder) { return !step_folders(folder / "checkpoints").empty(); }

bool holds_finished_run(const fs::path& folder) {
  std::error_code ignored;
  if (fs::exists(folder / "model.safetensors", ignored) || fs::exists(folder / "model.safetensors.index.json", ignored)) return true;
  return fs::exists(folder / "summary.json", ignored);
}

}  // namespace

RunFolder::RunFolder(const fs::path& folder, Finished finished) : path_(folder) {
  std::error_code error;
  CHECK(!fs::exists(folder, error) || fs::is_directory(folder, error), "--output_dir {}: it is a file, wanted a folder", folder.string());
  CHECK(finished == Finished::allow || !holds_finished_run(folder),
        "--output_dir {}: it holds a finished run; give another folder, --overwrite to replace it, or --resume to go on", folder.string());
  CHECK(finished == Finished::allow || !holds_checkpoints(folder),
        "--output_dir {}: it holds checkpoints of a run; give --resume to go on, another folder, or --overwrite to replace them", folder.string());
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

bool RunFolder::cut_lines(const fs::path& path, std::uintmax_t bytes) {
  std::error_code error;
  const std::uintmax_t found = fs::file_size(path, error);
  if (error) return bytes == 0;
  std::uintmax_t kept = std::min(found, bytes);
  if (found < bytes) {
    std::ifstream file(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const std::size_t newline = text.rfind('\n');
    kept = newline == std::string::npos ? 0 : newline + 1;
  }
  fs::resize_file(path, kept, error);
  CHECK(!error, "{}: cannot be cut to {} bytes: {}", path.string(), kept, error.message());
  return found >= bytes;
}

void RunFolder::write_run(const nlohmann::ordered_json& run) const {
  // A path or the text of an error may be no UTF-8.
  constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;
  write_file_atomically(path_ / "run.json", run.dump(2, ' ', false, kReplace) + "\n");
}

}  // namespace llmfp8
