// From flags to the recipe that runs, and what is said about it.
#include "train/precision.h"

#include <gtest/gtest.h>

namespace llmfp8 {
namespace {

Capabilities emulating_device() {
  Capabilities device;
  device.fp8_tensor.available = device.mxfp8.available = true;
  return device;
}

TEST(Precision, UseTeStartsWithScaleOneWhereScalingIsDelayed) {
  RunConfig config;
  config.use_te = true;
  config.mixed_precision = MixedPrecision::fp8;
  for (const auto& [scenario, start] : std::initializer_list<std::pair<Fp8Scenario, Fp8Start>>{
           {Fp8Scenario::default_, Fp8Start::te},
           {Fp8Scenario::hybrid, Fp8Start::te},
           {Fp8Scenario::mxfp8, Fp8Start::calibrate},
           {Fp8Scenario::current, Fp8Start::calibrate}}) {
    config.fp8_scenario = scenario;
    const PrecisionChoice choice = choose_precision(config, emulating_device());
    EXPECT_EQ(choice.fp8_start, start);
    ASSERT_EQ(choice.notes.size(), 1u);
    EXPECT_EQ(choice.notes[0].find("--fp8_start te") != std::string::npos, start == Fp8Start::te) << choice.notes[0];
  }
  // What was typed stays.
  config.fp8_scenario = Fp8Scenario::default_;
  config.sources["fp8_start"] = ValueSource::command_line;
  EXPECT_EQ(choose_precision(config, emulating_device()).fp8_start, Fp8Start::calibrate);
  config.use_te = false;
  EXPECT_TRUE(choose_precision(config, emulating_device()).notes.empty());
}

TEST(Precision, UseTeWithoutFp8IsSaidToHaveNoEffect) {
  RunConfig config;
  config.use_te = true;
  for (const MixedPrecision precision : {MixedPrecision::bf16, MixedPrecision::fp32}) {
    config.mixed_precision = precision;
    EXPECT_EQ(choose_precision(config, emulating_device()).notes,
              std::vector<std::string>{"--use_te: no effect without --mixed_precision fp8"});
  }
  // The recipe fell back to bf16: its own sentence says so.
  config.mixed_precision = MixedPrecision::fp8;
  const PrecisionChoice choice = choose_precision(config, Capabilities());
  EXPECT_EQ(choice.recipe, RecipeKind::none);
  EXPECT_FALSE(choice.fallback.empty());
  EXPECT_TRUE(choice.notes.empty());
}

}  // namespace
}  // namespace llmfp8
