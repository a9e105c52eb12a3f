// Where a step stopped being finite: --debug_mode runs its micro-batches again and looks at what every operation has
// written. Called by the trainer after a step that was not ok, which has changed nothing.
#pragma once

#include <span>
#include <string>

#include "train/engine.h"

namespace llmfp8 {

// The values of a matrix that are NaN or infinite.
struct NonFinite {
  std::int64_t count = 0;            // 0: none
  std::int64_t values = 0;           // looked at
  std::int64_t row = 0, column = 0;  // of the first one
  bool is_nan = false;               // it; else infinite

  // "first NaN at [17, 903], 12 of 8388608 values"
  std::string text() const;
};

// t: f32 | bf16 | e4m3 | e5m2 on the device; other types hold no such value. rows: those that count.
NonFinite find_non_finite(Backend& backend, Stream& stream, const Tensor& t, std::int64_t rows);

// The first operation to write such a value in the order in which they ran; the rest is not looked at.
class NonFiniteSearch : public OpObserver {
 public:
  // Both outlive the search. stream: the one whose operations are observed. Waits for it after each of them.
  NonFiniteSearch(Backend& backend, Stream& stream) : backend_(backend), stream_(stream) {}

  void begin(const OpInfo& info) override { info_ = info; }
  void end() override {}
  void written(const OpOutput& output) override;

  // "model.layers.3.mlp.down_proj, gemm fprop [4096 x 2048] bf16: first NaN at [17, 903], …"; empty: nothing yet.
  const std::string& found() const { return found_; }

 private:
  std::int64_t live_rows(const OpOutput& output, std::int64_t rows);
  void report(const Tensor& t, NonFinite values, bool transposed);

  Backend& backend_;
  Stream& stream_;
  OpInfo info_;
  std::string found_;
};

// Weights first, then every operation, then the gradients that all ranks have summed. No step is in flight; the engine's
// state, its ledger included, stays as it is. Says so where it finds nothing.
std::string explain_not_finite(Engine& engine, std::span<const HostBatch> micro_batches);

}  // namespace llmfp8
