#include "params/grad_target.h"

#include "params/param_store.h"

namespace llmfp8 {

LocalGradTarget::LocalGradTarget(const WeightTable& table, DType dtype, Backend& backend)
    : buffer_(backend.allocate(packed_bytes(table, dtype), "gradients")),
      grads_(pack(table, dtype, buffer_)),
      written_(table.params().size(), false) {}

Tensor LocalGradTarget::all() const {
  const DType dtype = grads_.front().dtype;
  return buffer_.tensor(dtype, Shape{static_cast<std::int64_t>(buffer_.bytes() / size_bytes(dtype))});
}

void LocalGradTarget::begin_step() { written_.assign(written_.size(), false); }

GradDestination LocalGradTarget::destination(const ParamSpec& param) {
  const auto i = static_cast<std::size_t>(param.index);
  const bool accumulate = written_[i];
  written_[i] = true;
  return {grads_[i], accumulate};
}

}  // namespace llmfp8
