#include "hub/convert.h"

#include <cmath>

#include "core/bf16.h"
#include "hub_test_util.h"

namespace llmfp8 {
namespace {

// By the definition: sign, exponent, fraction.
double f16_value(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  double value = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  if (exponent == 31) value = fraction == 0 ? INFINITY : NAN;
  return (bits & 0x8000) != 0 ? -value : value;
}

TEST(Convert, EveryHalfIsExactAndComesBack) {
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const float value = f16_bits_to_float(bits);
    const double wanted = f16_value(bits);
    if (std::isnan(wanted)) {
      ASSERT_TRUE(std::isnan(value)) << i;
      ASSERT_EQ(float_to_f16_bits(value) & 0x7E00, 0x7E00) << i;
    } else {
      ASSERT_EQ(static_cast<double>(value), wanted) << i;
      ASSERT_EQ(std::signbit(value), std::signbit(wanted)) << i;
      ASSERT_EQ(float_to_f16_bits(value), bits) << i;
    }
  }
}

TEST(Convert, RoundsToTheNearestHalfTiesToEven) {
  for (int i = 0; i < 0x7BFF; ++i) {
    const double low = f16_value(static_cast<std::uint16_t>(i));
    const double high = f16_value(static_cast<std::uint16_t>(i + 1));
    const auto middle = static_cast<float>((low + high) / 2);  // exact: one bit more than a half has
    ASSERT_EQ(float_to_f16_bits(middle), i + (i & 1)) << i;
    ASSERT_EQ(float_to_f16_bits(std::nextafter(middle, 0.0f)), i) << i;
    ASSERT_EQ(float_to_f16_bits(std::nextafter(middle, 1e9f)), i + 1) << i;
  }
  EXPECT_EQ(float_to_f16_bits(65519.9f), 0x7BFF);
  EXPECT_EQ(float_to_f16_bits(65520.0f), 0x7C00);
  EXPECT_EQ(float_to_f16_bits(-1e30f), 0xFC00);
}

TEST(Convert, AllPairsFromUnalignedBytes) {
  const std::vector<float> values = {1.0f, -2.5f, 0.0f, 1.00390625f, 65504.0f};
  for (const DType from : {DType::f32, DType::f16, DType::bf16}) {
    for (const DType to : {DType::f32, DType::f16, DType::bf16}) {
      std::string source(1 + values.size() * size_bytes(from), '\0');
      convert_elements(values.data(), DType::f32, source.data() + 1, from, values.size());
      std::string target(1 + values.size() * size_bytes(to), '\0');
      convert_elements(source.data() + 1, from, target.data() + 1, to, values.size());
      std::vector<float> stored(values.size());
      std::vector<float> result(values.size());
      convert_elements(source.data() + 1, from, stored.data(), DType::f32, values.size());
      convert_elements(target.data() + 1, to, result.data(), DType::f32, values.size());
      for (std::size_t i = 0; i < values.size(); ++i) {
        const float wanted = to == DType::f32   ? stored[i]
                             : to == DType::f16 ? f16_bits_to_float(float_to_f16_bits(stored[i]))
                                                : to_float(to_bf16(stored[i]));
        EXPECT_EQ(result[i], wanted);
      }
    }
  }
  EXPECT_TRUE(testing::contains(testing::error_of([] {
                                  std::int64_t in = 0;
                                  float out = 0;
                                  convert_elements(&in, DType::i64, &out, DType::f32, 1);
                                }),
                                "cannot convert i64 to f32"));
}

}  // namespace
}  // namespace llmfp8
