// The codecs of E4M3 (max 448, no infinity), E5M2 (max 57344) and E8M0 (a power of two). Encoding rounds to nearest
// even and saturates: overflow and infinity become the largest finite value of that sign, as NVIDIA's __NV_SATFINITE.
// Zero keeps its sign, values under half the smallest subnormal become zero, NaN becomes 0x7F.
#pragma once

#include <bit>
#include <cstdint>

#include "core/dtype.h"
#include "core/host_device.h"

namespace llmfp8 {

inline constexpr float kE4M3Max = 448.0f;
inline constexpr float kE5M2Max = 57344.0f;

LLMFP8_HD inline float fp8_max(DType format) { return format == DType::e4m3 ? kE4M3Max : kE5M2Max; }

namespace detail {

// condition ? a : b without a branch: as a ternary GCC makes control flow of it, and the loops around do not vectorise.
LLMFP8_HD inline std::uint32_t select(bool condition, std::uint32_t a, std::uint32_t b) {
  return b ^ ((a ^ b) & (0u - static_cast<std::uint32_t>(condition)));
}

// MantissaBits, Bias of the format; max_code: its largest finite code.
// The fp32 pattern is rounded as an integer: for normals by adding half a unit of the last kept bit, for subnormals by
// an fp32 addition that makes the hardware round at the format's fixed point.
template <int MantissaBits, int Bias>
LLMFP8_HD inline std::uint8_t encode_fp8(float value, float max, std::uint8_t max_code) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (u >> 24) & 0x80u;
  const std::uint32_t magnitude = u & 0x7FFFFFFFu;
  const float absolute = std::bit_cast<float>(magnitude);
  constexpr int kShift = 23 - MantissaBits;
  constexpr std::uint32_t kRebias = static_cast<std::uint32_t>(127 - Bias) << 23;
  constexpr std::uint32_t kSmallestNormal = static_cast<std::uint32_t>(127 - Bias + 1) << 23;
  // 2^(1 - Bias - MantissaBits + 23): its last mantissa bit is the format's subnormal step.
  const float magic = std::bit_cast<float>(static_cast<std::uint32_t>(127 + 1 - Bias - MantissaBits + 23) << 23);
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(absolute + magic) - std::bit_cast<std::uint32_t>(magic);
  const std::uint32_t lsb = (magnitude >> kShift) & 1u;
  const std::uint32_t normal = (magnitude - kRebias + ((1u << (kShift - 1)) - 1u) + lsb) >> kShift;
  std::uint32_t code = select(magnitude < kSmallestNormal, subnormal, normal);
  code = select(magnitude >= std::bit_cast<std::uint32_t>(max), max_code, code);
  code = select(code > max_code, max_code, code);
  const std::uint32_t result = select(magnitude > 0x7F800000u, 0x7Fu, sign | code);
  return static_cast<std::uint8_t>(result);
}

}  // namespace detail

LLMFP8_HD inline std::uint8_t encode_e4m3(float value) { return detail::encode_fp8<3, 7>(value, kE4M3Max, 0x7E); }
LLMFP8_HD inline std::uint8_t encode_e5m2(float value) { return detail::encode_fp8<2, 15>(value, kE5M2Max, 0x7B); }

LLMFP8_HD inline float decode_e4m3(std::uint8_t code) {
  const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x80u) << 24;
  const std::uint32_t magnitude = code & 0x7Fu;
  if (magnitude == 0x7Fu) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (magnitude < 8u) {  // subnormal: a multiple of 2^-9
    const float value = static_cast<float>(magnitude) * 0.001953125f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((magnitude << 20) + (120u << 23)));
}

LLMFP8_HD inline float decode_e5m2(std::uint8_t code) {
  const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x80u) << 24;
  const std::uint32_t magnitude = code & 0x7Fu;
  if (magnitude > 0x7Cu) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (magnitude == 0x7Cu) return std::bit_cast<float>(sign | 0x7F800000u);
  if (magnitude < 4u) {  // subnormal: a multiple of 2^-16
    const float value = static_cast<float>(magnitude) * 0.0000152587890625f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((magnitude << 21) + (112u << 23)));
}

LLMFP8_HD inline std::uint8_t encode_fp8(float value, DType format) {
  return format == DType::e4m3 ? encode_e4m3(value) : encode_e5m2(value);
}

LLMFP8_HD inline float decode_fp8(std::uint8_t code, DType format) {
  return format == DType::e4m3 ? decode_e4m3(code) : decode_e5m2(code);
}

// Code c is 2^(c-127); 255 is NaN; 0 is the fp32 subnormal 2^-127.
LLMFP8_HD inline float decode_e8m0(std::uint8_t code) {
  if (code == 255) return std::bit_cast<float>(0x7FC00000u);
  if (code == 0) return std::bit_cast<float>(0x00400000u);
  return std::bit_cast<float>(static_cast<std::uint32_t>(code) << 23);
}

}  // namespace llmfp8
