// The device's copy of a micro-batch: allocated once for the largest capacity, filled for each batch.
#pragma once

#include <string>
#include <vector>

#include "backend/backend.h"
#include "core/batch.h"
#include "data/batch_loader.h"
#include "train/host_ring.h"

namespace llmfp8 {

// What batches may look like; it fixes the memory plan.
struct BatchLimits {
  std::vector<std::int64_t> capacities;  // ascending, multiples of 128
  std::int64_t max_docs = 0;
  std::int32_t max_doc_tokens = 0;
  std::int32_t equal_doc_tokens = 0;     // all documents are this long; 0: they are not

  bool empty() const { return capacities.empty(); }
  // Whether a batch of this capacity can be full to the last position.
  bool can_be_full(std::int64_t capacity) const { return equal_doc_tokens > 0 && capacity % equal_doc_tokens == 0; }
  static BatchLimits of(const BatchLoader& loader) {
    return {loader.capacities(), loader.max_docs(), loader.max_doc_tokens(), loader.equal_doc_tokens()};
  }
};

class DeviceBatch {
 public:
  DeviceBatch(const BatchLimits& limits, Backend& backend);

  // A view of the first `capacity` positions; the contents are those of the last upload.
  Batch view(std::int64_t capacity) const;
  // Every kind of batch that has a plan of its own: each capacity, and the same with full equal rows where they can be.
  std::vector<Batch> kinds() const;
  // Copies the arrays and returns the view of batch.capacity; does not wait for the device, and batch may go at once.
  // Throws where the batch is outside the limits.
  Batch upload(const HostBatch& batch, Stream& stream);

  std::size_t bytes() const { return buffer_.bytes(); }

 private:
  BatchLimits limits_;
  Backend& backend_;
  Buffer buffer_;
  HostRing staging_;  // blocks laid out as buffer_
  Batch whole_;
};

// "evaluation of 256 tokens in equal rows": the name of a phase of the arena.
std::string phase_of_batch(const char* what, const Batch& batch);

}  // namespace llmfp8
