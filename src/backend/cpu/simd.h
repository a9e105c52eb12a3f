// What the loops of the CPU backend share: instruction-set clones, 16-lane vectors, fp32 exp, activation load and store.
// Included by the kernels of this folder only.
//
// A clone is compiled three times and picked once at start. Helpers are always_inline: a call out of a clone would run
// at the lowest instruction set. Reductions name their lanes, so that the result is the same on every instruction set.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/bf16.h"
#include "core/error.h"
#include "core/tensor.h"

// Sanitizers run before the resolver of a clone may, and clang 14 does not clone templates.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(LLMFP8_SANITIZED)
#define LLMFP8_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LLMFP8_CLONES
#endif
#define LLMFP8_INLINE inline __attribute__((always_inline))

namespace llmfp8::cpu {

inline constexpr int kChunk = 512;  // elements of a row that are worked on in fp32 at a time; they stay in L1

using Float16 = float __attribute__((vector_size(64)));
using Float8 = float __attribute__((vector_size(32)));
using Double8 = double __attribute__((vector_size(64)));

LLMFP8_INLINE float as_float(float x) { return x; }
LLMFP8_INLINE float as_float(bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

template <typename A>
LLMFP8_INLINE A from_float(float x);
template <>
LLMFP8_INLINE float from_float<float>(float x) {
  return x;
}
template <>
LLMFP8_INLINE bf16 from_float<bf16>(float x) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
  const std::uint32_t quiet = (u >> 16) | 0x40u;
  return bf16{static_cast<std::uint16_t>((u & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded)};
}

template <typename A>
LLMFP8_INLINE void load(const A* from, float* __restrict to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = as_float(from[i]);
}
template <typename A>
LLMFP8_INLINE void store(const float* __restrict from, A* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = from_float<A>(from[i]);
}

// e^x, at most 2 ulp off (Cephes expf: Cody-Waite reduction, degree 5). NaN stays NaN, large x gives infinity, x below
// -104 gives 0. 2^n is applied in two halves, so that the ends of the range neither overflow nor flush.
LLMFP8_INLINE float fast_exp(float x) {
  const float low = x < -104.0f ? -104.0f : x;
  const float clamped = low > 89.0f ? 89.0f : low;
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: its last mantissa bit is 1
  const float shifted = clamped * 1.44269504088896341f + kMagic;
  const std::int32_t n = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kMagic);
  const float whole = shifted - kMagic;
  const float r = (clamped - whole * 0.693359375f) - whole * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const std::uint32_t half = static_cast<std::uint32_t>(n >> 1);
  const std::uint32_t rest = static_cast<std::uint32_t>(n) - half;
  return p * std::bit_cast<float>((half + 127u) << 23) * std::bit_cast<float>((rest + 127u) << 23);
}

LLMFP8_INLINE double sum_lanes(const Double8& v) {
  return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

LLMFP8_INLINE Double8 widen(const float* x) {
  Float8 v;
  std::memcpy(&v, x, sizeof v);
  return __builtin_convertvector(v, Double8);
}

// Sum of a[i] * b[i] in fp64. a, b: [n] f32
LLMFP8_INLINE double dot(const float* a, const float* b, std::int64_t n) {
  Double8 even = {}, odd = {};
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    even += widen(a + i) * widen(b + i);
    odd += widen(a + i + 8) * widen(b + i + 8);
  }
  double sum = sum_lanes(even) + sum_lanes(odd);
  for (; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

// Sum of x[i] in fp64. x: [n] f32
LLMFP8_INLINE double sum(const float* x, std::int64_t n) {
  Double8 even = {}, odd = {};
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    even += widen(x + i);
    odd += widen(x + i + 8);
  }
  double total = sum_lanes(even) + sum_lanes(odd);
  for (; i < n; ++i) total += static_cast<double>(x[i]);
  return total;
}

// Largest x[i]; a NaN is passed over. x: [n] f32
LLMFP8_INLINE float max_of(const float* x, std::int64_t n) {
  float lanes[16];
  std::fill_n(lanes, 16, -std::numeric_limits<float>::infinity());
  Float16 best;
  std::memcpy(&best, lanes, sizeof best);
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    Float16 v;
    std::memcpy(&v, x + i, sizeof v);
    best = v > best ? v : best;
  }
  std::memcpy(lanes, &best, sizeof best);
  float largest = lanes[0];
  for (int l = 1; l < 16; ++l) largest = lanes[l] > largest ? lanes[l] : largest;
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// Bits of max |x[i]|; NaN counts as zero. The patterns of non-negative floats sort like integers.
LLMFP8_INLINE std::uint32_t amax_bits(const float* x, std::int64_t n) {
  std::uint32_t best = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(x[i]) & 0x7FFFFFFFu;
    const std::uint32_t counted = magnitude & (0u - static_cast<std::uint32_t>(magnitude <= 0x7F800000u));
    best = std::max(best, counted);
  }
  return best;
}

template <typename T>
LLMFP8_INLINE T* row_of(const Tensor& t, std::int64_t row) {
  return static_cast<T*>(t.data) + row * t.row_stride;
}

template <typename T>
inline void zero_row(const Tensor& t, std::int64_t row) {
  std::memset(static_cast<void*>(row_of<T>(t, row)), 0, static_cast<std::size_t>(t.cols()) * sizeof(T));
}

// How many of `rows` rows that begin at row_offset lie below *count. count: i32 [1]
inline std::int64_t live_rows(const Tensor& count, std::int64_t rows, std::int64_t row_offset = 0) {
  return std::clamp<std::int64_t>(*count.as<std::int32_t>() - row_offset, 0, rows);
}

// Rows of a piece of a parallel loop: enough work to be worth waking a thread.
inline std::int64_t row_grain(std::int64_t cols) {
  return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, cols));
}

// body(float()) or body(bf16()).
template <typename Body>
void with_activation(DType dtype, Body&& body) {
  CHECK(dtype == DType::f32 || dtype == DType::bf16, "activation dtype {}, wanted f32 or bf16", name(dtype));
  if (dtype == DType::f32) {
    body(float());
  } else {
    body(bf16());
  }
}

}  // namespace llmfp8::cpu
