// From an amax to a scale: the rules, written once, called by every backend on host and device.
// Sources: Transformer Engine, common/recipe/delayed_scaling.cu (fused update), common/recipe/recipe_common.cuh
// (compute_scale_from_amax), common/util/ptx_arch_spec.cuh (float_to_e8m0).
#pragma once

#include <bit>
#include <cstdint>

#include "core/host_device.h"

namespace llmfp8 {

inline constexpr float kFloatMax = 3.402823466e+38f;

namespace detail {
LLMFP8_HD inline bool is_finite(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7F800000u) != 0x7F800000u; }
LLMFP8_HD inline bool is_nan(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFu) > 0x7F800000u; }
LLMFP8_HD inline bool is_inf(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFu) == 0x7F800000u; }
}  // namespace detail

// Maximum that ignores a NaN operand, as CUDA's fmaxf.
LLMFP8_HD inline float amax_combine(float a, float b) { return detail::is_nan(a) ? b : (b > a ? b : a); }

// Just-in-time scaling of one tensor. fp8_max: 448 or 57344.
// amax zero, infinite or NaN: 1. A quotient that overflows (tiny amax): FLT_MAX. power_of_two: mantissa cleared.
LLMFP8_HD inline float current_scale(float amax, float fp8_max, bool power_of_two = false) {
  if (!detail::is_finite(amax) || !(amax > 0.0f)) return 1.0f;
  float scale = fp8_max / amax;
  if (detail::is_inf(scale)) scale = kFloatMax;
  if (power_of_two) scale = std::bit_cast<float>(std::bit_cast<std::uint32_t>(scale) & 0xFF800000u);
  return scale;
}

enum class AmaxAlgorithm : std::uint8_t { max, most_recent };

// Delayed scaling, one step of one tensor. history: [length], history[0] holds this step's amax and is 0 afterwards.
// Returns the scale of the next step's casts; `scale` is the present one.
//   newest amax 0: the history stands still, the scale stays.
//   window with an infinity (algorithm max): the scale stays until it has left the window. NaN is ignored.
LLMFP8_HD inline float delayed_scale_update(float* history, int length, AmaxAlgorithm algorithm, float fp8_max, int margin,
                                            float scale) {
  const float newest = history[0];
  float amax = newest;
  if (newest != 0.0f) {
    for (int i = 1; i < length; ++i) amax = amax_combine(amax, history[i]);
    for (int i = 1; i + 1 < length; ++i) history[i] = history[i + 1];
    if (length > 1) history[length - 1] = newest;
    history[0] = 0.0f;
  }
  if (algorithm == AmaxAlgorithm::most_recent) amax = newest;
  if (!detail::is_finite(amax) || !(amax > 0.0f)) return scale;
  // 2^-margin exactly; margin is small.
  const float shrink = std::bit_cast<float>(static_cast<std::uint32_t>(127 - margin) << 23);
  float next = (fp8_max * shrink) / amax;
  if (detail::is_inf(next)) next = kFloatMax;
  return next;
}

// The E8M0 scale of one MXFP8 block: 2^ceil(log2(amax / fp8_max)), clamped to [2^-127, 2^127].
LLMFP8_HD inline std::uint8_t mx_scale_code(float amax, float fp8_max) {
  const float value = amax * (1.0f / fp8_max);
  if (detail::is_nan(value)) return 0xFF;
  if (detail::is_inf(value)) return 0xFE;
  if (value == 0.0f) return 0;
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  std::uint32_t exponent = u >> 23;
  const std::uint32_t mantissa = u & 0x7FFFFFu;
  // A subnormal up to 2^-127 (mantissa 0x400000) rounds to code 0; the largest exponent is never raised.
  if (mantissa != 0 && exponent != 254 && !(exponent == 0 && mantissa <= 0x400000u)) ++exponent;
  return static_cast<std::uint8_t>(exponent);
}

// What a block's values are multiplied by before the cast: 2^(127 - code); 2^-127 is an fp32 subnormal.
LLMFP8_HD inline float mx_multiplier(std::uint8_t code) {
  if (code == 254) return std::bit_cast<float>(0x00400000u);
  if (code == 255) return std::bit_cast<float>(0x7FC00000u);
  return std::bit_cast<float>(static_cast<std::uint32_t>(254 - code) << 23);
}

}  // namespace llmfp8
