// OpObserver: hears of every operation that an Ops enqueues, before and after. For clocks, traces (train/op_clock.h) and
// the search for a value that is not finite (train/non_finite.h); without one, an operation costs a test of a pointer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "backend/op_args.h"

namespace llmfp8 {

// The place in the model that an operation works for, as its author said it (Ops::set_scope). Two words: nobody may listen.
struct OpScope {
  const char* module = "";  // a literal: "mlp.down_proj" of a layer, "model.norm" of none
  int layer = -1;           // -1: not of a layer

  // "model.layers.3.mlp.down_proj"; empty where nothing was said.
  std::string name() const { return layer < 0 ? module : fmt::format("model.layers.{}.{}", layer, module); }
};

struct OpInfo {
  std::string_view name;  // that of the method of Ops; a literal
  std::int64_t rows = 0;  // of what is written (of what is read, where nothing of that shape is written)
  std::int64_t cols = 0;
  // Products alone:
  std::int64_t contraction = 0;  // length of the sum; 0: no product
  GemmPass pass = GemmPass::fprop;
  bool fp8 = false;  // both operands are FP8
  OpScope scope = {};
};

// What an operation has written: a tensor, or a quantised matrix. What it points to lives as long as the call.
struct OpOutput {
  const Tensor* tensor = nullptr;
  const QTensor* matrix = nullptr;
  const Tensor* count = nullptr;  // i32 [1]: rows at and beyond *count - row_offset hold nothing; null: all rows count
  std::int64_t row_offset = 0;
};

class OpObserver {
 public:
  virtual ~OpObserver() = default;
  virtual void begin(const OpInfo& info) = 0;
  virtual void end() = 0;  // of the operation begun last, unless it threw; operations do not nest
  // After end, each of its outputs that holds floating-point numbers.
  virtual void written(const OpOutput&) {}
};

}  // namespace llmfp8
