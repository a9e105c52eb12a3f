// Learning rates against HF transformers' (golden) and against the formulas' fixed points.
#include "optim/lr_schedule.h"

#include <gtest/gtest.h>

#include "support/golden.h"

namespace llmfp8 {
namespace {

TEST(LrSchedule, LinearIsIdenticalToTheGoldenRates) {
  const nlohmann::json cases = testing::read_json(testing::golden_dir() / "schedule" / "linear.json");
  ASSERT_FALSE(cases.empty());
  for (const nlohmann::json& c : cases) {
    const LrSchedule schedule{LrScheduler::linear, c.at("base_lr"), c.at("warmup_steps"), c.at("total_steps")};
    const auto& rates = c.at("lr");
    for (std::size_t k = 0; k < rates.size(); ++k) {
      EXPECT_EQ(learning_rate(schedule, static_cast<std::int64_t>(k)), rates[k].get<double>()) << c << " step " << k;
    }
  }
}

// get_cosine_schedule_with_warmup(num_warmup_steps=3, num_training_steps=10), base 1e-3, evaluated in CPython.
TEST(LrSchedule, CosineFollowsTheFormulaOfTransformers) {
  const LrSchedule schedule{LrScheduler::cosine, 1e-3, 3, 10};
  const double expected[] = {0.0,
                             0.0003333333333333333,
                             0.0006666666666666666,
                             0.001,
                             0.0009504844339512095,
                             0.0008117449009293668,
                             0.0006112604669781572,
                             0.00038873953302184284,
                             0.00018825509907063325,
                             4.9515566048790485e-05,
                             0.0,
                             4.951556604879043e-05,
                             0.00018825509907063315};
  for (std::size_t k = 0; k < std::size(expected); ++k) {
    // The last bit belongs to the C library's cosine.
    EXPECT_NEAR(learning_rate(schedule, static_cast<std::int64_t>(k)), expected[k], 1e-18) << "step " << k;
  }
}

TEST(LrSchedule, ConstantStaysAfterTheWarmup) {
  const LrSchedule schedule{LrScheduler::constant, 2e-5, 4, 10};
  EXPECT_EQ(learning_rate(schedule, 0), 0.0);
  EXPECT_EQ(learning_rate(schedule, 1), 2e-5 * 0.25);
  for (std::int64_t k = 4; k < 15; ++k) EXPECT_EQ(learning_rate(schedule, k), 2e-5);
}

TEST(LrSchedule, NoWarmupAndNoStepsDivideByNothing) {
  EXPECT_EQ(learning_rate({LrScheduler::linear, 1e-3, 0, 0}, 0), 0.0);
  EXPECT_EQ(learning_rate({LrScheduler::cosine, 1e-3, 0, 0}, 0), 1e-3);
  EXPECT_EQ(learning_rate({LrScheduler::constant, 1e-3, 0, 0}, 0), 1e-3);
}

}  // namespace
}  // namespace llmfp8
