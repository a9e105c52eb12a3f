// The models that a run keeps on its way: checkpoints/step-N every --save_interval steps, and checkpoint_best by evaluation
// loss for train_multi_gpu. Each is a whole HF folder; the optimizer's state is not in it yet.
#pragma once

#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace llmfp8 {

// Where a run ended without being able to save: the metrics of `steps` steps, and the newest snapshot ("": none).
std::string what_is_kept(const std::filesystem::path& metrics, std::int64_t steps, const std::filesystem::path& newest);

class ModelSnapshots {
 public:
  // write: puts the present model into the folder it is given (see params/export.h).
  using Write = std::function<void(const std::filesystem::path& folder)>;

  // What an earlier run left in the folder. replace: goes as soon as this run has saved something.
  enum class Earlier { keep, replace };

  // keep: how many step-N folders stay (0: all).
  ModelSnapshots(const std::filesystem::path& run_folder, std::int64_t keep, Earlier earlier, Write write)
      : run_folder_(run_folder), keep_(keep), earlier_(earlier), write_(std::move(write)) {}

  // Older ones are removed only after the new one has been written and read back.
  void save_step(std::int64_t step);
  // Replaces checkpoint_best where the loss is below every one before.
  void offer_best(double eval_loss);
  // After any save of this run, also the final one.
  void remove_earlier();
  // The last folder that this run has saved, a step's before the best one; empty where there is none.
  std::filesystem::path newest() const { return steps_.empty() ? best_ : steps_.back(); }

 private:
  // Written under a temporary name, then renamed: a folder with the final name is whole, and the one that it replaces is
  // removed last.
  void write_whole(const std::filesystem::path& folder);

  std::filesystem::path run_folder_;
  std::int64_t keep_;
  Earlier earlier_;
  Write write_;
  std::vector<std::filesystem::path> steps_;  // oldest first
  std::filesystem::path best_;
  double best_loss_ = std::numeric_limits<double>::infinity();
};

}  // namespace llmfp8
