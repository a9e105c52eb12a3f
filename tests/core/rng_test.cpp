// Philox4x32-10 against the known answers of its authors' Random123 library (kat_vectors).
#include "core/rng.h"

#include <gtest/gtest.h>

#include <array>

namespace llmfp8 {
namespace {

using Words = std::array<std::uint32_t, 4>;

Words philox(const Words& counter, std::uint32_t key0, std::uint32_t key1) {
  const auto join = [](std::uint32_t low, std::uint32_t high) { return std::uint64_t{high} << 32 | low; };
  const Philox4 out = philox4x32(join(key0, key1), join(counter[0], counter[1]), join(counter[2], counter[3]));
  return {out.x[0], out.x[1], out.x[2], out.x[3]};
}

TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, ~0u, ~0u), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, BitsAreEvenlySet) {
  std::array<int, 32> ones{};
  constexpr int kDraws = 4096;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    const std::uint32_t word = philox4x32(42, i, 0).x[0];
    for (int bit = 0; bit < 32; ++bit) ones[static_cast<std::size_t>(bit)] += static_cast<int>(word >> bit & 1u);
  }
  // Six standard deviations of a binomial: 6 * sqrt(4096) / 2.
  for (int count : ones) EXPECT_NEAR(count, kDraws / 2, 192);
}

}  // namespace
}  // namespace llmfp8
