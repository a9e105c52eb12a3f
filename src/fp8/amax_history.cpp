#include "fp8/amax_history.h"

#include <algorithm>
#include <vector>

#include "core/float8.h"

namespace llmfp8 {
namespace {
constexpr std::int64_t kScaleStride = 4;  // floats: cuBLASLt wants scale pointers aligned to 16 bytes
constexpr Product kProducts[] = {Product::qkv, Product::o, Product::gate_up, Product::down};
}  // namespace

AmaxHistory::AmaxHistory(const Recipe& recipe, int num_layers, Backend& backend, Stream& stream)
    : num_layers_(num_layers), num_slots_(3 * (num_layers * kLayerProducts + 1)), delayed_(recipe.delayed()) {
  const std::int64_t n = num_slots_;
  history_length_ = std::max(1, recipe.spec({0, Product::qkv}, Role::input).history_length);
  const std::int64_t floats = n * (1 + history_length_ + 2 * kScaleStride + 1);
  // Each part starts at a multiple of 64 floats.
  const auto align = [](std::int64_t count) { return (count + 63) / 64 * 64; };
  buffer_ = backend.allocate(static_cast<std::size_t>(align(floats) + 5 * 64) * sizeof(float), "FP8 scaling state");
  std::int64_t offset = 0;
  const auto take = [&](Shape shape) {
    const Tensor view = buffer_.tensor(DType::f32, shape, static_cast<std::size_t>(offset) * sizeof(float));
    offset += align(shape.numel());
    return view;
  };
  scale_ = take(Shape{n, kScaleStride});
  scale_inv_ = take(Shape{n, kScaleStride});
  amax_ = take(Shape{n});
  history_ = take(Shape{n, history_length_});
  format_max_ = take(Shape{n});

  std::vector<float> ones(static_cast<std::size_t>(n * kScaleStride), 1.0f);
  std::vector<float> limits(static_cast<std::size_t>(n), 0.0f);
  const auto set_limit = [&](Site site, Role role) {
    const QuantSpec spec = recipe.spec(site, role);
    if (spec.policy == ScalePolicy::delayed) limits[static_cast<std::size_t>(slot(site, role))] = fp8_max(spec.format);
  };
  for (Role role : {Role::input, Role::weight, Role::gradient}) {
    for (int layer = 0; layer < num_layers; ++layer)
      for (Product product : kProducts) set_limit({layer, product}, role);
    set_limit({0, Product::lm_head}, role);
  }
  backend.copy_to_device(scale_.data, ones.data(), scale_.bytes(), stream);
  backend.copy_to_device(scale_inv_.data, ones.data(), scale_inv_.bytes(), stream);
  backend.copy_to_device(format_max_.data, limits.data(), format_max_.bytes(), stream);
  backend.synchronize(stream);
}

int AmaxHistory::slot(Site site, Role role) const {
  const int per_role = num_layers_ * kLayerProducts + 1;
  const int within = site.product == Product::lm_head ? per_role - 1 : site.layer * kLayerProducts + static_cast<int>(site.product);
  const int order = role == Role::weight ? 0 : role == Role::input ? 1 : 2;
  return order * per_role + within;
}

Tensor AmaxHistory::amax(int slot) const { return amax_.reshape(Shape{num_slots_, 1}).slice_rows(slot, 1).reshape(Shape{1}); }

Tensor AmaxHistory::scale(int slot) const { return scale_.slice_rows(slot, 1).slice_cols(0, 1).reshape(Shape{1}); }

Tensor AmaxHistory::scale_inv(int slot) const { return scale_inv_.slice_rows(slot, 1).slice_cols(0, 1).reshape(Shape{1}); }

void AmaxHistory::begin_step(Ops& ops) const {
  const std::int64_t weights = num_slots_ / 3;
  ops.zero(amax_.reshape(Shape{num_slots_, 1}).slice_rows(weights, num_slots_ - weights));
}

void AmaxHistory::update(Ops& ops, const StepScalars* scalars) const {
  if (!delayed_) return;
  ops.update_scales({amax_, history_, scale_, scale_inv_, format_max_, AmaxAlgorithm::max, 0, scalars});
}

}  // namespace llmfp8
