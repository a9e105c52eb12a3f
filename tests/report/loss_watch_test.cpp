// When a loss counts as a spike, and that a row of them is one warning.
#include "report/loss_watch.h"

#include <gtest/gtest.h>

namespace llmfp8 {
namespace {

// 1 and 1.2 in turn: mean 1.1, deviation 0.1.
double wave(int i) { return i % 2 == 0 ? 1.0 : 1.2; }

TEST(LossWatch, SaysNothingOfOrdinaryLossesAndBeforeItKnowsThem) {
  LossWatch watch;
  EXPECT_FALSE(watch.add(50.0));
  for (int i = 0; i < 300; ++i) EXPECT_FALSE(watch.add(wave(i))) << i;
  EXPECT_FALSE(watch.add(1.65));  // 5.5 deviations
  EXPECT_EQ(watch.spikes(), 0);
}

TEST(LossWatch, NamesASpikeOnceForARowOfThem) {
  LossWatch watch;
  for (int i = 0; i < 100; ++i) watch.add(wave(i));
  const auto spike = watch.add(2.1);
  ASSERT_TRUE(spike);
  EXPECT_TRUE(spike->is_first);
  EXPECT_EQ(spike->steps, 100);
  EXPECT_NEAR(spike->mean, 1.1, 1e-12);
  EXPECT_NEAR(spike->deviations, 1.0 / 0.1005, 0.01);  // the sample's deviation: 0.1 * sqrt(100 / 99)
  const auto next = watch.add(4.0);
  ASSERT_TRUE(next);
  EXPECT_FALSE(next->is_first);
  for (int i = 0; i < 200; ++i) EXPECT_FALSE(watch.add(wave(i)));
  EXPECT_TRUE(watch.add(3.0)->is_first);
  EXPECT_EQ(watch.spikes(), 3);
}

TEST(LossWatch, AFlatLossIsNoReasonForAlarm) {
  LossWatch watch;
  for (int i = 0; i < 100; ++i) watch.add(1.0);
  EXPECT_FALSE(watch.add(1.005));
  EXPECT_TRUE(watch.add(1.1));
}

}  // namespace
}  // namespace llmfp8
