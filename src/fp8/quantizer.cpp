#include "fp8/quantizer.h"

namespace llmfp8 {

QTensor make_qtensor(const QuantSpec& spec, DType high_precision, Shape shape, Usages usages, const AllocateTensor& allocate) {
  QTensor q;
  q.shape = shape;
  q.scaling = spec.scaling();
  if (!spec.quantized()) {
    q.format = high_precision;
    q.rowwise = allocate("values", high_precision, shape);
    return q;
  }
  const std::int64_t rows = shape[0], cols = shape[1];
  q.format = spec.format;
  const bool blocks = q.scaling == Scaling::mx_1x32;
  q.mx_scale_layout = usages.mx_scale_layout;
  const bool tiled = q.mx_scale_layout == MxScaleLayout::tiles_128x4;
  if (usages.rowwise) {
    q.rowwise = allocate("codes", spec.format, shape);
    if (blocks) q.rowwise_scale_inv = allocate("scales", DType::e8m0, mx_scale_shape(rows, cols / 32, q.mx_scale_layout));
  }
  if (usages.columnwise) {
    q.columnwise = allocate("codes, columnwise", spec.format, blocks ? shape : Shape{cols, rows});
    if (blocks) {
      const Shape shape_of_scales = tiled ? mx_scale_shape(cols, rows / 32, q.mx_scale_layout) : Shape{rows / 32, cols};
      q.columnwise_scale_inv = allocate("scales, columnwise", DType::e8m0, shape_of_scales);
    }
  }
  return q;
}

QTensor Quantizer::create(Shape shape, DType high_precision, Usages usages, const AllocateTensor& allocate) const {
  QTensor q = make_qtensor(spec_, high_precision, shape, usages, allocate);
  if (q.quantized()) q.amax = history_->amax(slot_);
  if (q.scaling == Scaling::tensor) {
    q.scale = history_->scale(slot_);
    q.rowwise_scale_inv = q.columnwise_scale_inv = history_->scale_inv(slot_);
    q.just_in_time = calibrating_ || spec_.policy == ScalePolicy::current;
  }
  return q;
}

Fp8State::Fp8State(Recipe recipe, int num_layers, Backend& backend, Stream& stream)
    : recipe_(recipe), history_(recipe, num_layers, backend, stream) {}

Quantizer Fp8State::quantizer(Site site, Role role) const {
  return Quantizer(recipe_.spec(site, role), &history_, history_.slot(site, role), calibrating_);
}

}  // namespace llmfp8
