#include "quantized.h"

#include <cmath>

#include "core/float8.h"
#include "core/fp8_scaling.h"

namespace llmfp8::testing {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

void quantize_tensor(Quantized& q, const std::vector<float>& values, Shape shape, DType format) {
  float amax = 0.0f;
  for (float v : values) amax = std::isnan(v) ? amax : std::max(amax, std::abs(v));
  q.scale = current_scale(amax, fp8_max(format));
  for (std::int64_t r = 0; r < shape[0]; ++r) {
    for (std::int64_t c = 0; c < shape[1]; ++c) {
      const std::uint8_t code = encode_fp8(values[at(r * shape[1] + c)] * q.scale, format);
      q.rowwise[at(r * shape[1] + c)] = code;
      q.columnwise[at(c * shape[0] + r)] = code;
      q.rowwise_values[at(r * shape[1] + c)] = decode_fp8(code, format) * (1.0f / q.scale);
    }
  }
}

void quantize_mx(Quantized& q, const std::vector<float>& values, Shape shape, DType format) {
  const std::int64_t rows = shape[0], cols = shape[1];
  q.rowwise_scales.resize(at(rows * cols / 32));
  q.columnwise_scales.resize(at(rows * cols / 32));
  for (std::int64_t block = 0; block < rows * cols / 32; ++block) {
    for (bool down : {false, true}) {
      const auto index = [&](std::int64_t i) {
        return down ? at((block / cols * 32 + i) * cols + block % cols) : at(block * 32 + i);
      };
      float amax = 0.0f;
      for (std::int64_t i = 0; i < 32; ++i)
        amax = std::isnan(values[index(i)]) ? amax : std::max(amax, std::abs(values[index(i)]));
      const std::uint8_t scale = mx_scale_code(amax, fp8_max(format));
      (down ? q.columnwise_scales : q.rowwise_scales)[at(block)] = scale;
      for (std::int64_t i = 0; i < 32; ++i) {
        const std::uint8_t code = encode_fp8(values[index(i)] * mx_multiplier(scale), format);
        (down ? q.columnwise : q.rowwise)[index(i)] = code;
        (down ? q.columnwise_values : q.rowwise_values)[index(i)] = decode_fp8(code, format) * decode_e8m0(scale);
      }
    }
  }
}

}  // namespace

Quantized make_quantized(Device& device, Backend&, const std::vector<float>& values, Shape shape, Scaling scaling,
                         DType format, std::int64_t live) {
  Quantized q;
  const auto clean = with_tail(values, shape[1], live, 0.0f);
  if (scaling == Scaling::none) {
    q.rowwise_values = rounded(clean, format);
    q.columnwise_values = q.rowwise_values;
    q.tensor = QTensor::high_precision(device.upload(clean, format, shape));
    return q;
  }
  for (auto* values_of : {&q.rowwise_values, &q.columnwise_values}) values_of->resize(clean.size());
  for (auto* codes : {&q.rowwise, &q.columnwise}) codes->resize(clean.size());
  q.tensor.scaling = scaling;
  q.tensor.format = format;
  q.tensor.shape = shape;
  if (scaling == Scaling::tensor) {
    quantize_tensor(q, clean, shape, format);
    q.columnwise_values = q.rowwise_values;
    q.tensor.rowwise = device.upload_codes(q.rowwise, shape);
    q.tensor.columnwise = device.upload_codes(q.columnwise, Shape{shape[1], shape[0]});
    q.tensor.scale = device.upload({q.scale}, DType::f32, Shape{1});
    q.tensor.rowwise_scale_inv = device.upload({1.0f / q.scale}, DType::f32, Shape{1});
    q.tensor.columnwise_scale_inv = q.tensor.rowwise_scale_inv;
    return q;
  }
  quantize_mx(q, clean, shape, format);
  const std::int64_t rows = shape[0], cols = shape[1];
  Shape along{rows, cols / 32}, across{rows / 32, cols};
  q.tensor.mx_scale_layout = device.usages(scaling).mx_scale_layout;
  if (q.tensor.mx_scale_layout == MxScaleLayout::tiles_128x4) {
    q.rowwise_scales = tiled_scales(q.rowwise_scales, rows, cols / 32, ScaleOrder::along);
    q.columnwise_scales = tiled_scales(q.columnwise_scales, cols, rows / 32, ScaleOrder::across);
    along = mx_scale_shape(rows, cols / 32, MxScaleLayout::tiles_128x4);
    across = mx_scale_shape(cols, rows / 32, MxScaleLayout::tiles_128x4);
  }
  q.tensor.rowwise = device.upload_codes(q.rowwise, shape);
  q.tensor.columnwise = device.upload_codes(q.columnwise, shape);
  q.tensor.rowwise_scale_inv = device.upload_codes(q.rowwise_scales, along);
  q.tensor.columnwise_scale_inv = device.upload_codes(q.columnwise_scales, across);
  return q;
}

std::vector<std::uint8_t> tiled_scales(const std::vector<std::uint8_t>& plain, std::int64_t outer, std::int64_t blocks,
                                       ScaleOrder order) {
  std::vector<std::uint8_t> tiled(at(mx_scale_shape(outer, blocks, MxScaleLayout::tiles_128x4).numel()));
  for (std::int64_t i = 0; i < outer; ++i) {
    for (std::int64_t block = 0; block < blocks; ++block) {
      tiled[at(mx_tile_offset(i, block, blocks))] =
          plain[at(order == ScaleOrder::along ? i * blocks + block : block * outer + i)];
    }
  }
  return tiled;
}

}  // namespace llmfp8::testing
