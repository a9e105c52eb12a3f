// The folders that a run keeps on its way: checkpoints/step-N (see checkpoint.h), and checkpoint_best by evaluation
// loss for train_multi_gpu, a model and evaluation.json, which tells that loss and its step. Which stay, which go. Called
// by the trainer and by CheckpointSaver, never by both at once.
#pragma once

#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "train/whole_folder.h"

namespace llmfp8 {

// Where a run ended without being able to save: the metrics of `steps` steps, and the newest snapshot ("": none).
std::string what_is_kept(const std::filesystem::path& metrics, std::int64_t steps, const std::filesystem::path& newest);

// The step-N folders below `checkpoints`, oldest first. step_of: N; -1 where the name is none of a checkpoint.
std::vector<std::filesystem::path> step_folders(const std::filesystem::path& checkpoints);
std::int64_t step_of(const std::filesystem::path& folder);

class ModelSnapshots {
 public:
  // What an earlier run left in the folder. replace: goes as soon as this run has saved something.
  enum class Earlier { keep, replace };

  // keep: how many step-N folders stay (0: all). write_best: puts the present model into the folder it is given.
  ModelSnapshots(const std::filesystem::path& run_folder, std::int64_t keep, Earlier earlier, WriteFolder write_best)
      : run_folder_(run_folder), keep_(keep), earlier_(earlier), write_best_(std::move(write_best)) {}

  // These are the run's checkpoints so far (oldest first); `superseded` go as soon as it has saved one (with replace:
  // anything).
  void resume(std::vector<std::filesystem::path> steps, std::vector<std::filesystem::path> superseded,
              double best_loss);

  // Older ones are removed only after `write` has written the new one and found it good.
  void save_step(std::int64_t step, const WriteFolder& write);
  // Replaces checkpoint_best where the loss is below every one before.
  void offer_best(std::int64_t step, double eval_loss);
  // The same for what another run's folder holds, whose evaluation gave that loss. False, and nothing is changed: it holds no
  // such model, or that of another evaluation.
  bool take_best(const std::filesystem::path& run_folder, double eval_loss);
  // After any save of this run, also the final one.
  void remove_earlier();
  // The last folder that this run has saved, a step's before the best one; empty where there is none.
  std::filesystem::path newest() const { return steps_.empty() ? best_ : steps_.back(); }
  double best_loss() const { return best_loss_; }  // infinity: there is none

 private:
  void remove_superseded();

  std::filesystem::path run_folder_;
  std::int64_t keep_;
  Earlier earlier_;
  WriteFolder write_best_;
  std::vector<std::filesystem::path> steps_;       // oldest first
  std::vector<std::filesystem::path> superseded_;  // beyond the step that the run was resumed from, or damaged
  std::filesystem::path best_;
  double best_loss_ = std::numeric_limits<double>::infinity();
};

}  // namespace llmfp8
