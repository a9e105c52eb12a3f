// Splits and orders against HF datasets' (golden split/), the generator against numpy's.
#include "data/split.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "core/error.h"
#include "data/keyed_permutation.h"
#include "data/numpy_rng.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

using testing::golden_dir;
using testing::read_json;

// The values of a one-dimensional little-endian int32 .npy of version 1.
std::vector<std::int64_t> read_npy(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (bytes.size() < 10 || bytes.substr(0, 7) != "\x93NUMPY\x01") throw std::runtime_error("not a .npy file: " + path.string());
  const std::size_t start = 10 + static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  std::vector<std::int32_t> values((bytes.size() - start) / 4);
  std::memcpy(values.data(), bytes.data() + start, values.size() * 4);
  return {values.begin(), values.end()};
}

std::string decimal(NumpyGenerator::Uint128 value) {
  std::string digits;
  do digits.insert(digits.begin(), static_cast<char>('0' + static_cast<int>(value % 10)));
  while ((value /= 10) != 0);
  return digits;
}

TEST(Split, EveryGoldenCase) {
  int full_lists = 0, cases = 0;
  for (const auto& golden : read_json(golden_dir() / "split/index.json")) {
    const std::int64_t n = golden["n"];
    const std::uint64_t seed = golden["seed"];
    const auto& size = golden["test_size"];
    const SplitRows split = size.is_number_float() ? train_test_split(n, size, seed) : train_test_split_rows(n, size, seed);
    const auto check = [&](const std::string& name, const std::vector<std::int64_t>& order) {
      SCOPED_TRACE(golden.dump().substr(0, 60) + " " + name);
      if (golden.contains(name + "_file")) {
        EXPECT_EQ(order, read_npy(golden_dir() / "split" / golden[name + "_file"].get<std::string>()));
        ++full_lists;
      }
      const std::vector<std::int64_t> head = golden[name + "_head"], tail = golden[name + "_tail"];
      ASSERT_GE(order.size(), head.size());
      EXPECT_TRUE(std::equal(head.begin(), head.end(), order.begin()));
      EXPECT_TRUE(std::equal(tail.begin(), tail.end(), order.end() - static_cast<std::ptrdiff_t>(tail.size())));
    };
    EXPECT_EQ(split.train.size(), golden["train_rows"].get<std::int64_t>());
    EXPECT_EQ(split.test.size(), golden["test_rows"].get<std::int64_t>());
    check("train", split.train.list());
    check("test", split.test.list());
    check("shuffle", shuffled_order(n, seed));
    ++cases;
  }
  EXPECT_EQ(cases, 8);
  EXPECT_EQ(full_lists, 21);
}

TEST(NumpyGenerator, EveryGoldenStream) {
  const auto streams = read_json(golden_dir() / "split/pcg64.json");
  ASSERT_FALSE(streams.empty());
  for (const auto& golden : streams) {
    const std::uint64_t seed = golden["seed"];
    SCOPED_TRACE(seed);
    EXPECT_EQ(SeedSequence(seed).generate_state32(8), golden["seed_sequence_uint32"].get<std::vector<std::uint32_t>>());
    const auto words = SeedSequence(seed).generate_state64(4);
    for (std::size_t i = 0; i < words.size(); ++i)
      EXPECT_EQ(std::to_string(words[i]), golden["seed_sequence_uint64"][i].get<std::string>());
    NumpyGenerator raw(seed);
    EXPECT_EQ(decimal(raw.state()), golden["state"].get<std::string>());
    EXPECT_EQ(decimal(raw.increment()), golden["inc"].get<std::string>());
    for (const auto& value : golden["raw_uint64"]) EXPECT_EQ(std::to_string(raw.next_uint64()), value.get<std::string>());
    NumpyGenerator doubles(seed);
    for (const auto& value : golden["doubles"]) EXPECT_EQ(doubles.next_double(), value.get<double>());
    NumpyGenerator permutations(seed);
    EXPECT_EQ(permutations.permutation(16), golden["permutation_16"].get<std::vector<std::int64_t>>());
    EXPECT_EQ(permutations.permutation(16), golden["next_permutation_16"].get<std::vector<std::int64_t>>());
  }
}

// numpy 2.4.6: numpy.random.default_rng([42, 3]).permutation(12), and of [2**40 + 7, 1].
TEST(Split, EpochOrderIsNumpysForSeedAndEpoch) {
  EXPECT_EQ(epoch_order(12, 42, 3), (std::vector<std::int64_t>{9, 3, 7, 11, 5, 4, 2, 8, 1, 10, 0, 6}));
  EXPECT_EQ(epoch_order(12, (1ull << 40) + 7, 1), (std::vector<std::int64_t>{2, 0, 4, 8, 5, 3, 6, 1, 9, 7, 11, 10}));
  EXPECT_NE(epoch_order(1000, 42, 0), epoch_order(1000, 42, 1));
}

TEST(KeyedPermutation, IsABijection) {
  for (const std::int64_t n : {1, 2, 3, 4, 5, 16, 17, 1000, 1023, 4097, 99991}) {
    for (const std::uint64_t stream : {0, 1}) {
      const KeyedPermutation order(n, 42, stream);
      std::vector<bool> seen(static_cast<std::size_t>(n));
      for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t row = order[i];
        ASSERT_TRUE(row >= 0 && row < n);
        ASSERT_FALSE(seen[static_cast<std::size_t>(row)]) << n << " " << i;
        seen[static_cast<std::size_t>(row)] = true;
        ASSERT_EQ(order.place_of(row), i);
      }
    }
  }
  EXPECT_THROW(KeyedPermutation(0, 42, 0), Error);
  EXPECT_THROW(KeyedPermutation(5, 42, 0)[5], Error);
}

// By an implementation in Python, from the description.
TEST(KeyedPermutation, KnownValues) {
  const auto values = [](std::int64_t n, std::uint64_t seed, std::uint64_t stream, const std::vector<std::int64_t>& places) {
    const KeyedPermutation order(n, seed, stream);
    std::vector<std::int64_t> rows;
    for (const std::int64_t place : places) rows.push_back(order[place]);
    return rows;
  };
  using Rows = std::vector<std::int64_t>;
  EXPECT_EQ(values(12, 42, 3, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}), (Rows{5, 10, 1, 11, 9, 6, 3, 4, 0, 7, 2, 8}));
  EXPECT_EQ(values(10, (1ull << 40) + 7, 1, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}), (Rows{4, 1, 7, 3, 0, 8, 5, 2, 9, 6}));
  constexpr std::int64_t kMany = (std::int64_t{1} << 31) + 1, kMore = 10'000'000'000'007;
  EXPECT_EQ(values(kMany, 42, 0, {0, 1, kMany - 1}), (Rows{1192726148, 1842166173, 266623970}));
  EXPECT_EQ(values(kMore, 42, 0, {0, 1, kMore - 1}), (Rows{4423888431497, 7570878183204, 8986760850839}));
}

// Neighbours go their own ways: the mean distance of random pairs is a third of n.
TEST(KeyedPermutation, MixesWell) {
  constexpr std::int64_t kRows = (std::int64_t{1} << 33) + 5, kLook = 20000;
  const KeyedPermutation order(kRows, 7, 0), other(kRows, 7, 1);
  double distance = 0, place = 0;
  int alike = 0;
  for (std::int64_t i = 0; i < kLook; ++i) {
    distance += std::abs(static_cast<double>(order[i + 1] - order[i])) / static_cast<double>(kRows);
    place += static_cast<double>(order[i]) / static_cast<double>(kRows);
    alike += order[i] == other[i];
  }
  // Standard errors: sqrt(1 / 18 / 20000) and sqrt(1 / 12 / 20000), 0.0017 and 0.002; five of them.
  EXPECT_NEAR(distance / kLook, 1.0 / 3, 0.0085);
  EXPECT_NEAR(place / kLook, 0.5, 0.01);
  EXPECT_EQ(alike, 0);
}

// As beyond 2^31 rows.
TEST(Split, OfMoreRowsThanAreListedIsAKeyedPermutation) {
  const SplitRows split = train_test_split(1000, 0.1, 42, 999);
  EXPECT_FALSE(split.train.is_listed());
  ASSERT_EQ(split.train.size(), 900);
  ASSERT_EQ(split.test.size(), 100);
  std::vector<bool> seen(1000);
  for (const RowSequence* part : {&split.train, &split.test}) {
    std::vector<std::int64_t> below;
    for (std::int64_t i = 0; i < part->size(); ++i) {
      ASSERT_FALSE(seen[static_cast<std::size_t>((*part)[i])]);
      seen[static_cast<std::size_t>((*part)[i])] = true;
      if ((*part)[i] < 300) below.push_back(i);
    }
    EXPECT_EQ(part->places_below(300), below);
  }
  const SplitRows listed = train_test_split(1000, 0.1, 42, 1000);
  EXPECT_TRUE(listed.train.is_listed());
  EXPECT_NE(listed.train[0], split.train[0]);
  const std::vector<std::int64_t> places = listed.test.places_below(300);
  for (std::int64_t i = 0, found = 0; i < listed.test.size(); ++i)
    if (listed.test[i] < 300) {
      EXPECT_EQ(places[static_cast<std::size_t>(found++)], i);
    }

  const RowSequence first = epoch_rows(1000, 42, 0, 999), second = epoch_rows(1000, 42, 1, 999);
  EXPECT_FALSE(first.is_listed());
  EXPECT_NE(first[0], second[0]);
  EXPECT_NE(first.checksum(), second.checksum());
  EXPECT_TRUE(epoch_rows(1000, 42, 0, 1000).is_listed());
  EXPECT_EQ(epoch_rows(1000, 42, 3).list(), epoch_order(1000, 42, 3));
  // Three thousand million rows take no memory.
  const SplitRows large = train_test_split(3'000'000'000, 0.1, 42);
  EXPECT_EQ(large.test.size(), 300'000'000);
  EXPECT_LT(large.train[2'699'999'999], 3'000'000'000);
}

TEST(Split, RefusesWhatCannotBeSplit) {
  EXPECT_THROW(train_test_split(1, 0.1, 42), Error);
  EXPECT_THROW(train_test_split(0, 0.1, 42), Error);
  EXPECT_THROW(train_test_split(10, 0.0, 42), Error);
  EXPECT_THROW(train_test_split(10, 1.0, 42), Error);
  EXPECT_THROW(train_test_split(2, 0.9, 42), Error);
  EXPECT_THROW(train_test_split_rows(10, 10, 42), Error);
  EXPECT_THROW(shuffled_order((std::int64_t{1} << 31) + 1, 42), Error);
}

}  // namespace
}  // namespace llmfp8
