// One fused matrix product of the model: forward, and both gradients. The only place where gradients are quantised.
#pragma once

#include "model/pass_context.h"

namespace llmfp8 {

// How many of the T rows exist, for operations and for counting work.
struct RowCount {
  Tensor count;                  // i32 [1], device
  std::int64_t row_offset = 0;   // of this chunk's first row
  std::int64_t host_rows = 0;    // rows below the count, as the host knows it
};

struct LinearForward {
  Site site;
  QTensor input;    // [T, K]
  QTensor weight;   // [N, K]
  Tensor bias;      // A [N] or undefined
  Tensor addend;    // A [T, N] or undefined: the residual stream
  Tensor out;       // out A [T, N]
};

struct LinearBackward {
  Site site;
  Tensor d_out;     // A [T, N]
  QTensor input;    // [T, K]
  QTensor weight;   // [N, K]
  Tensor d_input;   // out A [T, K]
  GradDestination d_weight;  // [N, K]
};

void linear_forward(const PassContext& pass, const LinearForward& args, const RowCount& rows);
void linear_backward(const PassContext& pass, const LinearBackward& args, const RowCount& rows);

RowCount token_rows(const PassContext& pass);

}  // namespace llmfp8
