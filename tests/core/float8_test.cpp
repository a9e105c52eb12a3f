// The number formats against the goldens, bit for bit: every bf16 pattern, every code, fp32 values around every tie.
#include "core/float8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/bf16.h"
#include "support/golden.h"
#include "support/safetensors_lite.h"

namespace llmfp8 {
namespace {

using testing::SafetensorsLite;

const SafetensorsLite& casts() {
  static const SafetensorsLite file(testing::golden_dir() / "fp8/casts.safetensors");
  return file;
}

float bf16_pattern(std::size_t bits) { return to_float(bf16{static_cast<std::uint16_t>(bits)}); }

struct Format {
  DType dtype;
  const char* name;
};

void PrintTo(const Format& format, std::ostream* out) { *out << format.name; }

class Float8 : public ::testing::TestWithParam<Format> {};

TEST_P(Float8, EveryBf16PatternEncodesAsTheGolden) {
  const auto want = casts().read<std::uint8_t>(std::string(GetParam().name) + "_sat");
  ASSERT_EQ(want.size(), 65536u);
  for (std::size_t bits = 0; bits < want.size(); ++bits) {
    const std::uint8_t got = encode_fp8(bf16_pattern(bits), GetParam().dtype);
    // NaN compares by class in the goldens; this engine promises 0x7F, which they store.
    ASSERT_EQ(int{got}, int{want[bits]}) << "bf16 pattern " << bits;
  }
}

TEST_P(Float8, Fp32ValuesAroundEveryTieEncodeAsTheGolden) {
  const auto in = casts().read<float>("f32_in");
  const auto want = casts().read<std::uint8_t>(std::string("f32_to_") + GetParam().name + "_sat");
  ASSERT_EQ(in.size(), want.size());
  for (std::size_t i = 0; i < in.size(); ++i) {
    ASSERT_EQ(int{encode_fp8(in[i], GetParam().dtype)}, int{want[i]}) << "value " << in[i];
  }
}

TEST_P(Float8, EveryCodeDecodesAsTheGolden) {
  const auto want = casts().read<float>(std::string("decode_") + GetParam().name);
  ASSERT_EQ(want.size(), 256u);
  for (std::size_t code = 0; code < want.size(); ++code) {
    const float got = decode_fp8(static_cast<std::uint8_t>(code), GetParam().dtype);
    if (std::isnan(want[code])) {
      ASSERT_TRUE(std::isnan(got)) << "code " << code;
    } else {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(got), std::bit_cast<std::uint32_t>(want[code])) << "code " << code;
    }
  }
}

TEST_P(Float8, EveryFiniteCodeSurvivesARoundTripAndIsExactInBf16) {
  for (int code = 0; code < 256; ++code) {
    const float value = decode_fp8(static_cast<std::uint8_t>(code), GetParam().dtype);
    if (!std::isfinite(value)) continue;
    EXPECT_EQ(int{encode_fp8(value, GetParam().dtype)}, code);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(to_float(to_bf16(value))), std::bit_cast<std::uint32_t>(value)) << code;
  }
}

TEST_P(Float8, OverflowAndInfinitySaturateAndKeepTheirSign) {
  const float max = fp8_max(GetParam().dtype);
  const float inf = std::numeric_limits<float>::infinity();
  for (float value : {max, std::nextafter(max, inf), 2 * max, std::numeric_limits<float>::max(), inf}) {
    EXPECT_EQ(decode_fp8(encode_fp8(value, GetParam().dtype), GetParam().dtype), max) << value;
    EXPECT_EQ(decode_fp8(encode_fp8(-value, GetParam().dtype), GetParam().dtype), -max) << value;
  }
  EXPECT_EQ(int{encode_fp8(-0.0f, GetParam().dtype)}, 0x80);
  EXPECT_EQ(int{encode_fp8(-std::numeric_limits<float>::denorm_min(), GetParam().dtype)}, 0x80);
}

INSTANTIATE_TEST_SUITE_P(Formats, Float8, ::testing::Values(Format{DType::e4m3, "e4m3"}, Format{DType::e5m2, "e5m2"}),
                         [](const auto& test) { return test.param.name; });

TEST(E8M0, EveryCodeDecodesAsTheGolden) {
  const auto want = casts().read<float>("decode_e8m0");
  ASSERT_EQ(want.size(), 256u);
  for (std::size_t code = 0; code < 255; ++code) {
    EXPECT_EQ(decode_e8m0(static_cast<std::uint8_t>(code)), want[code]) << "code " << code;
  }
  EXPECT_TRUE(std::isnan(want[255]));
  EXPECT_TRUE(std::isnan(decode_e8m0(255)));
}

TEST(Bf16, RoundsAsTheGolden) {
  const auto in = casts().read<float>("f32_in");
  const auto want = casts().read<std::uint16_t>("f32_to_bf16");
  ASSERT_EQ(in.size(), want.size());
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (std::isnan(in[i])) {
      EXPECT_TRUE(std::isnan(to_float(to_bf16(in[i]))));
    } else {
      ASSERT_EQ(to_bf16(in[i]).bits, want[i]) << "value " << in[i];
    }
  }
}

TEST(Bf16, EveryPatternSurvivesFp32AndNanStaysNan) {
  for (std::size_t bits = 0; bits < 65536; ++bits) {
    const float value = bf16_pattern(bits);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(to_float(to_bf16(value)))) << bits;
    } else {
      EXPECT_EQ(to_bf16(value).bits, bits);
    }
  }
  // The bits that bf16 keeps of these NaNs are all zero: a plain rounding would make infinity, or minus zero.
  for (std::uint32_t bits : {0x7F800001u, 0xFF800001u, 0x7FFFFFFFu, 0xFFFFFFFFu}) {
    EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(bits))))) << bits;
  }
}

}  // namespace
}  // namespace llmfp8
