// CheckpointSaver: takes a checkpoint of the engine while training goes on. The device's state is copied to the host,
// which training waits for; a thread writes the files from the copies. Called by the trainer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "train/checkpoint.h"
#include "train/host_copy.h"
#include "train/model_snapshots.h"

namespace llmfp8 {

class CheckpointSaver {
 public:
  // All outlive the saver. host_bytes: how much host memory may be taken for copies at the moment.
  CheckpointSaver(Engine& engine, const ExportSpec& model, ModelSnapshots& snapshots,
                  std::function<std::size_t()> host_bytes);
  ~CheckpointSaver();  // wait()
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  // The engine's state as it is now, with `state` for state.json; no step is in flight. Waits for the save before it,
  // then for the copies alone; where the host's memory does not hold them, for the whole save, and says so. A save that
  // fails (disk full) is a warning: the run goes on, and the checkpoints before it stay. Throws DeviceFailed.
  void save(std::int64_t step, nlohmann::ordered_json state);

  // For the save under way. Between this and the next save() the ModelSnapshots may be used.
  void wait();

  // Steps whose save failed, so far; after wait().
  const std::vector<std::int64_t>& failed() const { return failed_; }
  // Whether some save could not run beside training.
  bool waited_for_files() const { return waited_for_files_; }

 private:
  // Null where the host's memory does not hold the copies.
  std::shared_ptr<HostCopy> copy_if_it_fits(const std::vector<Tensor>& tensors);
  // Returns after a warning where the save fails. waited_seconds: below 0 where training waits for all of it.
  void write_or_warn(std::int64_t step, const CheckpointContent& content, HostBytes& values, double waited_seconds);

  Engine& engine_;
  const ExportSpec& model_;
  ModelSnapshots& snapshots_;
  std::function<std::size_t()> host_bytes_;
  std::thread thread_;
  std::vector<std::int64_t> failed_;
  bool waited_for_files_ = false;
};

}  // namespace llmfp8
