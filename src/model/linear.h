// One fused matrix product of the model: forward, and both gradients. Gradients are quantised here, or by who
// makes them into an OutputGradient.
#pragma once

#include <vector>

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

// The gradient of a product's output in the form in which its two backward products read it: codes under a recipe that
// quantises them, else the high-precision tensor.
class OutputGradient {
 public:
  // Storage for codes of [T, N], or plain: A [T, N].
  OutputGradient(const PassContext& pass, Site site, const Tensor& plain);

  const QTensor& get() const { return gradient_; }
  bool quantized() const { return gradient_.quantized(); }

 private:
  QTensor gradient_;
  std::vector<ArenaTensor> storage_;
};

struct LinearBackward {
  Site site;
  QTensor d_out;    // [T, N], an OutputGradient
  QTensor input;    // [T, K]
  QTensor weight;   // [N, K]
  Tensor d_input;   // out A [T, K]
  GradDestination d_weight;  // [N, K]
};

void linear_forward(const PassContext& pass, const LinearForward& args, const RowCount& rows);
void linear_backward(const PassContext& pass, const LinearBackward& args, const RowCount& rows);

// An OutputGradient with the values of `plain`: A [T, N]; rows beyond the count are zero.
OutputGradient quantize_gradient(const PassContext& pass, Site site, const Tensor& plain, const RowCount& rows);

RowCount token_rows(const PassContext& pass);

}  // namespace llmfp8
