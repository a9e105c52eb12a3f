// parallel_for covers every item once, cuts deterministically, hands exceptions on and may be nested.
#include "core/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <vector>

namespace llmfp8 {
namespace {

using Ranges = std::set<std::pair<std::int64_t, std::int64_t>>;

Ranges ranges_of(std::int64_t count, std::int64_t grain) {
  Ranges ranges;
  std::mutex mutex;
  parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::lock_guard lock(mutex);
    ranges.emplace(begin, end);
  });
  return ranges;
}

class ThreadPool : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_num_threads(GetParam()); }
  void TearDown() override { set_num_threads(before_); }

 private:
  int before_ = num_threads();
};

TEST_P(ThreadPool, RangesAreDisjointAndCoverEverything) {
  for (std::int64_t count : {0, 1, 2, 3, 7, 64, 1000, 1001}) {
    for (std::int64_t grain : {1, 2, 5, 64, 5000}) {
      std::int64_t next = 0;
      for (const auto& [begin, end] : ranges_of(count, grain)) {
        EXPECT_EQ(begin, next) << "count " << count << ", grain " << grain;
        EXPECT_LT(begin, end);
        next = end;
      }
      EXPECT_EQ(next, count) << "grain " << grain;
    }
  }
}

TEST_P(ThreadPool, NoRangeIsShorterThanTheGrain) {
  for (std::int64_t count : {5, 7, 64, 1000}) {
    for (std::int64_t grain : {1, 2, 4, 6, 65}) {
      for (const auto& [begin, end] : ranges_of(count, grain)) {
        EXPECT_GE(end - begin, std::min(grain, count)) << "count " << count << ", grain " << grain;
      }
    }
  }
}

TEST_P(ThreadPool, TheCutIsTheSameEveryTime) {
  const Ranges first = ranges_of(12345, 17);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(ranges_of(12345, 17), first);
  EXPECT_LE(first.size(), static_cast<std::size_t>(GetParam()));
}

TEST_P(ThreadPool, AnExceptionReachesTheCaller) {
  const auto throwing = [](std::int64_t begin, std::int64_t) {
    if (begin == 0) throw std::runtime_error("from a worker");
  };
  EXPECT_THROW(parallel_for(100, 1, throwing), std::runtime_error);
  EXPECT_EQ(ranges_of(100, 1).size(), std::min<std::size_t>(100, static_cast<std::size_t>(GetParam())));
}

TEST_P(ThreadPool, NestedLoopsDoAllTheWork) {
  std::atomic<std::int64_t> items{0};
  parallel_for(8, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      parallel_for(10, 1, [&](std::int64_t b, std::int64_t e) { items += e - b; });
    }
  });
  EXPECT_EQ(items, 80);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPool, ::testing::Values(1, 2, 3, 8));

}  // namespace
}  // namespace llmfp8
