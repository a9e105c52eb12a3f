// FP8 stays close to BF16, the short form: a tiny model learns sums for 60 steps in every recipe. `make demo-recipes` is the
// long form, on the demo's model and data.
#include <numeric>

#include <gtest/gtest.h>

#include "e2e/workshop.h"

namespace llmfp8::testing {
namespace {

constexpr double kClose = 0.03;

double mean_of_last_ten(const std::vector<double>& losses) {
  return std::accumulate(losses.end() - 10, losses.end(), 0.0) / 10.0;
}

std::vector<double> losses_of(const std::string& golden, const Args& precision) {
  Workshop shop;
  shop.model(golden);
  shop.text_rows(600);
  Args flags = {"--batch_size",       "8", "--max_steps",     "60", "--learning_rate", "1e-3",
                "--num_warmup_steps", "5", "--eval_max_rows", "8"};
  flags.insert(flags.end(), precision.begin(), precision.end());
  const Finished run = run_program("train_fp8", shop.args(flags));
  EXPECT_EQ(run.code, 0) << run.err;
  return metric(shop.output(), "Train/Loss");
}

class Recipes : public ::testing::TestWithParam<const char*> {};

TEST_P(Recipes, LastTenStepsWithinThreePercentOfBf16) {
  const std::vector<double> bf16 = losses_of(GetParam(), {"--mixed_precision", "bf16"});
  ASSERT_EQ(bf16.size(), 60u);
  const double wanted = mean_of_last_ten(bf16);
  // It must have learnt something, or being close means nothing.
  ASSERT_LT(wanted, 0.5 * bf16.front());
  for (const char* recipe : {"default", "hybrid", "mxfp8", "current"}) {
    const std::vector<double> fp8 = losses_of(GetParam(), {"--mixed_precision", "fp8", "--fp8_scenario", recipe, "--fp8_emulate"});
    ASSERT_EQ(fp8.size(), 60u);
    EXPECT_NEAR(mean_of_last_ten(fp8), wanted, kClose * wanted) << recipe;
    EXPECT_NE(fp8, bf16) << recipe << " ran in bf16";
    std::printf("%s %s: %.4f, bf16 %.4f (%+.2f %%)\n", GetParam(), recipe, mean_of_last_ten(fp8), wanted,
                100.0 * (mean_of_last_ten(fp8) / wanted - 1.0));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Recipes, ::testing::Values("llama_tied", "llama_untied", "qwen2"));

}  // namespace
}  // namespace llmfp8::testing
