#include "train/model_snapshots.h"

#include <algorithm>
#include <cmath>
#include <regex>
#include <string>
#include <system_error>

#include "core/error.h"

namespace llmfp8 {

namespace fs = std::filesystem;

void ModelSnapshots::write_whole(const fs::path& folder) {
  const fs::path temporary = folder.parent_path() / fmt::format(".{}.incomplete", folder.filename().string());
  std::error_code ignored;
  fs::remove_all(temporary, ignored);
  fs::create_directories(temporary);
  try {
    write_(temporary);
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
  const fs::path old = folder.parent_path() / fmt::format(".{}.old", folder.filename().string());
  if (fs::exists(folder, ignored)) {
    fs::remove_all(old, ignored);
    fs::rename(folder, old);
  }
  std::error_code error;
  fs::rename(temporary, folder, error);
  if (error) {
    fs::rename(old, folder, ignored);
    fs::remove_all(temporary, ignored);
    fail("{}: cannot be replaced: {}", folder.string(), error.message());
  }
  fs::remove_all(old, ignored);
}

std::string what_is_kept(const fs::path& metrics, std::int64_t steps, const fs::path& newest) {
  const std::string lines = steps == 0 ? "no step was done"
                                       : fmt::format("the metrics of {} step{} are in {}", steps, steps == 1 ? "" : "s", metrics.string());
  if (newest.empty()) return lines + ", no checkpoint was saved (--save_interval)";
  return fmt::format("{}, the newest checkpoint is {}", lines, newest.string());
}

void ModelSnapshots::remove_earlier() {
  if (earlier_ == Earlier::keep) return;
  earlier_ = Earlier::keep;
  static const std::regex kStep(R"(step-\d+)");
  std::vector<fs::path> stale;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(run_folder_ / "checkpoints", ignored)) {
    const bool is_ours = std::find(steps_.begin(), steps_.end(), entry.path()) != steps_.end();
    if (!is_ours && std::regex_match(entry.path().filename().string(), kStep)) stale.push_back(entry.path());
  }
  if (std::isinf(best_loss_)) stale.push_back(run_folder_ / "checkpoint_best");
  for (const fs::path& folder : stale) fs::remove_all(folder, ignored);
  // Left alone where something else lies in it.
  if (steps_.empty()) fs::remove(run_folder_ / "checkpoints", ignored);
}

void ModelSnapshots::save_step(std::int64_t step) {
  const fs::path folder = run_folder_ / "checkpoints" / ("step-" + std::to_string(step));
  write_whole(folder);
  steps_.push_back(folder);
  remove_earlier();
  while (keep_ > 0 && static_cast<std::int64_t>(steps_.size()) > keep_) {
    std::error_code ignored;
    fs::remove_all(steps_.front(), ignored);
    steps_.erase(steps_.begin());
  }
}

void ModelSnapshots::offer_best(double eval_loss) {
  if (!(eval_loss < best_loss_)) return;
  write_whole(run_folder_ / "checkpoint_best");
  best_ = run_folder_ / "checkpoint_best";
  best_loss_ = eval_loss;
  remove_earlier();
}

}  // namespace llmfp8
