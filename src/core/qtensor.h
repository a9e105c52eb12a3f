// One logical matrix and how it is quantised. Kernels know QTensor; they never know recipes.
//
// A high-precision operand is a QTensor too (scaling none: rowwise is the matrix itself), so a matrix product has one
// signature whatever the recipe. Which of rowwise and columnwise is present is asked of the backend (Ops::usages).
#pragma once

#include "core/tensor.h"

namespace llmfp8 {

// How scales cover the matrix [rows, cols].
enum class Scaling : std::uint8_t {
  none,           // not quantised
  tensor,         // one fp32 scale
  row,            // one fp32 scale a row
  block_1x128,    // one fp32 scale per 128 columns of a row
  block_128x128,  // one fp32 scale a tile
  mx_1x32,        // one E8M0 scale per 32 columns of a row (rowwise) or 32 rows of a column (columnwise)
};

struct QTensor {
  Scaling scaling = Scaling::none;
  DType format = DType::bf16;  // e4m3 | e5m2; the matrix's own dtype where scaling is none
  Shape shape;                 // [rows, cols] of the logical matrix

  Tensor rowwise;              // [rows, cols] codes (or the high-precision matrix): the contraction runs along cols
  // The contraction runs along rows. Per-tensor scaling: the transpose [cols, rows]. mx_1x32: [rows, cols], not transposed.
  Tensor columnwise;
  // tensor: scale_inv is the first fp32 of a 16-byte slot. mx_1x32: e8m0 [rows, cols/32].
  Tensor rowwise_scale_inv;
  Tensor columnwise_scale_inv; // tensor: the same slot. mx_1x32: e8m0 [rows/32, cols].
  Tensor scale;                // f32 [1], tensor scaling: what values are multiplied by before the cast
  // tensor scaling: quantising first sets scale and scale_inv from this matrix's own amax (fp8_scaling.h current_scale);
  // false: scale is used as it stands (delayed scaling).
  bool just_in_time = false;
  Tensor amax;                 // f32 [1]: max-combined with this matrix's amax when it is quantised; may be undefined

  bool quantized() const { return scaling != Scaling::none; }

  static QTensor high_precision(const Tensor& matrix) {
    QTensor q;
    q.format = matrix.dtype;
    q.shape = Shape{matrix.rows(), matrix.cols()};
    q.rowwise = matrix;
    return q;
  }
};

// Which forms of a quantised matrix a backend's products read.
struct Usages {
  bool rowwise = true;
  bool columnwise = false;
};

}  // namespace llmfp8
