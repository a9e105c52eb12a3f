#include "train/resume.h"

#include <algorithm>
#include <system_error>

#include "core/log.h"
#include "train/model_snapshots.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSuperseded = ".superseded";

bool is_same_folder(const fs::path& a, const fs::path& b) {
  std::error_code ignored;
  return fs::weakly_canonical(fs::absolute(a), ignored) == fs::weakly_canonical(fs::absolute(b), ignored);
}

fs::path absolute_folder(const fs::path& folder) {
  std::error_code ignored;
  const fs::path path = fs::weakly_canonical(fs::absolute(folder), ignored);
  return path.filename().empty() ? path.parent_path() : path;
}

// Null: there is none.
std::unique_ptr<ResumePoint> newest_of(const fs::path& run_folder) {
  std::vector<fs::path> folders = step_folders(run_folder / "checkpoints");
  auto point = std::make_unique<ResumePoint>();
  while (!folders.empty()) {
    try {
      point->checkpoint = Checkpoint::open(folders.back());
      point->kept = folders;
      return point;
    } catch (const Error& error) {
      log::warning("{}: this checkpoint is damaged and is left out ({})", folders.back().string(), error.what());
      point->superseded.push_back(folders.back());
      folders.pop_back();
    }
  }
  return nullptr;
}

std::unique_ptr<ResumePoint> exactly(const fs::path& folder) {
  auto point = std::make_unique<ResumePoint>();
  point->checkpoint = Checkpoint::open(folder);
  for (const fs::path& other : step_folders(folder.parent_path())) {
    const bool is_later = step_of(other) > point->checkpoint.step();
    (is_later ? point->superseded : point->kept).push_back(other);
  }
  return point;
}

}  // namespace

std::vector<fs::path> set_aside(const fs::path& checkpoints, const std::vector<fs::path>& folders) {
  for (const fs::path& folder : folders) {
    const fs::path other = folder.string() + kSuperseded;
    std::error_code ignored, error;
    fs::remove_all(other, ignored);
    fs::rename(folder, other, error);
    CHECK(!error, "{}: cannot be renamed: {}", folder.string(), error.message());
  }
  std::vector<fs::path> aside;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(checkpoints, ignored))
    if (entry.path().extension() == kSuperseded) aside.push_back(entry.path());
  return aside;
}

std::unique_ptr<ResumePoint> choose_resume_point(const std::string& resume, const fs::path& output_dir) {
  if (resume.empty()) return nullptr;
  if (resume == "auto") {
    clear_remains(output_dir / "checkpoints");
    if (step_folders(output_dir / "checkpoints").empty()) {
      log::info("--resume auto: no checkpoint in {}, starting from the beginning", output_dir.string());
      return nullptr;
    }
  }
  const fs::path folder = absolute_folder(resume == "auto" ? output_dir : fs::path(resume));
  std::error_code ignored;
  CHECK(fs::is_directory(folder, ignored), "--resume {}: no such folder", resume);
  const bool is_run = fs::is_directory(folder / "checkpoints", ignored);
  CHECK(is_run || fs::is_directory(folder / "state", ignored),
        "--resume {}: neither a checkpoint (a folder with state/) nor a run's folder (with checkpoints/)", resume);
  std::unique_ptr<ResumePoint> point;
  if (is_run) {
    point = newest_of(folder);
    CHECK(point != nullptr, "--resume {}: no undamaged checkpoint in {}", resume, (folder / "checkpoints").string());
  } else {
    point = exactly(folder);
  }
  const fs::path run_folder = is_run ? folder : folder.parent_path().parent_path();
  point->is_own = is_same_folder(run_folder, output_dir);
  return point;
}

}  // namespace llmfp8
