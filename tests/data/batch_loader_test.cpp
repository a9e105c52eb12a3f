// Micro-batches: every row exactly once an epoch whatever the cut, layout of the arrays, capacities, packing, resuming.
#include "data/batch_loader.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <numbers>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/rng.h"
#include "data/packing.h"
#include "data/split.h"

namespace llmfp8 {
namespace {

// Rows of 1 … max_length tokens; token t of row r is 1000 * r + t, and every third token is not learnt.
TokenStore make_store(std::int64_t rows, std::int64_t max_length) {
  std::vector<TokenizedRow> store;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t length = 1 + philox4x32(7, static_cast<std::uint64_t>(r), 0).x[0] % max_length;
    TokenizedRow row;
    for (std::int64_t t = 0; t < length; ++t) row.ids.push_back(static_cast<std::int32_t>(1000 * r + t));
    for (std::int64_t t = 0; t < length; ++t)
      row.labels.push_back(t + 1 < length && t % 3 != 2 ? row.ids[static_cast<std::size_t>(t + 1)] : kIgnoreLabel);
    store.push_back(row);
  }
  return store_in_memory(store);
}

BatchLoaderOptions options_of(std::int64_t batch_size, std::int64_t accumulation, std::int64_t world_size = 1) {
  BatchLoaderOptions options;
  options.batch_size = batch_size;
  options.accumulation = accumulation;
  options.world_size = world_size;
  options.max_seq_length = 64;
  return options;
}

std::vector<HostBatch> batches_of_step(const TokenStore& store, BatchLoaderOptions options, std::int64_t epoch, std::int64_t step) {
  std::vector<HostBatch> batches;
  for (options.rank = 0; options.rank < options.world_size; ++options.rank) {
    const BatchLoader loader(store, options);
    for (std::int64_t m = 0; m < loader.micro_batches(epoch, step); ++m) batches.push_back(loader.load(epoch, step, m));
  }
  return batches;
}

std::vector<std::int64_t> sorted_rows(const std::vector<HostBatch>& batches) {
  std::vector<std::int64_t> rows;
  for (const auto& batch : batches) rows.insert(rows.end(), batch.rows.begin(), batch.rows.end());
  std::sort(rows.begin(), rows.end());
  return rows;
}

void check_layout(const TokenStore& store, const HostBatch& batch, const BatchLoader& loader) {
  const auto n = static_cast<std::size_t>(batch.counts.num_tokens);
  const auto& caps = loader.capacities();
  ASSERT_NE(std::find(caps.begin(), caps.end(), batch.capacity), caps.end());
  const auto capacity = static_cast<std::size_t>(batch.capacity);
  ASSERT_GE(n, 1u);
  ASSERT_LE(n, capacity);
  for (const auto* array : {&batch.tokens, &batch.labels, &batch.positions, &batch.supervised_rows})
    ASSERT_EQ(array->size(), capacity);
  ASSERT_EQ(batch.cu_seqlens.size(), static_cast<std::size_t>(loader.max_docs()) + 1);
  ASSERT_EQ(batch.counts.num_docs, static_cast<std::int32_t>(batch.rows.size()));
  std::vector<std::int32_t> supervised;
  for (std::size_t doc = 0; doc < batch.rows.size(); ++doc) {
    const auto ids = store.ids(batch.rows[doc]);
    const auto labels = store.labels(batch.rows[doc]);
    const auto start = static_cast<std::size_t>(batch.cu_seqlens[doc]);
    ASSERT_EQ(static_cast<std::size_t>(batch.cu_seqlens[doc + 1]) - start, ids.size());
    for (std::size_t t = 0; t < ids.size(); ++t) {
      ASSERT_EQ(batch.tokens[start + t], ids[t]);
      ASSERT_EQ(batch.labels[start + t], labels[t]);
      ASSERT_EQ(batch.positions[start + t], static_cast<std::int32_t>(t));
      if (labels[t] != kIgnoreLabel) supervised.push_back(static_cast<std::int32_t>(start + t));
    }
    ASSERT_LE(static_cast<std::int32_t>(ids.size()), batch.max_doc_tokens);
  }
  for (std::size_t doc = batch.rows.size(); doc < batch.cu_seqlens.size(); ++doc)
    ASSERT_EQ(batch.cu_seqlens[doc], batch.counts.num_tokens);
  ASSERT_EQ(batch.counts.num_supervised, static_cast<std::int32_t>(supervised.size()));
  ASSERT_TRUE(std::equal(supervised.begin(), supervised.end(), batch.supervised_rows.begin()));
}

TEST(BatchLoader, AnyCutOfAStepCoversTheSameRows) {
  const TokenStore store = make_store(101, 64);
  const auto reference = options_of(24, 1);
  for (const auto& [batch, accumulation, world] :
       std::vector<std::array<std::int64_t, 3>>{{1, 24, 1}, {2, 12, 1}, {12, 2, 1}, {4, 2, 3}, {8, 1, 3}, {3, 4, 2}, {1, 1, 24}}) {
    const auto options = options_of(batch, accumulation, world);
    const BatchLoader one(store, reference), cut(store, options);
    ASSERT_EQ(one.steps_per_epoch(), 5);
    ASSERT_EQ(cut.steps_per_epoch(), 5);
    for (const std::int64_t epoch : {0, 3})
      for (std::int64_t step = 0; step < 5; ++step) {
        const auto whole = batches_of_step(store, reference, epoch, step), parts = batches_of_step(store, options, epoch, step);
        EXPECT_EQ(sorted_rows(whole), sorted_rows(parts)) << batch << " x " << accumulation << " x " << world;
        std::int64_t supervised = 0;
        for (const auto& part : parts) supervised += part.counts.num_supervised;
        EXPECT_EQ(supervised, cut.supervised_in_step(epoch, step));
        EXPECT_EQ(supervised, one.supervised_in_step(epoch, step));
      }
  }
}

TEST(BatchLoader, AnEpochHoldsEveryRowOnceInItsOrder) {
  const TokenStore store = make_store(53, 64);
  const BatchLoader loader(store, options_of(4, 3));
  EXPECT_EQ(loader.steps_per_epoch(), 5);  // 14 micro-batches, 3 at a time
  EXPECT_EQ(loader.micro_batches(0, 3), 3);
  EXPECT_EQ(loader.micro_batches(0, 4), 2);
  EXPECT_EQ(loader.total_steps(3), 15);
  EXPECT_EQ(loader.total_steps(3, 15), 15);
  EXPECT_EQ(loader.total_steps(3, 14), 14);
  EXPECT_EQ(loader.total_steps(3, 1000), 15);
  EXPECT_EQ(loader.total_steps(std::int64_t{1} << 62, 16), 16);  // no overflow
  for (const std::int64_t epoch : {0, 1, 2}) {
    std::vector<std::int64_t> rows;
    for (Cursor at{epoch, 0}; at.epoch == epoch; at = loader.next(at))
      for (std::int64_t m = 0; m < loader.micro_batches(at.epoch, at.step); ++m) {
        const HostBatch batch = loader.load(at.epoch, at.step, m);
        check_layout(store, batch, loader);
        rows.insert(rows.end(), batch.rows.begin(), batch.rows.end());
      }
    EXPECT_EQ(rows, epoch_order(53, 42, static_cast<std::uint64_t>(epoch)));
  }
}

TEST(BatchLoader, RanksInterleaveTheOrder) {
  const TokenStore store = make_store(40, 16);
  const auto order = epoch_order(40, 42, 1);
  auto options = options_of(3, 2, 2);
  for (options.rank = 0; options.rank < 2; ++options.rank) {
    const BatchLoader loader(store, options);
    // Step 1 holds the rows 12 … 23 of the order, its second micro-batch 18 … 23.
    const auto r = static_cast<std::size_t>(options.rank);
    EXPECT_EQ(loader.load(1, 1, 1).rows, (std::vector<std::int64_t>{order[18 + r], order[20 + r], order[22 + r]}));
  }
}

TEST(BatchLoader, DropLastDropsTheIncompleteBatchOnly) {
  const TokenStore store = make_store(50, 16);
  auto options = options_of(8, 4);
  EXPECT_EQ(BatchLoader(store, options).steps_per_epoch(), 2);
  EXPECT_EQ(BatchLoader(store, options).micro_batches(0, 1), 3);  // 7 batches, the last of 2 rows
  EXPECT_EQ(BatchLoader(store, options).load(0, 1, 2).rows.size(), 2u);
  options.last_batch = LastBatch::drop;
  const BatchLoader dropping(store, options);
  EXPECT_EQ(dropping.steps_per_epoch(), 2);
  EXPECT_EQ(dropping.micro_batches(0, 1), 2);
  EXPECT_EQ(dropping.load(0, 1, 1).rows.size(), 8u);
  EXPECT_THROW(dropping.load(0, 1, 2), Error);
  options.batch_size = 51;
  EXPECT_THROW(BatchLoader(store, options), Error);
}

TEST(BatchLoader, ARankWithoutRowsGetsAPlaceholderThatTeachesNothing) {
  const TokenStore store = make_store(9, 16);
  auto options = options_of(2, 1, 4);
  std::vector<HostBatch> last;
  for (options.rank = 0; options.rank < 4; ++options.rank) {
    const BatchLoader loader(store, options);
    ASSERT_EQ(loader.steps_per_epoch(), 2);
    last.push_back(loader.load(0, 1, 0));
  }
  ASSERT_EQ(last[0].rows.size(), 1u);
  for (std::size_t rank = 1; rank < 4; ++rank) {
    EXPECT_TRUE(last[rank].rows.empty());
    EXPECT_EQ(last[rank].counts.num_supervised, 0);
    EXPECT_EQ(last[rank].counts.num_docs, 1);
    EXPECT_EQ(last[rank].tokens, last[0].tokens);
    EXPECT_EQ(std::count(last[rank].labels.begin(), last[rank].labels.end(), kIgnoreLabel), last[rank].capacity);
  }
}

TEST(BatchLoader, StoredOrderForEvaluation) {
  const TokenStore store = make_store(10, 16);
  auto options = options_of(4, 1);
  options.order = RowOrder::as_stored;
  const BatchLoader loader(store, options);
  EXPECT_EQ(loader.load(0, 2, 0).rows, (std::vector<std::int64_t>{8, 9}));
  EXPECT_EQ(loader.load(7, 0, 0).rows, (std::vector<std::int64_t>{0, 1, 2, 3}));
}

TEST(BatchLoader, LoadingIsAFunctionOfItsArguments) {
  const TokenStore store = make_store(80, 64);
  for (const Packing packing : {Packing::off, Packing::fill}) {
    auto options = options_of(4, 2);
    options.packing = packing;
    const BatchLoader forward(store, options), resumed(store, options);
    (void)forward.load(0, 0, 0);
    (void)forward.load(3, 1, 0);
    const HostBatch a = forward.load(1, 1, 1), b = resumed.load(1, 1, 1);
    EXPECT_EQ(a.rows, b.rows);
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.cu_seqlens, b.cu_seqlens);
  }
}

TEST(BatchLoader, GarbageInTheTailChangesOnlyTheTail) {
  const TokenStore store = make_store(20, 16);
  auto options = options_of(4, 1);
  const HostBatch clean = BatchLoader(store, options).load(0, 0, 0);
  options.tail = Tail::garbage;
  const HostBatch dirty = BatchLoader(store, options).load(0, 0, 0);
  const auto n = static_cast<std::ptrdiff_t>(clean.counts.num_tokens);
  ASSERT_LT(n, clean.capacity);
  EXPECT_TRUE(std::equal(clean.tokens.begin(), clean.tokens.begin() + n, dirty.tokens.begin()));
  EXPECT_TRUE(std::equal(clean.labels.begin(), clean.labels.begin() + n, dirty.labels.begin()));
  EXPECT_TRUE(std::equal(clean.supervised_rows.begin(), clean.supervised_rows.begin() + clean.counts.num_supervised,
                         dirty.supervised_rows.begin()));
  EXPECT_EQ(clean.cu_seqlens, dirty.cu_seqlens);
  EXPECT_NE(clean.tokens, dirty.tokens);
  EXPECT_NE(clean.labels, dirty.labels);
}

TEST(BatchLoader, CapacitiesHoldAnyEpochAndWasteLittle) {
  const TokenStore store = make_store(700, 64);
  const auto options = options_of(32, 1);
  const BatchLoader loader(store, options);
  ASSERT_LE(loader.capacities().size(), 8u);
  ASSERT_TRUE(std::is_sorted(loader.capacities().begin(), loader.capacities().end()));
  for (const std::int64_t capacity : loader.capacities()) EXPECT_EQ(capacity % 128, 0);
  EXPECT_LE(loader.capacities().back(), 32 * 64);
  for (std::int64_t epoch = 0; epoch < 5; ++epoch)
    for (std::int64_t step = 0; step < loader.steps_per_epoch(); ++step)
      check_layout(store, loader.load(epoch, step, 0), loader);
  EXPECT_LT(loader.padding_share(), 0.09);  // rounding up to 128 alone costs 64 of about 1040 positions
}

TEST(BatchLoader, PackingFillsBatchesAndSplitsNoDocument) {
  const TokenStore store = make_store(500, 64);
  auto options = options_of(8, 2, 2);
  options.packing = Packing::fill;
  std::vector<int> seen(500, 0);
  std::int64_t used = 0, capacity = 0;
  for (options.rank = 0; options.rank < 2; ++options.rank) {
    const BatchLoader loader(store, options);
    EXPECT_LT(loader.steps_per_epoch(), loader.unpacked_steps_per_epoch());
    EXPECT_LE(loader.capacities().back(), 8 * 64);
    for (std::int64_t step = 0; step < loader.steps_per_epoch(1); ++step)
      for (std::int64_t m = 0; m < loader.micro_batches(1, step); ++m) {
        const HostBatch batch = loader.load(1, step, m);
        if (batch.rows.empty()) continue;
        check_layout(store, batch, loader);
        EXPECT_LE(batch.counts.num_tokens, 8 * 64);
        EXPECT_LE(batch.counts.num_docs, loader.max_docs());
        for (const std::int64_t row : batch.rows) ++seen[static_cast<std::size_t>(row)];
        used += batch.counts.num_tokens;
        capacity += 8 * 64;
      }
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), 500);
  EXPECT_EQ(used, store.total_tokens());
  EXPECT_GT(static_cast<double>(used) / static_cast<double>(capacity), 0.93);
}

TEST(BatchLoader, PackingCountsNoEpochBeyondTheLimit) {
  const TokenStore store = make_store(100, 64);
  auto options = options_of(8, 1);
  options.packing = Packing::fill;
  const BatchLoader loader(store, options);
  const std::int64_t two = loader.steps_per_epoch(0) + loader.steps_per_epoch(1);
  EXPECT_EQ(loader.total_steps(2), two);
  EXPECT_EQ(loader.total_steps(2, two - 1), two - 1);
  EXPECT_EQ(loader.total_steps(2, two + 1), two);
  // Would not end in this century otherwise.
  EXPECT_EQ(loader.total_steps(std::int64_t{1} << 40, two + 1), two + 1);
}

TEST(BatchLoader, RefusesWhatMakesNoBatch) {
  const TokenStore store = make_store(10, 64);
  EXPECT_THROW(BatchLoader(TokenStore(), options_of(1, 1)), Error);
  EXPECT_THROW(BatchLoader(store, options_of(0, 1)), Error);
  EXPECT_THROW(BatchLoader(store, options_of(1, 0)), Error);
  auto options = options_of(1, 1);
  options.max_seq_length = 0;
  EXPECT_THROW(BatchLoader(store, options), Error);
  options.max_seq_length = store.longest() - 1;
  EXPECT_THROW(BatchLoader(store, options), Error);
}

TEST(Packing, BestFitChoosesTheFullestBinThatHolds) {
  const std::vector<std::int64_t> lengths{6, 5, 4, 3, 2, 10, 1};
  // 6 | 5 | 6+4 full | 5+3 | 5+3+2 full | 10 | 1 opens a bin
  const auto bins = best_fit(lengths, {10, 100});
  EXPECT_EQ(bins, (std::vector<std::vector<std::int64_t>>{{0, 2}, {1, 3, 4}, {5}, {6}}));
  EXPECT_EQ(best_fit(lengths, {10, 2}), (std::vector<std::vector<std::int64_t>>{{0, 2}, {1, 3}, {4, 6}, {5}}));
  EXPECT_THROW(best_fit(lengths, {9, 100}), Error);
}

// A million lengths like a corpus of worked solutions (log-normal, median 180, cut at 1024): best fit wastes under 1 %
// and its work grows as n log n. A minute is far from what it takes and from what a quadratic search would.
TEST(Packing, FillsAMillionRealLengthsInSeconds) {
  constexpr std::int64_t kRows = 1'000'000, kBin = 8192;
  std::vector<std::int64_t> lengths;
  std::int64_t total = 0;
  for (std::int64_t r = 0; r < kRows; ++r) {
    const auto bits = philox4x32(11, static_cast<std::uint64_t>(r), 0).x;
    const double uniform = (bits[0] + 0.5) / 4294967296.0, angle = bits[1] / 4294967296.0 * 2 * std::numbers::pi;
    const double normal = std::sqrt(-2 * std::log(uniform)) * std::cos(angle);
    lengths.push_back(std::clamp<std::int64_t>(static_cast<std::int64_t>(180 * std::exp(0.6 * normal)), 8, 1024));
    total += lengths.back();
  }
  for (const std::int64_t bin : {kBin, std::int64_t{1024}}) {
    const auto start = std::chrono::steady_clock::now();
    const auto bins = best_fit(lengths, {bin, 4096});
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const double full = static_cast<double>(total) / static_cast<double>(static_cast<std::int64_t>(bins.size()) * bin);
    std::printf("  bins of %ld tokens: %.2f %% full in %.2f s\n", static_cast<long>(bin), 100 * full, seconds.count());
    EXPECT_GE(full, 0.99);
    EXPECT_LT(seconds.count(), 60);
  }
}

TEST(Packing, CapacitiesAreTheCheapestChoice) {
  const std::vector<std::int64_t> totals{100, 120, 130, 500, 510, 600, 900};
  EXPECT_EQ(choose_capacities(totals, 1000, 1), (std::vector<std::int64_t>{1024}));
  // Against every choice of three sizes.
  std::int64_t best = INT64_MAX;
  const auto cost = [&](const std::vector<std::int64_t>& caps) {
    std::int64_t sum = 0;
    for (const auto total : totals) sum += *std::lower_bound(caps.begin(), caps.end(), total);
    return sum;
  };
  for (std::int64_t a = 1; a <= 8; ++a)
    for (std::int64_t b = a; b <= 8; ++b) best = std::min(best, cost({128 * a, 128 * b, 1024}));
  const auto chosen = choose_capacities(totals, 1000, 3);
  EXPECT_EQ(chosen.size(), 3u);
  EXPECT_EQ(cost(chosen), best);
  EXPECT_EQ(choose_capacities(totals, 1000, 8), (std::vector<std::int64_t>{128, 256, 512, 640, 1024}));
}

}  // namespace
}  // namespace llmfp8
