// The rules from amax to scale against the goldens, bit for bit: delayed, current and MXFP8 block scaling.
#include "core/fp8_scaling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>

#include "core/bf16.h"
#include "core/float8.h"
#include "support/golden.h"
#include "support/safetensors_lite.h"

namespace llmfp8 {
namespace {

using nlohmann::json;
using testing::SafetensorsLite;

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }
float max_of(const std::string& format) { return format == "e4m3" ? kE4M3Max : kE5M2Max; }

void expect_same_bits(const std::vector<float>& got, const json& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const float wanted = from_bits(want[i].get<std::uint32_t>());
    if (std::isnan(wanted)) {
      ASSERT_TRUE(std::isnan(got[i])) << what << " [" << i << "]";
    } else {
      ASSERT_EQ(bits_of(got[i]), bits_of(wanted)) << what << " [" << i << "]: " << got[i] << ", wanted " << wanted;
    }
  }
}

// One case: every step's scale, and the history where the golden has it.
void run_delayed_case(const json& sequences, const json& item) {
  const std::string sequence = item.at("sequence"), format = item.at("format"), algo = item.at("algo");
  const int length = item.at("history_len"), margin = item.at("margin");
  const std::string what =
      sequence + " length " + std::to_string(length) + " " + algo + " margin " + std::to_string(margin) + " " + format;
  const auto algorithm = algo == "max" ? AmaxAlgorithm::max : AmaxAlgorithm::most_recent;
  const json& amaxes = sequences.at(sequence).at("amax_bits");
  std::vector<float> history(static_cast<std::size_t>(length), 0.0f), scales;
  float scale = 1.0f;
  for (std::size_t step = 0; step < amaxes.size(); ++step) {
    history[0] = from_bits(amaxes[step].get<std::uint32_t>());
    scale = delayed_scale_update(history.data(), length, algorithm, max_of(format), margin, scale);
    scales.push_back(scale);
    if (item.contains("history_bits")) {
      expect_same_bits(history, item.at("history_bits").at(step),
                       what + ", history after step " + std::to_string(step));
    }
  }
  expect_same_bits(scales, item.at("scale_bits"), what + ", scales");
  if (item.contains("final_history_bits"))
    expect_same_bits(history, item.at("final_history_bits"), what + ", last history");
}

TEST(DelayedScaling, EveryFusedTraceOfTheGolden) {
  const json golden = testing::read_json(testing::golden_dir() / "fp8/delayed_scaling.json");
  int cases = 0;
  std::set<int> lengths;
  for (const json& item : golden.at("cases")) {
    if (item.at("update") != "fused") continue;
    ++cases;
    lengths.insert(item.at("history_len").get<int>());
    run_delayed_case(golden.at("sequences"), item);
  }
  EXPECT_GE(cases, 24);
  EXPECT_EQ(lengths, (std::set<int>{1, 16, 1024}));
}

TEST(DelayedScaling, ALengthOfOneUsesThisStepAlone) {
  float history = 4.0f;
  EXPECT_EQ(delayed_scale_update(&history, 1, AmaxAlgorithm::max, 448.0f, 0, 1.0f), 112.0f);
  EXPECT_EQ(history, 0.0f);
  history = 2.0f;
  EXPECT_EQ(delayed_scale_update(&history, 1, AmaxAlgorithm::max, 448.0f, 0, 112.0f), 224.0f);
}

TEST(CurrentScaling, EveryRowOfTheGolden) {
  const json rows = testing::read_json(testing::golden_dir() / "fp8/current_scaling.json");
  ASSERT_GT(rows.size(), 50u);
  for (const json& row : rows) {
    const float amax = from_bits(row.at("amax_bits").get<std::uint32_t>());
    const float scale = current_scale(amax, max_of(row.at("format")), row.at("power_of_two").get<bool>());
    ASSERT_EQ(bits_of(scale), row.at("scale_bits").get<std::uint32_t>()) << row;
    ASSERT_EQ(bits_of(1.0f / scale), row.at("scale_inv_bits").get<std::uint32_t>()) << row;
  }
}

TEST(Amax, CombineIgnoresNanAndKeepsInfinity) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(amax_combine(nan, 3.0f), 3.0f);
  EXPECT_EQ(amax_combine(3.0f, nan), 3.0f);
  EXPECT_EQ(amax_combine(inf, 3.0f), inf);
  EXPECT_EQ(amax_combine(3.0f, inf), inf);
  EXPECT_TRUE(std::isnan(amax_combine(nan, nan)));
}

struct Block {
  std::size_t begin;   // index of its first element
  std::size_t stride;  // from one element to the next
};

// Quantises the 32 elements of one block with the rules of core, and compares them with the golden's.
void check_block(const std::vector<bf16>& x, Block block, DType format, std::uint8_t want_scale,
                 const std::vector<std::uint8_t>& want_codes, const std::string& what) {
  float amax = 0.0f;
  for (std::size_t i = 0; i < 32; ++i)
    amax = amax_combine(amax, std::fabs(to_float(x[block.begin + i * block.stride])));
  const std::uint8_t scale = mx_scale_code(amax, fp8_max(format));
  ASSERT_EQ(int{scale}, int{want_scale}) << what << ", block at " << block.begin << ", amax " << amax;
  for (std::size_t i = 0; i < 32; ++i) {
    const std::size_t at = block.begin + i * block.stride;
    const std::uint8_t got = encode_fp8(to_float(x[at]) * mx_multiplier(scale), format);
    const std::uint8_t want = want_codes[at];
    if (std::isnan(decode_fp8(want, format))) {
      ASSERT_TRUE(std::isnan(decode_fp8(got, format))) << what << ", element " << at;
    } else {
      ASSERT_EQ(int{got}, int{want}) << what << ", element " << at << ": " << to_float(x[at]);
    }
  }
}

TEST(Mxfp8, EveryBlockOfTheGoldenInBothDirections) {
  const SafetensorsLite golden(testing::golden_dir() / "fp8/mxfp8.safetensors");
  int matrices = 0;
  for (const std::string& name : golden.names()) {
    if (!name.ends_with(".x")) continue;
    ++matrices;
    const std::string stem = name.substr(0, name.size() - 2);
    const auto x = golden.read<bf16>(name);  // [rows, cols]
    const auto rows = static_cast<std::size_t>(golden.shape(name)[0]),
               cols = static_cast<std::size_t>(golden.shape(name)[1]);
    for (const auto& [format, format_name] : {std::pair{DType::e4m3, "e4m3"}, std::pair{DType::e5m2, "e5m2"}}) {
      const std::string row = stem + "." + format_name + ".row", col = stem + "." + format_name + ".col";
      const auto row_codes = golden.read<std::uint8_t>(row + ".codes"),
                 row_scales = golden.read<std::uint8_t>(row + ".scales");
      const auto col_codes = golden.read<std::uint8_t>(col + ".codes"),
                 col_scales = golden.read<std::uint8_t>(col + ".scales");
      for (std::size_t block = 0; block < row_scales.size(); ++block) {
        check_block(x, {block * 32, 1}, format, row_scales[block], row_codes, row);
      }
      for (std::size_t block = 0; block < col_scales.size(); ++block) {
        check_block(x, {block / cols * 32 * cols + block % cols, cols}, format, col_scales[block], col_codes, col);
      }
      ASSERT_EQ(row_scales.size() * 32, rows * cols);
      ASSERT_EQ(col_scales.size() * 32, rows * cols);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
  EXPECT_GE(matrices, 7);
}

TEST(Mxfp8, ScaleOfEveryBf16AmaxIsTheSmallestPowerOfTwoThatFits) {
  for (const DType format : {DType::e4m3, DType::e5m2}) {
    for (std::uint32_t pattern = 1; pattern < 0x7F80; ++pattern) {
      const double amax = to_float(bf16{static_cast<std::uint16_t>(pattern)});
      const int wanted = std::max(0, static_cast<int>(std::ceil(std::log2(amax / fp8_max(format)))) + 127);
      ASSERT_EQ(int{mx_scale_code(static_cast<float>(amax), fp8_max(format))}, wanted) << "bf16 pattern " << pattern;
    }
  }
}

}  // namespace
}  // namespace llmfp8
