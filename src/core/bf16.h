// bfloat16: the upper half of an fp32, rounded to nearest even. NaN stays NaN (quiet).
#pragma once

#include <bit>
#include <cstdint>

#include "core/host_device.h"

namespace llmfp8 {

struct bf16 {
  std::uint16_t bits = 0;
};

LLMFP8_HD inline float to_float(bf16 value) { return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16); }

LLMFP8_HD inline bf16 to_bf16(float value) {
  std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  // Branch-free so that loops vectorise: a NaN would otherwise round up to infinity or wrap to zero.
  const std::uint32_t rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16;
  const std::uint32_t quiet = (u >> 16) | 0x40u;
  return bf16{static_cast<std::uint16_t>((u & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded)};
}

}  // namespace llmfp8
