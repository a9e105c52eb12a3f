#include "train/model_snapshots.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>
#include <system_error>

#include "core/error.h"

namespace llmfp8 {

namespace fs = std::filesystem;

std::string what_is_kept(const fs::path& metrics, std::int64_t steps, const fs::path& newest) {
  const std::string lines =
      steps == 0 ? "no step was done"
                 : fmt::format("the metrics of {} step{} are in {}", steps, steps == 1 ? "" : "s", metrics.string());
  if (newest.empty()) return lines + ", no checkpoint was saved (--save_interval)";
  return fmt::format("{}, the newest checkpoint is {}", lines, newest.string());
}

std::int64_t step_of(const fs::path& folder) {
  constexpr std::string_view kPrefix = "step-";
  const std::string name = folder.filename().string();
  if (!name.starts_with(kPrefix)) return -1;
  std::int64_t step = -1;
  const char* const end = name.data() + name.size();
  const auto [stop, status] = std::from_chars(name.data() + kPrefix.size(), end, step);
  return status == std::errc() && stop == end && step >= 0 ? step : -1;
}

std::vector<fs::path> step_folders(const fs::path& checkpoints) {
  std::vector<fs::path> folders;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(checkpoints, ignored))
    if (entry.is_directory(ignored) && step_of(entry.path()) >= 0) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end(),
            [](const fs::path& a, const fs::path& b) { return step_of(a) < step_of(b); });
  return folders;
}

void ModelSnapshots::resume(std::vector<fs::path> steps, std::vector<fs::path> superseded, double best_loss) {
  steps_ = std::move(steps);
  superseded_ = std::move(superseded);
  best_loss_ = best_loss;
  if (std::isfinite(best_loss)) best_ = run_folder_ / "checkpoint_best";
}

void ModelSnapshots::remove_superseded() {
  for (const fs::path& stale : superseded_) remove_whole_folder(stale);
  superseded_.clear();
}

void ModelSnapshots::remove_earlier() {
  if (earlier_ == Earlier::keep) return;
  earlier_ = Earlier::keep;
  for (const fs::path& folder : step_folders(run_folder_ / "checkpoints")) {
    if (std::find(steps_.begin(), steps_.end(), folder) == steps_.end()) remove_whole_folder(folder);
  }
  remove_superseded();
  if (std::isinf(best_loss_)) remove_whole_folder(run_folder_ / "checkpoint_best");
  // Left alone where something else lies in it.
  std::error_code ignored;
  if (steps_.empty()) fs::remove(run_folder_ / "checkpoints", ignored);
}

void ModelSnapshots::save_step(std::int64_t step, const WriteFolder& write) {
  const fs::path folder = run_folder_ / "checkpoints" / ("step-" + std::to_string(step));
  write_whole_folder(folder, write);
  std::erase(steps_, folder);
  steps_.push_back(folder);
  remove_earlier();
  remove_superseded();
  while (keep_ > 0 && static_cast<std::int64_t>(steps_.size()) > keep_) {
    remove_whole_folder(steps_.front());
    steps_.erase(steps_.begin());
  }
}

void ModelSnapshots::offer_best(double eval_loss) {
  if (!(eval_loss < best_loss_)) return;
  write_whole_folder(run_folder_ / "checkpoint_best", write_best_);
  best_ = run_folder_ / "checkpoint_best";
  best_loss_ = eval_loss;
  remove_earlier();
}

}  // namespace llmfp8
