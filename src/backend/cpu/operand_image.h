// The image of a panel of a matrix in the type that the matmul engine multiplies: FP8 codes decoded, bf16 widened.
// Called by gemm.cpp.
#pragma once

#include <cstdint>

#include "core/qtensor.h"

namespace llmfp8::cpu {

// A rectangle of a stored matrix (never the transposed form).
struct Panel {
  const QTensor* matrix = nullptr;
  bool columnwise = false;  // MXFP8: the codes with blocks down the columns
  std::int64_t row = 0, rows = 0, col = 0, cols = 0;
  std::int64_t live = 0;  // rows of the matrix at and beyond it are zero
};

// out: bf16 | f32 [rows, cols], contiguous. Per-tensor codes give decode(code), exact in bf16; the scale is the epilogue's.
// MXFP8 gives decode(code) * 2^(scale - 127): exact in bf16 down to its subnormals, below 2^-133 rounded.
void make_image(const Panel& panel, DType dtype, void* out);

}  // namespace llmfp8::cpu
