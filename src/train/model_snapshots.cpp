#include "train/model_snapshots.h"

#include <string>
#include <system_error>

namespace llmfp8 {

namespace fs = std::filesystem;

void ModelSnapshots::write_whole(const fs::path& folder) {
  const fs::path temporary = folder.parent_path() / ("." + folder.filename().string() + ".incomplete");
  std::error_code ignored;
  fs::remove_all(temporary, ignored);
  fs::create_directories(temporary);
  try {
    write_(temporary);
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
  fs::remove_all(folder, ignored);
  fs::rename(temporary, folder);
}

void ModelSnapshots::save_step(std::int64_t step) {
  const fs::path folder = run_folder_ / "checkpoints" / ("step-" + std::to_string(step));
  write_whole(folder);
  steps_.push_back(folder);
  while (keep_ > 0 && static_cast<std::int64_t>(steps_.size()) > keep_) {
    std::error_code ignored;
    fs::remove_all(steps_.front(), ignored);
    steps_.erase(steps_.begin());
  }
}

void ModelSnapshots::offer_best(double eval_loss) {
  if (!(eval_loss < best_loss_)) return;
  write_whole(run_folder_ / "checkpoint_best");
  best_loss_ = eval_loss;
}

}  // namespace llmfp8
