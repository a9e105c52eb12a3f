// The micro-batches of an epoch's steps, in order, each step loaded on a thread of its own while the one before runs.
// Called by the trainer.
#pragma once

#include <future>
#include <vector>

#include "data/batch_loader.h"

namespace llmfp8 {

class StepPrefetcher {
 public:
  // Steps [first, end) of the epoch. loader outlives the prefetcher.
  StepPrefetcher(const BatchLoader& loader, std::int64_t epoch, std::int64_t first, std::int64_t end)
      : loader_(loader), epoch_(epoch), next_(first), end_(end) {
    begin_next();
  }

  // The next step's micro-batches. Throws what loading them threw.
  std::vector<HostBatch> next() {
    CHECK(ahead_.valid(), "the epoch has no step {}", end_);
    std::vector<HostBatch> batches = ahead_.get();
    begin_next();
    return batches;
  }

 private:
  void begin_next() {
    if (next_ >= end_) return;
    ahead_ = std::async(std::launch::async, [this, step = next_++] {
      std::vector<HostBatch> batches;
      const std::int64_t n = loader_.micro_batches(epoch_, step);
      for (std::int64_t m = 0; m < n; ++m) batches.push_back(loader_.load(epoch_, step, m));
      return batches;
    });
  }

  const BatchLoader& loader_;
  const std::int64_t epoch_;
  std::int64_t next_;
  const std::int64_t end_;
  std::future<std::vector<HostBatch>> ahead_;  // its destructor waits: the thread never outlives the loader
};

}  // namespace llmfp8
