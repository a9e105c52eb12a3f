// Quantised matrices for cases, made by a naive reference and not by the backend under test.
#pragma once

#include <vector>

#include "op_harness.h"

namespace llmfp8::testing {

struct Quantized {
  QTensor tensor;                        // on the device, every form present; beyond `live`: codes 0
  std::vector<float> rowwise_values;     // [rows, cols]: what the codes stand for
  std::vector<float> columnwise_values;  // the same for the columnwise codes
  std::vector<std::uint8_t> rowwise, columnwise, rowwise_scales, columnwise_scales;  // scales as the tensor has them
  float scale = 1.0f;
};

// none: format is f32 or bf16 and the values are rounded to it. tensor: the scale follows from the amax (just in time).
// mx_1x32: the scales lie as the backend's products read them.
Quantized make_quantized(Device& device, Backend& backend, const std::vector<float>& values, Shape shape,
                         Scaling scaling, DType format, std::int64_t live);

// The scales of `outer` rows (row-wise) or columns (column-wise) in tiles of 128 x 4, from [outer, blocks] or, where
// `across` says so, from [blocks, outer].
enum class ScaleOrder { along, across };
std::vector<std::uint8_t> tiled_scales(const std::vector<std::uint8_t>& plain, std::int64_t outer, std::int64_t blocks,
                                       ScaleOrder order);

}  // namespace llmfp8::testing
