// Which rows are held out and in which order rows come: the rules of HF `datasets` on numpy's generator. Called by the
// trainer (split) and batch_loader (orders).
#pragma once

#include <cstdint>
#include <vector>

namespace llmfp8 {

// Row numbers of the data set; the train part is in the order that HF gives it.
struct SplitRows {
  std::vector<std::int64_t> train;
  std::vector<std::int64_t> test;
};

// datasets.train_test_split(test_size=fraction, seed=seed): test has ceil(fraction * n) rows. Throws Error if a part
// would be empty, or if n is above 2^31.
SplitRows train_test_split(std::int64_t n, double test_fraction, std::uint64_t seed);
// The same with a number of test rows.
SplitRows train_test_split_rows(std::int64_t n, std::int64_t test_rows, std::uint64_t seed);
// datasets.shuffle(seed): numpy.random.default_rng(seed).permutation(n).
std::vector<std::int64_t> shuffled_order(std::int64_t n, std::uint64_t seed);
// The order of one epoch: numpy.random.default_rng([seed, epoch]).permutation(n).
std::vector<std::int64_t> epoch_order(std::int64_t n, std::uint64_t seed, std::uint64_t epoch);

}  // namespace llmfp8
