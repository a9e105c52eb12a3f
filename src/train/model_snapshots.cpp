#include "train/model_snapshots.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>
#include <system_error>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "hub/file_io.h"

namespace llmfp8 {

namespace fs = std::filesystem;

namespace {

constexpr const char* kBest = "checkpoint_best";
constexpr const char* kEvaluation = "evaluation.json";

// NaN where the folder does not tell.
double best_loss_of(const fs::path& folder) {
  try {
    return parse_json_object(read_text_file(folder / kEvaluation), kEvaluation).at("eval_loss").get<double>();
  } catch (const std::exception&) {
    return std::numeric_limits<double>::quiet_NaN();
  }
}

// Neither run ever writes into a file that lies there, so that both may have the same one.
void link_or_copy(const fs::path& from, const fs::path& to) {
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    std::error_code error;
    fs::create_hard_link(entry.path(), to / entry.path().filename(), error);
    if (error) fs::copy_file(entry.path(), to / entry.path().filename(), error);
    CHECK(!error, "{}: cannot be copied to {}: {}", entry.path().string(), to.string(), error.message());
  }
}

}  // namespace

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
  if (std::isfinite(best_loss)) best_ = run_folder_ / kBest;
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
  if (std::isinf(best_loss_)) remove_whole_folder(run_folder_ / kBest);
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

void ModelSnapshots::offer_best(std::int64_t step, double eval_loss) {
  if (!(eval_loss < best_loss_)) return;
  write_whole_folder(run_folder_ / kBest, [&](const fs::path& folder) {
    write_best_(folder);
    write_file_atomically(folder / kEvaluation, nlohmann::ordered_json{{"step", step}, {"eval_loss", eval_loss}}.dump(1) + "\n");
  });
  best_ = run_folder_ / kBest;
  best_loss_ = eval_loss;
  remove_earlier();
}

bool ModelSnapshots::take_best(const fs::path& run_folder, double eval_loss) {
  if (best_loss_of(run_folder / kBest) != eval_loss) return false;
  write_whole_folder(run_folder_ / kBest, [&](const fs::path& folder) { link_or_copy(run_folder / kBest, folder); });
  best_ = run_folder_ / kBest;
  best_loss_ = eval_loss;
  return true;
}

}  // namespace llmfp8
