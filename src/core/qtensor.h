// One logical matrix and how it is quantised. Kernels know QTensor; they never know recipes.
//
// A high-precision operand is a QTensor too (scaling none: rowwise is the matrix itself), so a matrix product has one
// signature whatever the recipe. Which of rowwise and columnwise is present is asked of the backend (Ops::usages).
#pragma once

#include "core/host_device.h"
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

// How the E8M0 scales of mx_1x32 lie in memory: [rows, blocks] as they are, or padded to tiles of 128 rows x 4 blocks,
// which is what tensor cores read.
enum class MxScaleLayout : std::uint8_t { plain, tiles_128x4 };

// Where the scale of block `block` of row `row` lies in tiles_128x4, rows of `blocks` scales. Tiles follow each other
// along the blocks, then down the rows; in a tile the row counts modulo 32 first, then its quarter, then the block.
// Source: cuBLAS documentation, "1D Block Scaling Factors Layout"; Transformer Engine and PyTorch write the same order.
LLMFP8_HD inline std::int64_t mx_tile_offset(std::int64_t row, std::int64_t block, std::int64_t blocks) {
  const std::int64_t tile = row / 128 * ((blocks + 3) / 4) + block / 4;
  return tile * 512 + row % 32 * 16 + row % 128 / 32 * 4 + block % 4;
}

// Shape of the scale tensor of `rows` rows with `blocks` scales each. What pads tiles is zero.
inline Shape mx_scale_shape(std::int64_t rows, std::int64_t blocks, MxScaleLayout layout) {
  if (layout == MxScaleLayout::plain) return Shape{rows, blocks};
  return Shape{(rows + 127) / 128 * 128, (blocks + 3) / 4 * 4};
}

struct QTensor {
  Scaling scaling = Scaling::none;
  DType format = DType::bf16;  // e4m3 | e5m2; the matrix's own dtype where scaling is none
  Shape shape;                 // [rows, cols] of the logical matrix

  Tensor rowwise;              // [rows, cols] codes (or the high-precision matrix): the contraction runs along cols
  // The contraction runs along rows. Per-tensor scaling: the transpose [cols, rows]. mx_1x32: [rows, cols], not transposed.
  Tensor columnwise;
  // tensor: scale_inv is the first fp32 of a 16-byte slot. mx_1x32: e8m0, plain [rows, cols/32], tiled as mx_scale_layout.
  Tensor rowwise_scale_inv;
  Tensor columnwise_scale_inv; // tensor: the same slot. mx_1x32: e8m0, plain [rows/32, cols]; tiled: of the transpose
  MxScaleLayout mx_scale_layout = MxScaleLayout::plain;
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
  MxScaleLayout mx_scale_layout = MxScaleLayout::plain;
};

}  // namespace llmfp8
