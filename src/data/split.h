// Which rows are held out and in which order rows come: the rules of HF `datasets` on numpy's generator. Called by the
// trainer (split) and batch_loader (orders).
#pragma once

#include <cstdint>
#include <vector>

#include "data/row_sequence.h"

namespace llmfp8 {

// Row numbers of the data set; the train part is in the order that HF gives it.
struct SplitRows {
  RowSequence train;
  RowSequence test;
};

// Of more rows than this no list is made: split and order are keyed permutations, not numpy's.
inline constexpr std::int64_t kMostListedRows = std::int64_t{1} << 31;

// datasets.train_test_split(test_size=fraction, seed=seed): test has ceil(fraction * n) rows. Throws Error if a part
// would be empty. most_listed: for tests.
SplitRows train_test_split(std::int64_t n, double test_fraction, std::uint64_t seed, std::int64_t most_listed = kMostListedRows);
// The same with a number of test rows.
SplitRows train_test_split_rows(std::int64_t n, std::int64_t test_rows, std::uint64_t seed, std::int64_t most_listed = kMostListedRows);
// datasets.shuffle(seed): numpy.random.default_rng(seed).permutation(n).
std::vector<std::int64_t> shuffled_order(std::int64_t n, std::uint64_t seed);
// The order of one epoch: numpy.random.default_rng([seed, epoch]).permutation(n).
std::vector<std::int64_t> epoch_order(std::int64_t n, std::uint64_t seed, std::uint64_t epoch);
// The same, of more rows the keyed permutation of seed and epoch.
RowSequence epoch_rows(std::int64_t n, std::uint64_t seed, std::uint64_t epoch, std::int64_t most_listed = kMostListedRows);

}  // namespace llmfp8
