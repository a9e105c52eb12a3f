// Segments in memory and in files, what a part tells of its rows, and the cache: found again, gone on with, made once by two
// processes, and never taken for another's.
#include "data/token_store.h"

#include <fstream>
#include <numeric>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "core/batch.h"
#include "core/error.h"
#include "core/rng.h"
#include "core/thread_pool.h"
#include "data/token_cache.h"
#include "data/tokenize_dataset.h"
#include "support/golden.h"
#include "text/test_tokenizers.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using testing::golden_tokenizer;

TokenizedRow random_row(std::uint64_t seed, std::int64_t most) {
  const auto draw = [&](std::uint64_t i) { return philox4x32(seed, i, 0).x[0]; };
  TokenizedRow row;
  row.ids.resize(1 + draw(0) % most);
  row.labels.assign(row.ids.size(), kIgnoreLabel);
  for (std::size_t t = 0; t < row.ids.size(); ++t) row.ids[t] = static_cast<std::int32_t>(draw(t + 1) % 130000);
  for (std::size_t t = 0; t + 1 < row.ids.size(); ++t)
    if (draw(1000 + t) % 3 != 0) row.labels[t] = row.ids[t + 1];
  row.untruncated_length = static_cast<std::int64_t>(row.ids.size());
  return row;
}

void flip(const fs::path& file, std::int64_t at) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(at);
  const char byte = static_cast<char>(stream.get() ^ 0x10);
  stream.seekp(at);
  stream.put(byte);
}

constexpr std::int64_t kRows = 20;
constexpr std::int64_t kIdsAt = 64 + kRows * 24;  // behind header and records

// How many tokens the rows have.
std::int64_t write_rows(const fs::path& file) {
  SegmentBuilder builder(0);
  for (std::uint64_t r = 0; r < kRows; ++r) builder.add(random_row(r, 30));
  builder.write(file);
  return builder.tokens();
}

TEST(TokenSegment, AFileHoldsWhatMemoryDoes) {
  const testing::TempDir dir;
  SegmentBuilder builder(7);
  std::vector<TokenizedRow> rows;
  for (std::uint64_t r = 0; r < 300; ++r) {
    rows.push_back(r % 10 == 4 ? TokenizedRow() : random_row(r, 70));
    if (rows.back().ids.empty()) {
      builder.add_faulty(RowFault::not_utf8);
    } else {
      builder.add(rows.back());
    }
  }
  const fs::path file = dir.path() / "x.tokens";
  builder.write(file);
  const auto read = open_segment(file), held = builder.take();
  ASSERT_NE(read, nullptr);
  EXPECT_EQ(builder.next_row(), 307);
  for (const TokenSegment* segment : {read.get(), held.get()}) {
    EXPECT_EQ(segment->first_row(), 7);
    ASSERT_EQ(segment->rows(), 300);
    std::int32_t largest = 0;
    for (std::int64_t r = 0; r < 300; ++r) {
      const TokenizedRow& row = rows[static_cast<std::size_t>(r)];
      const RowRecord& record = segment->record(r);
      EXPECT_EQ(record.fault, row.ids.empty() ? static_cast<std::uint32_t>(RowFault::not_utf8) : 0u);
      const auto ids = segment->ids(record);
      EXPECT_EQ(std::vector<std::int32_t>(ids.begin(), ids.end()), row.ids);
      EXPECT_EQ(segment->labels(record), row.labels);
      for (const std::int32_t id : row.ids) largest = std::max(largest, id);
    }
    EXPECT_EQ(segment->largest_id(), largest);
  }
}

TEST(TokenSegment, RefusesRowsThatDoNotGoTogether) {
  SegmentBuilder builder(0);
  EXPECT_THROW(builder.add({{1, 2}, {2, 3}, false, 2}), Error);             // the last token predicts
  EXPECT_THROW(builder.add({{1, 2}, {3, kIgnoreLabel}, false, 2}), Error);  // a label that is not the next token
  EXPECT_THROW(builder.add({{1, 2}, {kIgnoreLabel}, false, 2}), Error);
  EXPECT_THROW(builder.add({{}, {}, false, 0}), Error);
}

TEST(TokenSegment, ADamagedFileIsNotTaken) {
  const testing::TempDir dir;
  const fs::path file = dir.path() / "x.tokens";
  const std::int64_t tokens = write_rows(file);
  for (const std::int64_t at : std::initializer_list<std::int64_t>{3, 9, 17, 30, 50, 61, 64, 200, kIdsAt - 1}) {  // header and records
    flip(file, at);
    EXPECT_EQ(open_segment(file), nullptr) << at;
    flip(file, at);
  }
  ASSERT_NE(open_segment(file), nullptr);
  ASSERT_EQ(fs::file_size(file), static_cast<std::uintmax_t>(kIdsAt + 4 * tokens + (tokens + 7) / 8));
  fs::resize_file(file, fs::file_size(file) - 1);
  EXPECT_EQ(open_segment(file), nullptr);
  fs::resize_file(file, 0);
  EXPECT_EQ(open_segment(file), nullptr);
  EXPECT_EQ(open_segment(dir.path() / "absent"), nullptr);
}

TEST(TokenStore, DamagedTokensAreSeenWhenTheyAreRead) {
  const testing::TempDir dir;
  const fs::path file = dir.path() / "x.tokens";
  const std::int64_t tokens = write_rows(file);
  std::vector<std::int64_t> order(kRows);
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const std::int64_t marks = kIdsAt + 4 * tokens;
  for (std::int64_t at = kIdsAt; at < marks + tokens / 8; at += 41) {
    flip(file, at);
    auto table = std::make_shared<TokenTable>();
    table->append(open_segment(file));
    const TokenStore store(table, order);
    int damaged = 0;
    for (std::int64_t row = 0; row < store.rows(); ++row) {
      try {
        store.read(row);
      } catch (const Error& error) {
        ++damaged;
        EXPECT_NE(std::string(error.what()).find(file.string()), std::string::npos) << error.what();
      }
    }
    // The mark of a row's last token says nothing.
    if (at < marks) {
      EXPECT_EQ(damaged, 1) << at;
    }
    EXPECT_LE(damaged, 1);
    flip(file, at);
  }
}

TEST(TokenStore, CountsAndOrder) {
  auto table = std::make_shared<TokenTable>();
  SegmentBuilder builder(0);
  builder.add({{7, 8}, {8, kIgnoreLabel}, false, 2});
  builder.add_faulty(RowFault::null);
  builder.add({{5}, {kIgnoreLabel}, false, 1});
  table->append(builder.take());
  builder.add({{9, 9, 9, 9}, {9, 9, 9, kIgnoreLabel}, false, 4});
  builder.add({{1, 2, 3}, {2, 3, kIgnoreLabel}, true, 9});
  table->append(builder.take());
  ASSERT_EQ(table->rows(), 5);
  const TokenStore store(table, std::vector<std::int64_t>{2, 1, 4, 0});
  ASSERT_EQ(store.rows(), 3);
  EXPECT_EQ(store.total_tokens(), 6);
  EXPECT_EQ(store.total_supervised(), 3);
  EXPECT_EQ(store.truncated_rows(), 1);
  EXPECT_EQ(store.truncated_tokens(), 6);
  EXPECT_EQ(store.unsupervised_rows(), 1);
  EXPECT_EQ(store.longest(), 3);
  EXPECT_EQ(store.length_quantiles().max, 9);
  EXPECT_EQ(store.length_quantiles().min, 1);
  EXPECT_EQ(store.length_quantiles().median, 2);
  EXPECT_EQ(store.source_row(0), 2);
  EXPECT_EQ(store.ids(1)[1], 2);
  EXPECT_EQ(store.labels(1), (std::vector<std::int32_t>{2, 3, kIgnoreLabel}));
  EXPECT_EQ(store.length(2), 2);
  EXPECT_THROW(TokenStore(table, std::vector<std::int64_t>{2, 5}), Error);
  EXPECT_THROW(store.ids(3), Error);
  SegmentBuilder gap(9);
  gap.add_faulty(RowFault::null);
  EXPECT_THROW(table->append(gap.take()), Error);
}

// The checksum sees order, cut and labels.
TEST(TokenStore, Checksum) {
  const auto checksum = [](std::vector<TokenizedRow> rows) {
    return store_in_memory(rows).checksum();
  };
  const TokenizedRow a{{1, 2}, {2, -100}, false, 2}, b{{3}, {-100}, false, 1}, c{{1, 2}, {-100, -100}, false, 2};
  const TokenizedRow ab{{1, 2, 3}, {2, -100, -100}, false, 3};
  EXPECT_EQ(checksum({a, b}), checksum({a, b}));
  EXPECT_NE(checksum({a, b}), checksum({b, a}));
  EXPECT_NE(checksum({a, b}), checksum({c, b}));
  EXPECT_NE(checksum({a, b}), checksum({ab}));
}

// Segments of some hundred tokens.
class TokenCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string lines;
    for (int i = 0; i < 3000; ++i) {
      lines += i % 50 == 7 ? "{\"text\": null}\n"
                           : fmt::format("{{\"text\": \"row {} of the data set, with {} apples\"}}\n", i, philox4x32(1, static_cast<std::uint64_t>(i), 0).x[0]);
    }
    std::ofstream(rows_file(), std::ios::binary) << lines;
  }
  fs::path rows_file() const { return dir_.path() / "x.jsonl"; }
  fs::path cache() const { return dir_.path() / "cache"; }

  TokenizedDataset tokenize(std::int64_t max_seq_length = 256, bool cached = true, std::function<void(std::int64_t, std::int64_t)> progress = {}) const {
    const Dataset data = open_dataset(rows_file(), "train", {});
    const RowEncoder encoder(golden_tokenizer("qwen2.5"), chat_, {max_seq_length, LossOn::all});
    TokenizeOptions options;
    if (cached) options.cache = cache();
    options.segment_tokens = 5000;
    options.progress = std::move(progress);
    return tokenize_dataset(data, train_test_split(3000, 0.1, 42), encoder, options);
  }

  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    if (fs::exists(cache()))
      for (const auto& entry : fs::recursive_directory_iterator(cache()))
        if (entry.path().extension() == ".tokens") found.push_back(entry.path());
    std::sort(found.begin(), found.end());
    return found;
  }

  static void expect_same(const TokenizedDataset& a, const TokenizedDataset& b) {
    EXPECT_EQ(a.rows_by_fault, b.rows_by_fault);
    for (const auto part : {&TokenizedDataset::train, &TokenizedDataset::held_out}) {
      const TokenStore &x = a.*part, &y = b.*part;
      ASSERT_EQ(x.rows(), y.rows());
      EXPECT_EQ(x.summary(), y.summary());
      EXPECT_EQ(x.checksum(), y.checksum());
      for (std::int64_t row = 0; row < x.rows(); ++row) {
        ASSERT_EQ(x.source_row(row), y.source_row(row));
        ASSERT_TRUE(std::ranges::equal(x.ids(row), y.ids(row)));
        ASSERT_EQ(x.labels(row), y.labels(row));
      }
    }
  }

  testing::TempDir dir_;
  ChatTemplate chat_{ChatTemplateKind::chatml};
};

TEST_F(TokenCacheTest, IsMadeOnceAndFoundAgain) {
  const TokenizedDataset wanted = tokenize(256, false);
  EXPECT_TRUE(files().empty());
  expect_same(wanted, tokenize());
  const std::vector<fs::path> made = files();
  ASSERT_GE(made.size(), 5u);
  std::vector<fs::file_time_type> times;
  for (const fs::path& file : made) times.push_back(fs::last_write_time(file));
  int encoded = 0;
  expect_same(wanted, tokenize(256, true, [&](std::int64_t, std::int64_t) { ++encoded; }));
  EXPECT_EQ(encoded, 0);
  EXPECT_EQ(files(), made);
  for (std::size_t i = 0; i < made.size(); ++i) EXPECT_EQ(fs::last_write_time(made[i]), times[i]);
}

TEST_F(TokenCacheTest, OtherRowsOrAnotherWayToEncodeThemAreAnotherCache) {
  tokenize();
  const std::size_t made = files().size();
  const TokenizedDataset cut = tokenize(6);
  EXPECT_EQ(cut.train.longest(), 6);
  EXPECT_GT(files().size(), made);
  const std::size_t both = files().size();
  std::ofstream(rows_file(), std::ios::binary | std::ios::app) << "\n";  // another file, the same rows
  tokenize();
  EXPECT_GT(files().size(), both);
}

TEST_F(TokenCacheTest, ATakenNameIsNotMistaken) {
  const TokenizedDataset wanted = tokenize();
  const fs::path key = files().front().parent_path() / "key.json";
  std::ofstream(key, std::ios::binary) << "another data set";
  expect_same(wanted, tokenize());
  EXPECT_EQ(std::distance(fs::directory_iterator(cache()), fs::directory_iterator()), 2);
}

TEST_F(TokenCacheTest, AnInterruptedOneIsGoneOnWith) {
  const TokenizedDataset wanted = tokenize(256, false);
  struct Stop {};
  EXPECT_THROW(tokenize(256, true, [&](std::int64_t done, std::int64_t) {
    if (done > 1200) throw Stop();
  }), Stop);
  const std::vector<fs::path> left = files();
  ASSERT_FALSE(left.empty());
  std::ofstream(left.front().parent_path() / "rows-000000001000.tokens.tmp.77") << "half";
  const auto before = fs::last_write_time(left.front());
  std::int64_t first_seen = -1;
  expect_same(wanted, tokenize(256, true, [&](std::int64_t done, std::int64_t) {
    if (first_seen < 0) first_seen = done;
  }));
  EXPECT_GT(first_seen, 500);
  EXPECT_EQ(fs::last_write_time(left.front()), before);
  EXPECT_FALSE(fs::exists(left.front().parent_path() / "rows-000000001000.tokens.tmp.77"));
}

TEST_F(TokenCacheTest, ADamagedPieceIsMadeAgain) {
  const TokenizedDataset wanted = tokenize(256, false);
  tokenize();
  const std::vector<fs::path> made = files();
  flip(made[1], 20);
  fs::resize_file(made[3], 100);
  expect_same(wanted, tokenize());
  expect_same(wanted, tokenize());
}

TEST_F(TokenCacheTest, TwoProcessesMakeItOnce) {
  const TokenizedDataset wanted = tokenize(256, false);
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      set_num_threads(1);  // the pool's threads did not come along
      bool is_right = false;
      try {
        const TokenizedDataset found = tokenize();
        is_right = found.train.summary() == wanted.train.summary();
      } catch (const std::exception&) {
      }
      _exit(is_right ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
  }
  expect_same(wanted, tokenize());
}

TEST_F(TokenCacheTest, WhereItCannotBeWrittenTheTokensStayInMemory) {
  std::ofstream(cache()) << "a file, no folder";
  expect_same(tokenize(256, false), tokenize());
}

TEST_F(TokenCacheTest, AnEvaluationEncodesItsRowsAlone) {
  const Dataset data = open_dataset(rows_file(), "train", {});
  const RowEncoder encoder(golden_tokenizer("qwen2.5"), chat_, {256, LossOn::all});
  const SplitRows split{{}, {2500, 7, 3, 1000}};
  std::int64_t total = 0;
  const TokenizedDataset few = tokenize_dataset(data, split, encoder, {.cache = cache(), .progress = [&](std::int64_t, std::int64_t n) { total = n; }});
  EXPECT_EQ(total, 4);
  EXPECT_TRUE(files().empty());
  ASSERT_EQ(few.held_out.rows(), 3);
  EXPECT_EQ(few.dropped(), 1);
  EXPECT_EQ(few.held_out.source_row(1), 3);
  const auto ids = few.held_out.ids(2);
  EXPECT_TRUE(golden_tokenizer("qwen2.5").decode(ids, true).starts_with("row 1000 of"));
}

}  // namespace
}  // namespace llmfp8
