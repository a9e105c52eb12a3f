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

TEST(Precision, Mxfp8IsEmulatedOnlyWhereItIsAskedForAndMissing) {
  RunConfig config;
  config.mixed_precision = MixedPrecision::fp8;
  config.fp8_scenario = Fp8Scenario::mxfp8;
  Capabilities hopper;
  hopper.fp8_tensor.available = true;
  hopper.mxfp8 = {false, "MXFP8 needs more", true};
  PrecisionChoice choice = choose_precision(config, hopper);
  EXPECT_EQ(choice.recipe, RecipeKind::standard);
  EXPECT_EQ(choice.fallback, "recipe mxfp8 cannot run here (MXFP8 needs more); the default recipe runs instead (--fp8_emulate runs it, slowly)");

  config.fp8_emulate = true;
  config.fp8_strict = true;  // nothing falls back
  choice = choose_precision(config, hopper);
  EXPECT_EQ(choice.recipe, RecipeKind::mxfp8);
  EXPECT_TRUE(choice.fallback.empty());
  EXPECT_EQ(choice.description, "fp8 (mxfp8)");
  EXPECT_EQ(choice.notes, std::vector<std::string>{
      "--fp8_emulate: recipe mxfp8 runs exactly on bf16 images of its codes, slowly (MXFP8 needs more)"});

  hopper.mxfp8.can_emulate = false;
  EXPECT_THROW(choose_precision(config, hopper), Error);
  EXPECT_TRUE(choose_precision(config, emulating_device()).notes.empty());
}

}  // namespace
}  // namespace llmfp8
