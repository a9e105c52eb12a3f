// Loops over the pairs of float types.
#include "hub/convert.h"

#include <cstring>

#include "core/bf16.h"
#include "core/error.h"

namespace llmfp8 {
namespace {

template <typename Bits>
Bits load(const std::byte* from) {
  Bits bits;
  std::memcpy(&bits, from, sizeof(bits));
  return bits;
}

float read_element(const std::byte* from, DType dtype) {
  if (dtype == DType::f32) return load<float>(from);
  const auto bits = load<std::uint16_t>(from);
  return dtype == DType::bf16 ? to_float(bf16{bits}) : f16_bits_to_float(bits);
}

template <DType kFrom, DType kTo>
void convert_loop(const std::byte* from, std::byte* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const float value = read_element(from + i * (kFrom == DType::f32 ? 4 : 2), kFrom);
    if constexpr (kTo == DType::f32) {
      std::memcpy(to + 4 * i, &value, 4);
    } else {
      const std::uint16_t bits = kTo == DType::bf16 ? to_bf16(value).bits : float_to_f16_bits(value);
      std::memcpy(to + 2 * i, &bits, 2);
    }
  }
}

}  // namespace

bool is_weight_dtype(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

void convert_elements(const void* from, DType from_dtype, void* to, DType to_dtype, std::size_t count) {
  if (count == 0) return;
  if (from_dtype == to_dtype) {
    std::memcpy(to, from, count * size_bytes(to_dtype));
    return;
  }
  CHECK(is_weight_dtype(from_dtype) && is_weight_dtype(to_dtype), "cannot convert {} to {}: f32, f16 or bf16 wanted",
        name(from_dtype), name(to_dtype));
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  if (from_dtype == DType::f32 && to_dtype == DType::bf16) convert_loop<DType::f32, DType::bf16>(source, target, count);
  if (from_dtype == DType::f32 && to_dtype == DType::f16) convert_loop<DType::f32, DType::f16>(source, target, count);
  if (from_dtype == DType::bf16 && to_dtype == DType::f32) convert_loop<DType::bf16, DType::f32>(source, target, count);
  if (from_dtype == DType::bf16 && to_dtype == DType::f16) convert_loop<DType::bf16, DType::f16>(source, target, count);
  if (from_dtype == DType::f16 && to_dtype == DType::f32) convert_loop<DType::f16, DType::f32>(source, target, count);
  if (from_dtype == DType::f16 && to_dtype == DType::bf16) convert_loop<DType::f16, DType::bf16>(source, target, count);
}

}  // namespace llmfp8
