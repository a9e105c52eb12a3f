// A batch of `llm-fp8 parity` and of the golden tests: [B, S] rows with right padding, or documents already packed, read
// from a safetensors file and laid end to end as the engine takes them.
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "core/model_config.h"
#include "train/device_batch.h"

namespace llmfp8 {

struct ParityBatch {
  HostBatch host;
  std::int64_t rows = 0, columns = 0;  // B and S of the file; 1 and T where it is packed
  std::vector<std::int64_t> places;    // [num_tokens]: where token t of `host` stands among the B * S of the file
};

// The file holds input_ids, labels and attention_mask, i64 [B, S]: every row is one document without its padding, and the
// label of position t is labels[t + 1] of its row (-100: not learnt). Or, with cu_seqlens i32 [docs + 1]: input_ids, labels
// and optionally position_ids, i64 [T]. Throws Error: missing tensor, wrong dtype or shape, ids beyond the vocabulary,
// padding that is not on the right, an empty row.
ParityBatch read_parity_batch(const std::filesystem::path& file, const ModelConfig& config);

// Counts and capacity of a batch whose documents are all there; arrays as long as the capacity, the next multiple of 128.
void close_batch(HostBatch& batch);

// One of several batches' documents, as a batch of its own.
ParityBatch single_document(const ParityBatch& batch, std::int64_t document);

// The capacities, document slots and lengths that hold all of them; the batches get as many slots.
BatchLimits align_batches(std::span<ParityBatch> batches);

}  // namespace llmfp8
