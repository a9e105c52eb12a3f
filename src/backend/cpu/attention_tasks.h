// What forward and backward attention share: documents cut into tasks, the softmax of a block of query rows, packing.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <vector>

#include "backend/cpu/mini_gemm.h"
#include "backend/cpu/simd.h"
#include "backend/op_args.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {

inline constexpr std::int64_t kQueryRows = 32;  // queries whose scores are held at once

// Queries [first_query, last_query) of a document, one kv head and its query heads.
struct AttentionTask {
  std::int64_t begin = 0, length = 0;  // the document's tokens
  std::int64_t kv_head = 0;
  std::int64_t first_query = 0, last_query = 0;  // inside the document
};

// chunk: queries of one task at most. Costly tasks come first, so that threads finish together.
inline std::vector<AttentionTask> attention_tasks(const AttentionShape& shape, const Tensor& cu_seqlens,
                                                  std::int64_t live, std::int64_t max_length, std::int64_t chunk) {
  std::vector<AttentionTask> tasks;
  const std::int32_t* bounds = cu_seqlens.as<std::int32_t>();
  for (std::int64_t doc = 0; doc + 1 < cu_seqlens.numel(); ++doc) {
    const std::int64_t begin = std::clamp<std::int64_t>(bounds[doc], 0, live);
    const std::int64_t length = std::clamp<std::int64_t>(bounds[doc + 1], begin, live) - begin;
    CHECK(length <= max_length, "attention: document {} has {} tokens, at most {} were announced", doc, length,
          max_length);
    for (std::int64_t first = 0; first < length; first += chunk) {
      for (std::int64_t head = 0; head < shape.num_kv_heads; ++head) {
        tasks.push_back({begin, length, head, first, std::min(length, first + chunk)});
      }
    }
  }
  const auto cost = [](const AttentionTask& t) {
    return (t.last_query - t.first_query) * (t.last_query + t.first_query);
  };
  std::stable_sort(tasks.begin(), tasks.end(),
                   [&](const AttentionTask& a, const AttentionTask& b) { return cost(a) > cost(b); });
  return tasks;
}

// Calls body(task, worker) for each task; a task's result does not depend on which worker takes it.
template <typename Body>
void run_tasks(const std::vector<AttentionTask>& tasks, int workers, const Body& body) {
  std::atomic<std::size_t> next{0};
  parallel_for(std::min<std::int64_t>(workers, static_cast<std::int64_t>(tasks.size())), 1,
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t worker = begin; worker < end; ++worker) {
                   for (std::size_t i = next++; i < tasks.size(); i = next++) body(tasks[i], worker);
                 }
               });
}

inline std::int64_t longest_document(const AttentionShape& shape, std::int64_t tokens) {
  return shape.max_doc_tokens > 0 ? std::min(shape.max_doc_tokens, tokens) : tokens;
}

// Pieces of a worker's scratch, each on a cache line.
class ScratchCutter {
 public:
  explicit ScratchCutter(float* base) : base_(base) {}
  float* take(std::int64_t floats) {
    float* piece = base_ + used_;
    used_ += (floats + 15) / 16 * 16;
    return piece;
  }
  std::int64_t used() const { return used_; }

 private:
  float* base_;
  std::int64_t used_ = 0;
};

// rows x head_dim of A at `from` → f32 [rows, padded], padding zero.
template <typename A>
LLMFP8_INLINE void pack_rows(const A* from, std::int64_t stride, std::int64_t rows, std::int64_t head_dim, float* to) {
  const std::int64_t padded = pad_columns(head_dim);
  for (std::int64_t r = 0; r < rows; ++r) {
    load(from + r * stride, to + r * padded, head_dim);
    for (std::int64_t i = head_dim; i < padded; ++i) to[r * padded + i] = 0.0f;
  }
}

// rows x head_dim of A at `from` → f32 [head_dim, ld], columns at and beyond `rows` zero.
template <typename A>
LLMFP8_INLINE void pack_transposed(const A* from, std::int64_t stride, std::int64_t rows, std::int64_t head_dim,
                                   float* to, std::int64_t ld) {
  for (std::int64_t r = 0; r < ld; r += 16) {
    const std::int64_t live = std::clamp<std::int64_t>(rows - r, 0, 16);
    for (std::int64_t i = 0; i < head_dim; ++i) {
      float* column = to + i * ld + r;
      for (std::int64_t k = 0; k < live; ++k) column[k] = as_float(from[(r + k) * stride + i]);
      for (std::int64_t k = live; k < 16; ++k) column[k] = 0.0f;
    }
  }
}

}  // namespace llmfp8::cpu
