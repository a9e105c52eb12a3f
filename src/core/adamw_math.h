// AdamW's arithmetic for one element, and how its numbers are stored: the split fp32 master, stochastic rounding to
// bf16, 8-bit moments. Called by every backend's adamw and by optim/; host and device must give equal bytes, so a device
// compiler has to keep separate multiplications and additions (no contraction) and exact division and square root.
//
// Random bits: one Philox call (rounding_key, counter e / 8, param_index << 32) serves the elements e with the same e / 8,
// e counted in the whole parameter: eight numbers of 16 bits. An element takes another one of the eight for each of the
// values that it rounds (parameter, m, v), so these are independent; that neighbours share numbers in other places does
// no harm, since each rounding is unbiased and no sum is taken over them.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "core/bf16.h"
#include "core/host_device.h"
#include "core/rng.h"
#include "core/step_scalars.h"

namespace llmfp8 {

// ---- random bits

// The value of an element that is rounded: how many places on its number lies.
enum class RoundingStream : std::uint32_t { param = 0, m = 3, v = 6 };

LLMFP8_HD inline Philox4 rounding_words(std::uint64_t key, std::uint32_t param_index, std::uint64_t element) {
  return philox4x32(key, element / 8, static_cast<std::uint64_t>(param_index) << 32);
}

LLMFP8_HD inline std::uint32_t rounding_place(std::uint64_t element, RoundingStream stream) {
  return (static_cast<std::uint32_t>(element) + static_cast<std::uint32_t>(stream)) % 8;
}

// words: rounding_words of the element.
LLMFP8_HD inline std::uint16_t rounding_bits(const Philox4& words, std::uint64_t element, RoundingStream stream) {
  const std::uint32_t place = rounding_place(element, stream);
  return static_cast<std::uint16_t>(words.x[place / 2] >> (place % 2 * 16));
}

// ---- fp32 master = bf16 rounded half away from zero (what the model computes with) + the master's low 16 bits.
// A bijection over all 2^32 patterns, since rounding half away depends on bit 15 alone; nearest even is none.
// A bf16 weight with remainder 0 is itself as fp32. Infinity stays, finite values beyond the largest bf16 read as infinity
// in the bf16 half only. NaN stays NaN, except that 2 x 32768 signalling patterns (0x7F808000..0x7F80FFFF and their
// negatives, made by no arithmetic) read as zero in the bf16 half: some must, for rounding leaves only those codes free.
// Without the swap it would be 0x7FFF8000..0x7FFFFFFF, and 0x7FFFFFFF is the NaN that a GPU makes.

struct SplitFloat {
  std::uint16_t hi;  // bf16 pattern
  std::uint16_t lo;
};

namespace detail {
LLMFP8_HD inline std::uint32_t swap_nan_patterns(std::uint32_t u) {
  const std::uint32_t high = (u >> 15) & 0xFFFFu;
  const bool swapped = high == 0xFFFFu || high == 0xFF01u;
  return swapped ? u ^ ((0xFFFFu ^ 0xFF01u) << 15) : u;
}
}  // namespace detail

LLMFP8_HD inline SplitFloat split_master(float master) {
  const std::uint32_t u = detail::swap_nan_patterns(std::bit_cast<std::uint32_t>(master));
  return SplitFloat{static_cast<std::uint16_t>((u + 0x8000u) >> 16), static_cast<std::uint16_t>(u)};
}

LLMFP8_HD inline float join_master(SplitFloat split) {
  const std::uint32_t u = (static_cast<std::uint32_t>(split.hi) << 16) + split.lo - ((split.lo & 0x8000u) << 1);
  return std::bit_cast<float>(detail::swap_nan_patterns(u));
}

// ---- stochastic rounding to bf16: up with the probability of the dropped part, exactly (16 bits dropped, 16 random).
// Exact values stay, zero, tiny (subnormal) values included; infinity stays; finite values never become infinite but
// saturate at the largest bf16; NaN stays NaN (quiet).
LLMFP8_HD inline bf16 to_bf16_stochastic(float value, std::uint16_t random) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = u & 0x7FFFFFFFu;
  const std::uint32_t sign = (u >> 16) & 0x8000u;
  std::uint32_t rounded = (magnitude + random) >> 16;
  rounded = magnitude < 0x7F800000u && rounded > 0x7F7Fu ? 0x7F7Fu : rounded;
  rounded = magnitude > 0x7F800000u ? (magnitude >> 16) | 0x40u : rounded;
  return bf16{static_cast<std::uint16_t>(sign | rounded)};
}

// ---- 8-bit moments: codes relative to a scale per block of 256 elements, rounded stochastically, so that a value that
// changes by less than a code's step still moves on average.
//
// v: unsigned, 5 exponent and 3 mantissa bits without subnormals: 2^(c/8 - 31) * (1 + c%8 / 8), from 2^-31 * 1.125 to
//    1.875 = kVCodeMax; code 0 is zero and is given to zero alone: a positive v below the smallest code becomes that
//    code, for rounding it to zero would divide m by eps. scale = max v / 1.875, so a block that only decays keeps its
//    codes and decays with its scale.
// m: sign and E4M3 magnitude (kMCodeMax 448, subnormal step 2^-9), scale = max |m| / 448. Its smallest step, 4.4e-6 of
//    the largest |m|, lies under the square root of v's smallest code, 1.7e-5 of the largest sqrt(v), and |m| never
//    exceeds about 7.3 sqrt(v): rounding m can add 2 learning rates to an update at most.
// Zero stays. Tiny: maxima under kMomentFloor count as kMomentFloor (1/scale stays finite; their root is far below any
// eps). Infinity saturates at its block's scale; the scale stays finite. NaN: m keeps it (0x7F), v has no code for it
// (255); neither counts for the scale.

inline constexpr int kMomentBlock = 256;
inline constexpr float kVCodeMax = 1.875f;
inline constexpr float kMCodeMax = 448.0f;
inline constexpr float kMomentFloor = 0x1p-100f;

struct MomentScale {
  float scale;  // stored: value = code value * scale
  float inverse;
};

// max_value: largest magnitude of the block that is not NaN.
LLMFP8_HD inline MomentScale moment_scale(float max_value, float code_max) {
  float bounded = max_value < 0x1.fffffep127f ? max_value : 0x1.fffffep127f;
  bounded = bounded > kMomentFloor ? bounded : kMomentFloor;
  return MomentScale{bounded / code_max, code_max / bounded};
}

namespace detail {
// 16 random bits for the 20 dropped ones; the half of a step added keeps the mean of what they cannot resolve.
LLMFP8_HD inline std::int32_t spread_random(std::uint16_t random) {
  return (static_cast<std::int32_t>(random) << 4) | 8;
}
}  // namespace detail

LLMFP8_HD inline std::uint8_t encode_v8(float v, float inverse, std::uint16_t random) {
  const std::uint32_t ratio =
      std::bit_cast<std::uint32_t>(v * inverse) & 0x7FFFFFFFu;         // the default NaN of x86 is negative
  std::int32_t steps = static_cast<std::int32_t>(ratio) - (96 << 23);  // above the pattern of 2^-31
  steps = steps > 0 ? steps : 0;
  steps = steps < (256 << 20) ? steps : (256 << 20);  // infinity and NaN would overflow below
  std::int32_t code = (steps + detail::spread_random(random)) >> 20;
  code = code < 255 ? code : 255;
  code = code > 1 ? code : 1;
  return static_cast<std::uint8_t>(v == 0.0f ? 0 : code);
}

LLMFP8_HD inline float decode_v8(std::uint8_t code, float scale) {
  const float value = std::bit_cast<float>((static_cast<std::int32_t>(code) << 20) + (96 << 23));
  return code == 0 ? 0.0f : value * scale;
}

LLMFP8_HD inline std::uint8_t encode_m8(float m, float inverse, std::uint16_t random) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(m * inverse);
  const std::int32_t magnitude = static_cast<std::int32_t>(u & 0x7FFFFFFFu);
  const float absolute = std::bit_cast<float>(magnitude);
  constexpr std::int32_t kSmallestNormal = 121 << 23;  // 2^-6
  const std::int32_t normal = (magnitude - (120 << 23) + detail::spread_random(random)) >> 20;
  const float in_steps = (magnitude < kSmallestNormal ? absolute : 0.0f) * 512.0f;
  const std::int32_t subnormal = static_cast<std::int32_t>(in_steps + (static_cast<float>(random) + 0.5f) * 0x1p-16f);
  std::int32_t code = magnitude < kSmallestNormal ? subnormal : normal;
  code = code < 0x7E && magnitude < 0x7F800000 ? code : 0x7E;
  code = magnitude > 0x7F800000 ? 0x7F : code;
  return static_cast<std::uint8_t>(((u >> 24) & 0x80u) | static_cast<std::uint32_t>(code));
}

LLMFP8_HD inline float decode_m8(std::uint8_t code, float scale) {
  const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x80u) << 24;
  const std::int32_t magnitude = code & 0x7F;
  const float subnormal = static_cast<float>(magnitude) * 0x1p-9f;
  const float normal = std::bit_cast<float>((magnitude << 20) + (120 << 23));
  float value = magnitude < 8 ? subnormal : normal;
  value = magnitude == 0x7F ? std::bit_cast<float>(0x7FC00000u) : value;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value)) * scale;
}

// ---- the update of one element, as torch.optim.AdamW orders it

struct AdamwHyper {
  double beta1, beta2, eps, weight_decay;
};

struct AdamwFactors {
  float grad_scale;
  float decay;  // 1 - lr * weight_decay
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float step_size;  // lr / bias_correction1
  float inverse_sqrt_bias_correction2;
  float eps;
};

// The factors in double, rounded once, as torch passes Python's doubles to its fp32 kernels. torch divides by
// sqrt(bias_correction2); the product with its inverse differs in the last bit and saves a third of the arithmetic.
LLMFP8_HD inline AdamwFactors adamw_factors(const AdamwHyper& hyper, const StepScalars& scalars) {
  const double lr = scalars.learning_rate;
  return AdamwFactors{
      scalars.grad_scale,
      static_cast<float>(1.0 - lr * hyper.weight_decay),
      static_cast<float>(hyper.beta1),
      static_cast<float>(1.0 - hyper.beta1),
      static_cast<float>(hyper.beta2),
      static_cast<float>(1.0 - hyper.beta2),
      static_cast<float>(lr / scalars.bias_correction1),
      static_cast<float>(1.0 / std::sqrt(static_cast<double>(scalars.bias_correction2))),
      static_cast<float>(hyper.eps),
  };
}

// m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g g; p = p (1 - lr wd) - step_size m / (sqrt(v) / sqrt(bc2) + eps)
LLMFP8_HD inline void adamw_element(const AdamwFactors& f, float grad, float& param, float& m, float& v) {
  const float g = grad * f.grad_scale;
  m = f.beta1 * m + f.one_minus_beta1 * g;
  v = f.beta2 * v + (f.one_minus_beta2 * g) * g;
  const float denominator = std::sqrt(v) * f.inverse_sqrt_bias_correction2 + f.eps;
  param = param * f.decay - f.step_size * m / denominator;
}

}  // namespace llmfp8
