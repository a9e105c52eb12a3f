// Conversion of weights between float types on the host, bf16 and f16 rounded to nearest even.
// Called by the weight sources; sources may lie at any byte address, as tensors in files do.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace llmfp8 {

inline float f16_bits_to_float(std::uint16_t half) {
  constexpr std::uint32_t kExponent = 0x7C00u << 13;
  std::uint32_t bits = (half & 0x7FFFu) << 13;
  const std::uint32_t exponent = bits & kExponent;
  bits += (127u - 15u) << 23;
  if (exponent == kExponent) {
    bits += (128u - 16u) << 23;  // infinity and NaN
  } else if (exponent == 0) {
    // A subnormal half is normal in fp32: subtracting the implicit one renormalises it without touching fp32 subnormals.
    bits = std::bit_cast<std::uint32_t>(std::bit_cast<float>(bits + (1u << 23)) - std::bit_cast<float>(113u << 23));
  }
  return std::bit_cast<float>(bits | (static_cast<std::uint32_t>(half & 0x8000u) << 16));
}

inline std::uint16_t float_to_f16_bits(float value) {
  std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7FFFFFFFu;
  std::uint32_t half;
  if (bits >= (127u + 16u) << 23) {  // 65536 and more: infinity, or NaN
    half = bits > 0x7F800000u ? 0x7E00u : 0x7C00u;
  } else if (bits < 113u << 23) {  // below the smallest normal half: the fp32 adder rounds to nearest even
    constexpr std::uint32_t kMagic = ((127u - 15u) + (23u - 10u) + 1u) << 23;
    half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(bits) + std::bit_cast<float>(kMagic)) - kMagic;
  } else {
    half = (bits - ((127u - 15u) << 23) + 0xFFFu + ((bits >> 13) & 1u)) >> 13;
  }
  return static_cast<std::uint16_t>(half | sign);
}

bool is_weight_dtype(DType dtype);  // f32, f16, bf16

// from: `count` elements of `from_dtype`, any alignment. to: `count` elements of `to_dtype`. Equal types are copied;
// otherwise both must be weight dtypes (Error).
void convert_elements(const void* from, DType from_dtype, void* to, DType to_dtype, std::size_t count);

}  // namespace llmfp8
