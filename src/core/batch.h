// One micro-batch: documents laid end to end, never padded between. Written by data/batch_loader, read by the model.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace llmfp8 {

// Counts that differ from batch to batch; on the device beside the batch, so that no kernel argument changes.
struct BatchCounts {
  std::int32_t num_tokens = 0;
  std::int32_t num_docs = 0;
  std::int32_t num_supervised = 0;
  std::int32_t reserved = 0;
};

inline constexpr std::int32_t kIgnoreLabel = -100;

// A view; T_cap is a multiple of 128. Contents at and beyond num_tokens are undefined and change no result.
struct Batch {
  Tensor tokens;           // i32 [T_cap]
  // i32 [T_cap]: the token that position t has to predict (shifted once, at tokenisation), or kIgnoreLabel.
  Tensor labels;
  Tensor positions;        // i32 [T_cap]: from 0 in every document
  Tensor cu_seqlens;       // i32 [max_docs + 1]; unused slots repeat num_tokens
  // i32 [T_cap]: the positions with a label, ascending; entries at and beyond num_supervised are undefined.
  Tensor supervised_rows;
  Tensor counts;           // i32 [4]: BatchCounts
  BatchCounts host_counts; // what the host knows of it (the loader made it); never read inside Ops
  std::int32_t max_doc_tokens = 0;  // upper bound on the length of a document; part of a plan's key
  // Every document has exactly this many tokens, and together they fill the capacity; 0: not known. Part of a plan's key.
  std::int32_t equal_doc_tokens = 0;

  std::int64_t capacity() const { return tokens.numel(); }
  std::int64_t max_docs() const { return cu_seqlens.numel() - 1; }
  Tensor num_tokens() const { return count(0); }      // i32 [1]
  Tensor num_docs() const { return count(1); }        // i32 [1]
  Tensor num_supervised() const { return count(2); }  // i32 [1]

 private:
  Tensor count(std::int64_t i) const { return counts.reshape(Shape{4, 1}).slice_rows(i, 1).reshape(Shape{1}); }
};

}  // namespace llmfp8
