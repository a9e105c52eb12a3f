// CheckpointSaver: takes checkpoints of the engine, and keeps the promise of how many steps a kill can cost. Where training
// may go on meanwhile, the device's state is copied to the host and a thread writes the files from the copies; where the
// next step would break the promise, training waits for the files. Called by the trainer.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "train/checkpoint.h"
#include "train/host_copy.h"
#include "train/model_snapshots.h"

namespace llmfp8 {

struct SaverOptions {
  std::function<std::size_t()> host_bytes;  // how much host memory may be taken for copies at the moment
  std::int64_t first_step = 0;              // the run goes on behind it: it and those before it cannot be lost
  // How many steps may be done beyond the newest whole checkpoint; what a kill can cost.
  std::int64_t most_lost = std::numeric_limits<std::int64_t>::max();
};

class CheckpointSaver {
 public:
  // All outlive the saver.
  CheckpointSaver(Engine& engine, const ExportSpec& model, ModelSnapshots& snapshots, SaverOptions options);
  ~CheckpointSaver();  // wait()
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  // The engine's state as it is now, with `state` for state.json; no step is in flight. Waits for the save before it,
  // then for the copies alone; where the next step would break the promise, or the host's memory does not hold the copies
  // (which is said), for the whole save. A save that fails (disk full) is a warning: the run goes on, and the checkpoints
  // before it stay. Throws DeviceFailed.
  void save(std::int64_t step, nlohmann::ordered_json state);

  // Whether wait() is due before `step` begins: a save is under way, and a kill in that step would cost too much.
  bool must_wait(std::int64_t step) const { return thread_.joinable() && breaks_promise(step); }

  // Whether no save is under way; wait() then returns at once.
  bool is_idle() const { return !is_writing_; }
  // For the save under way. Between this and the next save() the ModelSnapshots may be used.
  void wait();

  // Steps whose save failed, so far; after wait().
  const std::vector<std::int64_t>& failed() const { return failed_; }
  // Whether some save could not run beside training.
  bool waited_for_files() const { return waited_for_files_; }

 private:
  bool breaks_promise(std::int64_t step) const { return step - newest_ > options_.most_lost; }
  // Null where the host's memory does not hold the copies.
  std::shared_ptr<HostCopy> copy_if_it_fits(const std::vector<Tensor>& tensors);
  // Returns after a warning where the save fails. waited_seconds: below 0 where training waits for all of it.
  void write_or_warn(std::int64_t step, const CheckpointContent& content, HostBytes& values, double waited_seconds);
  void say_cost_once(double waited_seconds);

  Engine& engine_;
  const ExportSpec& model_;
  ModelSnapshots& snapshots_;
  SaverOptions options_;
  std::thread thread_;
  std::atomic<bool> is_writing_ = false;
  std::atomic<std::int64_t> newest_;  // step of the newest whole checkpoint, or the run's first
  double last_save_ = 0;              // when it ended; seconds, steady clock; 0: there was none
  bool has_said_cost_ = false;
  bool has_said_memory_ = false;
  std::vector<std::int64_t> failed_;
  bool waited_for_files_ = false;
};

}  // namespace llmfp8
