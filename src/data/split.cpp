// Splits and orders by numpy's permutation. Called by the trainer and batch_loader.
#include "data/split.h"

#include <array>
#include <cmath>

#include "core/error.h"
#include "data/numpy_rng.h"

namespace llmfp8 {

namespace {
constexpr std::uint64_t kSplitStream = UINT64_MAX;  // beside the epochs'
}

SplitRows train_test_split(std::int64_t n, double test_fraction, std::uint64_t seed, std::int64_t most_listed) {
  CHECK(test_fraction > 0 && test_fraction < 1, "the held-out share is {}; it must lie between 0 and 1", test_fraction);
  return train_test_split_rows(n, static_cast<std::int64_t>(std::ceil(test_fraction * static_cast<double>(n))), seed, most_listed);
}

SplitRows train_test_split_rows(std::int64_t n, std::int64_t test_rows, std::uint64_t seed, std::int64_t most_listed) {
  CHECK(n >= 2, "{} row(s) cannot be split into a training and a held-out part; at least 2 are needed", n);
  CHECK(test_rows >= 1 && test_rows < n, "{} of {} rows held out; it must be from 1 to {}", test_rows, n, n - 1);
  if (n > most_listed) {
    const KeyedPermutation order(n, seed, kSplitStream);
    return SplitRows{{order, test_rows, n - test_rows}, {order, 0, test_rows}};
  }
  const std::vector<std::int64_t> order = shuffled_order(n, seed);
  const auto test = static_cast<std::size_t>(test_rows);
  return SplitRows{std::span(order).subspan(test), std::span(order).first(test)};
}

std::vector<std::int64_t> shuffled_order(std::int64_t n, std::uint64_t seed) {
  return NumpyGenerator(seed).permutation(n);
}

std::vector<std::int64_t> epoch_order(std::int64_t n, std::uint64_t seed, std::uint64_t epoch) {
  const std::array<std::uint64_t, 2> entropy{seed, epoch};
  return NumpyGenerator(SeedSequence(entropy)).permutation(n);
}

RowSequence epoch_rows(std::int64_t n, std::uint64_t seed, std::uint64_t epoch, std::int64_t most_listed) {
  if (n > most_listed) return {KeyedPermutation(n, seed, epoch), 0, n};
  return epoch_order(n, seed, epoch);
}

}  // namespace llmfp8
