// The number formats of AdamW: split master, stochastic rounding, 8-bit moments.
#include "core/adamw_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

namespace llmfp8 {
namespace {

float from_bits(std::uint32_t u) { return std::bit_cast<float>(u); }
std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }
bool is_nan_bf16(std::uint16_t u) { return (u & 0x7FFFu) > 0x7F80u; }

// Upper and lower halves around every boundary of the formats, and some from the middle.
const std::uint16_t kEdges[] = {0x0000, 0x0001, 0x007F, 0x0080, 0x3F7F, 0x3F80, 0x3F81, 0x7F7E, 0x7F7F, 0x7F80,
                                0x7F81, 0x7FBF, 0x7FC0, 0x7FFE, 0x7FFF, 0x8000, 0x8001, 0xBF80, 0xFF7F, 0xFF80,
                                0xFF81, 0xFFC0, 0xFFFE, 0xFFFF, 0x1234, 0xABCD, 0x5555, 0xC0DE};

void check_both_ways(std::uint32_t high, std::uint32_t low) {
  const std::uint32_t u = (high << 16) | low;
  ASSERT_EQ(bits(join_master(split_master(from_bits(u)))), u);
  const SplitFloat any{static_cast<std::uint16_t>(high), static_cast<std::uint16_t>(low)};
  const SplitFloat back = split_master(join_master(any));
  ASSERT_TRUE(back.hi == any.hi && back.lo == any.lo) << std::hex << u;
}

TEST(SplitMaster, IsABijection) {
  for (const std::uint16_t edge : kEdges) {
    for (std::uint32_t other = 0; other < 65536; ++other) {
      ASSERT_NO_FATAL_FAILURE(check_both_ways(edge, other));
      ASSERT_NO_FATAL_FAILURE(check_both_ways(other, edge));
    }
  }
}

TEST(SplitMaster, RoundsHalfAwayFromZero) {
  EXPECT_EQ(split_master(from_bits(0x3F808000)).hi, 0x3F81);  // nearest even would go down
  EXPECT_EQ(split_master(from_bits(0x3F807FFF)).hi, 0x3F80);
  EXPECT_EQ(split_master(from_bits(0x3F818000)).hi, 0x3F82);
  EXPECT_EQ(split_master(from_bits(0xBF808000)).hi, 0xBF81);
  for (const std::uint16_t edge : kEdges) {
    for (std::uint32_t low = 0; low < 65536; ++low) {
      const float master = from_bits((static_cast<std::uint32_t>(edge) << 16) | low);
      if (!std::isfinite(master)) continue;
      const std::uint16_t truncated = edge;
      const std::uint16_t expected = static_cast<std::uint16_t>(low >= 0x8000 ? truncated + 1 : truncated);
      ASSERT_EQ(split_master(master).hi, expected);
    }
  }
}

TEST(SplitMaster, Bf16WithoutRemainderIsItself) {
  for (std::uint32_t hi = 0; hi < 65536; ++hi) {
    EXPECT_EQ(bits(join_master(SplitFloat{static_cast<std::uint16_t>(hi), 0})), hi << 16);
  }
}

TEST(SplitMaster, InfinityAndNanKeepTheirMeaning) {
  EXPECT_EQ(split_master(from_bits(0x7F800000)).hi, 0x7F80);
  EXPECT_EQ(split_master(from_bits(0xFF800000)).hi, 0xFF80);
  // Every quiet NaN, whichever processor made it, must be seen by the model.
  for (std::uint32_t payload = 0; payload < 0x400000u; payload += 0x3FF) {
    EXPECT_TRUE(is_nan_bf16(split_master(from_bits(0x7FC00000u | payload)).hi)) << std::hex << payload;
    EXPECT_TRUE(is_nan_bf16(split_master(from_bits(0xFFC00000u | payload)).hi)) << std::hex << payload;
  }
  EXPECT_TRUE(is_nan_bf16(split_master(from_bits(0x7FFFFFFFu)).hi));
  EXPECT_TRUE(is_nan_bf16(split_master(from_bits(0xFFFFFFFFu)).hi));
}

TEST(StochasticRounding, RoundsUpExactlyAsOftenAsTheDroppedPartSays) {
  for (const std::uint32_t u :
       {0x3F800000u, 0x3F800001u, 0x3F801234u, 0xBF80FFFFu, 0x00000001u, 0x00008000u, 0x41A5C3D2u}) {
    const float value = from_bits(u);
    std::uint32_t ups = 0;
    for (std::uint32_t random = 0; random < 65536; ++random) {
      const std::uint32_t rounded = to_bf16_stochastic(value, static_cast<std::uint16_t>(random)).bits;
      ASSERT_TRUE(rounded == u >> 16 || rounded == (u >> 16) + 1);
      ups += rounded == (u >> 16) + 1;
    }
    EXPECT_EQ(ups, u & 0xFFFFu) << std::hex << u;
  }
}

TEST(StochasticRounding, KeepsSpecialValues) {
  for (std::uint32_t random : {0u, 1u, 0x7FFFu, 0xFFFFu}) {
    const std::uint16_t r = static_cast<std::uint16_t>(random);
    EXPECT_EQ(to_bf16_stochastic(0.0f, r).bits, 0x0000);
    EXPECT_EQ(to_bf16_stochastic(-0.0f, r).bits, 0x8000);
    EXPECT_EQ(to_bf16_stochastic(std::numeric_limits<float>::infinity(), r).bits, 0x7F80);
    EXPECT_EQ(to_bf16_stochastic(-std::numeric_limits<float>::infinity(), r).bits, 0xFF80);
    EXPECT_EQ(to_bf16_stochastic(std::numeric_limits<float>::max(), r).bits, 0x7F7F);
    EXPECT_EQ(to_bf16_stochastic(-std::numeric_limits<float>::max(), r).bits, 0xFF7F);
    for (std::uint32_t nan : {0x7F800001u, 0x7FC00000u, 0x7FFFFFFFu, 0xFFFFFFFFu, 0xFF800001u}) {
      EXPECT_TRUE(is_nan_bf16(to_bf16_stochastic(from_bits(nan), r).bits)) << std::hex << nan;
    }
  }
}

TEST(StochasticRounding, PhiloxDrawsAreUnbiasedAndKeyed) {
  const float value = 1.001f;  // 0.128 of a bf16 step over 1
  const double step = 0x1p-7;
  constexpr int kDraws = 400000;
  const auto mean_error = [&](std::uint64_t key, std::uint32_t param, RoundingStream stream) {
    double sum = 0;
    for (std::uint64_t e = 0; e < kDraws; e += 8) {
      const Philox4 words = rounding_words(key, param, e);
      for (std::uint64_t k = 0; k < 8; ++k)
        sum += to_float(to_bf16_stochastic(value, rounding_bits(words, e + k, stream))) - value;
    }
    return sum / kDraws;
  };
  const double p = (value - 1.0) / step;
  const double sigma = step * std::sqrt(p * (1 - p) / kDraws);
  std::set<double> errors;
  for (std::uint64_t key = 1; key <= 4; ++key) {
    for (std::uint32_t param : {0u, 7u}) {
      const double error = mean_error(key, param, RoundingStream::param);
      EXPECT_LT(std::abs(error), 4 * sigma);
      errors.insert(error);
    }
  }
  EXPECT_GT(errors.size(), 6u);  // of 8: other key or parameter, other bits
}

TEST(StochasticRounding, TheValuesOfAnElementAreRoundedIndependently) {
  constexpr std::uint64_t kDraws = 400000;
  constexpr RoundingStream kStreams[] = {RoundingStream::param, RoundingStream::m, RoundingStream::v};
  double products[3] = {};  // param m, param v, m v; of numbers uniform in +-0.5
  for (std::uint64_t e = 0; e < kDraws; ++e) {
    const Philox4 words = rounding_words(5, 3, e);
    double x[3];
    for (int s = 0; s < 3; ++s) x[s] = (rounding_bits(words, e, kStreams[s]) + 0.5) / 65536.0 - 0.5;
    products[0] += x[0] * x[1];
    products[1] += x[0] * x[2];
    products[2] += x[1] * x[2];
  }
  // The product of two such numbers has mean 0 and deviation 1/12.
  for (double sum : products) EXPECT_LT(std::abs(sum / kDraws), 4.0 / 12.0 / std::sqrt(static_cast<double>(kDraws)));
}

TEST(Moments8Bit, EveryCodeIsAFixedPointWhateverTheBits) {
  const MomentScale v_scale = moment_scale(3.7e-9f, kVCodeMax), m_scale = moment_scale(0.013f, kMCodeMax);
  for (std::uint32_t random : {0u, 1u, 0x8000u, 0xFFFFu}) {
    for (int code = 0; code < 256; ++code) {
      const auto c = static_cast<std::uint8_t>(code);
      const auto r = static_cast<std::uint16_t>(random);
      EXPECT_EQ(encode_v8(decode_v8(c, v_scale.scale), v_scale.inverse, r), c);
      // Below its smallest normal m is rounded at a fixed step, where fp32's own rounding meets the extreme draws.
      if ((code & 0x7F) >= 8 && (code & 0x7F) != 0x7F) {
        EXPECT_EQ(encode_m8(decode_m8(c, m_scale.scale), m_scale.inverse, r), c);
      }
    }
  }
}

TEST(Moments8Bit, CodesAreInOrderAndTheLargestIsTheScale) {
  for (int code = 1; code < 256; ++code) {
    EXPECT_GT(decode_v8(static_cast<std::uint8_t>(code), 1.0f), decode_v8(static_cast<std::uint8_t>(code - 1), 1.0f));
  }
  EXPECT_EQ(decode_v8(255, 1.0f), kVCodeMax);
  for (int code = 1; code < 127; ++code) {
    EXPECT_GT(decode_m8(static_cast<std::uint8_t>(code), 1.0f), decode_m8(static_cast<std::uint8_t>(code - 1), 1.0f));
    EXPECT_EQ(decode_m8(static_cast<std::uint8_t>(code | 0x80), 1.0f),
              -decode_m8(static_cast<std::uint8_t>(code), 1.0f));
  }
  EXPECT_EQ(decode_m8(0x7E, 1.0f), kMCodeMax);
}

TEST(Moments8Bit, RoundingIsUnbiased) {
  const MomentScale v_scale = moment_scale(1.0f, kVCodeMax), m_scale = moment_scale(1.0f, kMCodeMax);
  for (const float x : {0.9123f, 0.5001f, 0.0712f, 1.23e-3f, 4.4e-5f, 1.1e-5f, 2.9e-6f}) {
    double v_sum = 0, m_sum = 0, negative_sum = 0;
    for (std::uint32_t random = 0; random < 65536; ++random) {
      const auto r = static_cast<std::uint16_t>(random);
      v_sum += decode_v8(encode_v8(x, v_scale.inverse, r), v_scale.scale);
      m_sum += decode_m8(encode_m8(x, m_scale.inverse, r), m_scale.scale);
      negative_sum += decode_m8(encode_m8(-x, m_scale.inverse, r), m_scale.scale);
    }
    // All draws together: what 16 bits cannot resolve is left, 2^-17 of a step, and fp32's rounding of the ratio.
    const double v_step = x / 8, m_step = std::max(x / 8, 0x1p-9f / kMCodeMax);
    EXPECT_NEAR(v_sum / 65536, x, v_step * 0x1p-16) << x;
    EXPECT_NEAR(m_sum / 65536, x, m_step * 0x1p-16) << x;
    EXPECT_EQ(negative_sum, -m_sum);
  }
}

TEST(Moments8Bit, ZeroTinyInfinityNan) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (std::uint32_t random : {0u, 0x7FFFu, 0xFFFFu}) {
    const auto r = static_cast<std::uint16_t>(random);
    for (const float max : {0.0f, 1e-44f, 1e-30f, 1.0f, 3e38f, inf}) {
      const MomentScale v_scale = moment_scale(max, kVCodeMax), m_scale = moment_scale(max, kMCodeMax);
      EXPECT_TRUE(std::isfinite(v_scale.scale) && std::isfinite(v_scale.inverse) && v_scale.inverse > 0);
      EXPECT_EQ(encode_v8(0.0f, v_scale.inverse, r), 0);
      EXPECT_EQ(decode_m8(encode_m8(0.0f, m_scale.inverse, r), m_scale.scale), 0.0f);
      EXPECT_EQ(encode_v8(inf, v_scale.inverse, r), 255);
      EXPECT_EQ(encode_v8(nan, v_scale.inverse, r), 255);
      EXPECT_EQ(encode_v8(-nan, v_scale.inverse, r), 255);
      EXPECT_EQ(encode_m8(inf, m_scale.inverse, r), 0x7E);
      EXPECT_EQ(encode_m8(-inf, m_scale.inverse, r), 0xFE);
      EXPECT_TRUE(std::isnan(decode_m8(encode_m8(nan, m_scale.inverse, r), m_scale.scale)));
    }
    // A second moment that is there never reads as none, however far it lies under its block's largest.
    const MomentScale scale = moment_scale(1.0f, kVCodeMax);
    for (const float tiny : {1e-9f, 1e-12f, 1e-30f, 1e-44f})
      EXPECT_GT(decode_v8(encode_v8(tiny, scale.inverse, r), scale.scale), 0.0f);
  }
}

}  // namespace
}  // namespace llmfp8
