// OpObserver: hears of every operation that an Ops enqueues, before and after. For clocks and traces (train/op_clock.h);
// without one, an operation costs a test of a pointer.
#pragma once

#include <cstdint>
#include <string_view>

#include "backend/op_args.h"

namespace llmfp8 {

struct OpInfo {
  std::string_view name;        // that of the method of Ops; a literal
  std::int64_t rows = 0;        // of what is written (of what is read, where nothing of that shape is written)
  std::int64_t cols = 0;
  // Products alone:
  std::int64_t contraction = 0; // length of the sum; 0: no product
  GemmPass pass = GemmPass::fprop;
  bool fp8 = false;             // both operands are FP8
};

class OpObserver {
 public:
  virtual ~OpObserver() = default;
  virtual void begin(const OpInfo& info) = 0;
  virtual void end() = 0;       // of the operation begun last; operations do not nest
};

}  // namespace llmfp8
