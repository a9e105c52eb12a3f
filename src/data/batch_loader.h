// From tokenised rows to micro-batches, by random access: (epoch, step, micro-batch) names a batch, so that resuming is
// a matter of two integers. Called by the trainer.
//
// A step is batch_size rows x accumulation x world_size; micro-batch m of an epoch holds the rows [m, m+1) * batch_size *
// world_size of the epoch's order, of which rank r takes the r-th, the (r + world_size)-th, …
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/batch.h"
#include "data/token_store.h"

namespace llmfp8 {

enum class RowOrder { shuffled, as_stored };
enum class LastBatch { keep, drop };  // what becomes of an epoch's last micro-batch when rows are missing to fill it
// fill: micro-batches of batch_size * max_seq_length tokens instead of batch_size rows.
enum class Packing { off, fill };
enum class Tail { zero, garbage };    // garbage: for tests of the promise that the tail changes no result

struct BatchLoaderOptions {
  std::int64_t batch_size = 8;      // rows of one micro-batch of one rank
  std::int64_t max_seq_length = 256;
  std::int64_t accumulation = 1;    // micro-batches of a step
  std::int64_t rank = 0;
  std::int64_t world_size = 1;
  std::uint64_t seed = 42;
  RowOrder order = RowOrder::shuffled;
  LastBatch last_batch = LastBatch::keep;
  Packing packing = Packing::off;
  Tail tail = Tail::zero;
};

// The arrays of core/batch.h's Batch, on the host. Rows lie end to end.
struct HostBatch {
  std::vector<std::int32_t> tokens;           // [capacity]
  std::vector<std::int32_t> labels;           // [capacity], already shifted, kIgnoreLabel where not supervised
  std::vector<std::int32_t> positions;        // [capacity]
  std::vector<std::int32_t> cu_seqlens;       // [max_docs + 1], unused slots repeat num_tokens
  std::vector<std::int32_t> supervised_rows;  // [capacity], the first num_supervised count
  BatchCounts counts;
  std::int32_t max_doc_tokens = 0;            // the same for every batch of a loader
  std::int64_t capacity = 0;                  // one of BatchLoader::capacities()
  std::vector<std::int64_t> rows;             // rows of the store, in the order of the documents

  // Of a token and one of its document that it looks at: itself and those before it.
  std::int64_t causal_pairs() const {
    std::int64_t pairs = 0;
    for (std::size_t d = 0; d + 1 < cu_seqlens.size(); ++d) {
      const std::int64_t length = cu_seqlens[d + 1] - cu_seqlens[d];
      pairs += length * (length + 1) / 2;
    }
    return pairs;
  }
};

// Where a run stands: the next step to do.
struct Cursor {
  std::int64_t epoch = 0;
  std::int64_t step = 0;  // within the epoch
};

class BatchLoader {
 public:
  // store outlives the loader. Throws Error: no rows, batch_size, accumulation or max_seq_length below 1, a row longer
  // than max_seq_length, or too few rows for one step when the last batch is dropped.
  BatchLoader(const TokenStore& store, const BatchLoaderOptions& options);
  BatchLoader(BatchLoader&&) noexcept;
  ~BatchLoader();

  const BatchLoaderOptions& options() const;

  // Equal on all ranks. With packing they differ a little from epoch to epoch.
  std::int64_t steps_per_epoch(std::int64_t epoch = 0) const;
  // At most `limit` (0: no limit). Packing has to go through an epoch to count it; none beyond the limit is.
  std::int64_t total_steps(std::int64_t epochs, std::int64_t limit = 0) const;
  // Steps that the same rows take without packing.
  std::int64_t unpacked_steps_per_epoch() const;
  // Micro-batches of this step: accumulation, or fewer in the last step of an epoch.
  std::int64_t micro_batches(std::int64_t epoch, std::int64_t step) const;
  // The step after `at`.
  Cursor next(Cursor at) const;

  // This rank's micro-batch; deterministic, thread-safe. Waits for rows that are still to be encoded; one of no use leaves its
  // place empty. When an epoch's end, or rows of no use, leave no row for this rank, the batch is the first row of the
  // micro-batch without labels (it adds nothing to loss or gradient, and its values are among those that another rank sees
  // anyway, so that no amax changes) and `rows` is empty. Where the micro-batch has none either, it is the first known row.
  HostBatch load(std::int64_t epoch, std::int64_t step, std::int64_t micro) const;

  // Supervised tokens of the whole step, over its micro-batches and all ranks: the loss's denominator.
  std::int64_t supervised_in_step(std::int64_t epoch, std::int64_t step) const;

  // Ascending, at most 8, multiples of 128; the last one holds any micro-batch of any epoch. Equal on all ranks. Chosen by the
  // rows of epoch 0, of a large data set by the known rows.
  const std::vector<std::int64_t>& capacities() const;
  std::int64_t max_docs() const;
  std::int32_t max_doc_tokens() const;
  // The length of every row where all are equally long; 0 where they are not, or not known to be.
  std::int32_t equal_doc_tokens() const;
  // Share of the positions of those batches that are beyond num_tokens.
  double padding_share() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmfp8
