// Splits and orders by numpy's permutation. Called by the trainer and batch_loader.
#include "data/split.h"

#include <array>
#include <cmath>

#include "core/error.h"
#include "data/numpy_rng.h"

namespace llmfp8 {

SplitRows train_test_split(std::int64_t n, double test_fraction, std::uint64_t seed) {
  CHECK(test_fraction > 0 && test_fraction < 1, "the held-out share is {}; it must lie between 0 and 1", test_fraction);
  return train_test_split_rows(n, static_cast<std::int64_t>(std::ceil(test_fraction * static_cast<double>(n))), seed);
}

SplitRows train_test_split_rows(std::int64_t n, std::int64_t test_rows, std::uint64_t seed) {
  CHECK(n >= 2, "{} row(s) cannot be split into a training and a held-out part; at least 2 are needed", n);
  CHECK(test_rows >= 1 && test_rows < n, "{} of {} rows held out; it must be from 1 to {}", test_rows, n, n - 1);
  const std::vector<std::int64_t> order = shuffled_order(n, seed);
  return SplitRows{{order.begin() + test_rows, order.end()}, {order.begin(), order.begin() + test_rows}};
}

std::vector<std::int64_t> shuffled_order(std::int64_t n, std::uint64_t seed) {
  return NumpyGenerator(seed).permutation(n);
}

std::vector<std::int64_t> epoch_order(std::int64_t n, std::uint64_t seed, std::uint64_t epoch) {
  const std::array<std::uint64_t, 2> entropy{seed, epoch};
  return NumpyGenerator(SeedSequence(entropy)).permutation(n);
}

}  // namespace llmfp8
