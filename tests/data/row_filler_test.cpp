// A large data set is the same batches whether its rows were encoded before or while they are read; rows of no use leave their
// places empty; what goes wrong in a thread is told to who reads.
#include "data/row_filler.h"

#include <fstream>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "core/batch.h"
#include "core/crc32c.h"
#include "core/error.h"
#include "core/rng.h"
#include "core/thread_pool.h"
#include "data/batch_loader.h"
#include "data/tokenize_dataset.h"
#include "support/golden.h"
#include "text/test_tokenizers.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using testing::golden_tokenizer;

constexpr std::int64_t kRows = 3000;
constexpr std::int64_t kSegmentTokens = 5000;

bool is_faulty(std::int64_t row) { return row % 50 == 7; }

// What another process does that makes the same tokens and is slow about it.
class HeldLock {
 public:
  explicit HeldLock(const fs::path& folder) : file_(::open((folder / "lock").c_str(), O_RDWR | O_CLOEXEC)) {
    EXPECT_EQ(::flock(file_, LOCK_EX | LOCK_NB), 0);
  }
  ~HeldLock() { ::close(file_); }

 private:
  int file_;
};

class RowFillerTest : public ::testing::Test {
 protected:
  void SetUp() override { write_rows(-1); }

  // broken: a line that is no JSON.
  void write_rows(std::int64_t broken) {
    std::string lines;
    for (std::int64_t i = 0; i < kRows; ++i) {
      if (i == broken) {
        lines += "no JSON\n";
      } else if (is_faulty(i)) {
        lines += "{\"text\": null}\n";
      } else {
        lines += fmt::format("{{\"text\": \"row {} of the data set, with {} apples\"}}\n", i,
                             philox4x32(1, static_cast<std::uint64_t>(i), 0).x[0]);
      }
    }
    std::ofstream(rows_file(), std::ios::binary) << lines;
    data_ = std::make_unique<Dataset>(open_dataset(rows_file(), "train", {}));
  }

  fs::path rows_file() const { return dir_.path() / "x.jsonl"; }
  fs::path cache() const { return dir_.path() / "cache"; }
  SplitRows split() const { return train_test_split(kRows, 0.1, 42); }

  TokenizedDataset tokenize(const SplitRows& split) const {
    TokenizeOptions options;
    options.segment_tokens = kSegmentTokens;
    options.rows = TokenizeOptions::Rows::while_used;
    return tokenize_dataset(*data_, split, encoder_, options);
  }

  TokenizedDataset tokenize(TokenizeOptions::Rows rows = TokenizeOptions::Rows::while_used, bool cached = true) const {
    TokenizeOptions options;
    if (cached) options.cache = cache();
    options.segment_tokens = kSegmentTokens;
    options.rows = rows;
    return tokenize_dataset(*data_, split(), encoder_, options);
  }

  fs::path cache_folder() const { return fs::directory_iterator(cache())->path(); }

  // As a process leaves it that was killed behind its first segment.
  void keep_first_segment() const {
    tokenize(TokenizeOptions::Rows::before);
    for (const auto& entry : fs::directory_iterator(cache_folder()))
      if (entry.path().extension() == ".tokens" && entry.path().filename() != "rows-000000000000.tokens")
        fs::remove(entry.path());
  }

  static BatchLoaderOptions options_of(std::int64_t batch_size) {
    BatchLoaderOptions options;
    options.batch_size = batch_size;
    options.max_seq_length = 64;
    return options;
  }

  // Of everything that a step sees, over two epochs.
  static std::vector<std::uint32_t> batches(const TokenStore& store, std::int64_t batch_size = 16) {
    const BatchLoader loader(store, options_of(batch_size));
    std::vector<std::uint32_t> sums;
    for (Cursor at; at.epoch < 2; at = loader.next(at)) {
      const HostBatch batch = loader.load(at.epoch, at.step, 0);
      std::uint32_t crc = crc32c(&batch.counts, sizeof batch.counts);
      for (const auto* values :
           {&batch.tokens, &batch.labels, &batch.positions, &batch.cu_seqlens, &batch.supervised_rows})
        crc = crc32c(values->data(), values->size() * sizeof(std::int32_t), crc);
      crc = crc32c(batch.rows.data(), batch.rows.size() * sizeof(std::int64_t), crc);
      sums.push_back(crc32c(&batch.max_doc_tokens, sizeof batch.max_doc_tokens, crc));
    }
    return sums;
  }

  testing::TempDir dir_;
  ChatTemplate chat_{ChatTemplateKind::chatml};
  RowEncoder encoder_{golden_tokenizer("qwen2.5"), chat_, {64, LossOn::all}};
  std::unique_ptr<Dataset> data_;
};

TEST_F(RowFillerTest, TheSameBatchesWhateverWasThereBefore) {
  const TokenizedDataset in_memory = tokenize(TokenizeOptions::Rows::while_used, false);
  const std::vector<std::uint32_t> wanted = batches(in_memory.train);
  const std::uint32_t checksum = in_memory.train.checksum();
  {
    const TokenizedDataset fresh = tokenize();  // while the cache is made
    EXPECT_FALSE(fresh.train.knows_all());
    EXPECT_EQ(batches(fresh.train), wanted);
    EXPECT_EQ(fresh.train.checksum(), checksum);
    EXPECT_EQ(fresh.train.summary(), in_memory.train.summary());
    EXPECT_EQ(batches(fresh.held_out), batches(in_memory.held_out));
  }
  tokenize(TokenizeOptions::Rows::before);
  const TokenizedDataset found = tokenize();
  EXPECT_FALSE(found.train.is_filling());
  EXPECT_FALSE(found.train.knows_all());
  EXPECT_EQ(batches(found.train), wanted);
  EXPECT_EQ(found.train.checksum(), checksum);
  // Another cut of the segments: the known rows are the same.
  fs::remove(cache_folder() / "rows-000000000000.tokens");
  const int threads = num_threads();
  set_num_threads(7);
  EXPECT_EQ(batches(tokenize().train), wanted);
  set_num_threads(threads);
}

// The filling thread waits for a lock that is never given: every row behind the first segment is made before its turn.
TEST_F(RowFillerTest, RowsAreMadeBeforeTheirTurn) {
  const std::vector<std::uint32_t> wanted = batches(tokenize(TokenizeOptions::Rows::while_used, false).train);
  keep_first_segment();
  {
    const HeldLock lock(cache_folder());
    const TokenizedDataset rows = tokenize();
    EXPECT_EQ(batches(rows.train), wanted);
    EXPECT_TRUE(rows.train.is_filling());
  }
  // The other process goes in the middle of it.
  auto lock = std::make_unique<HeldLock>(cache_folder());
  const TokenizedDataset rows = tokenize();
  const BatchLoader loader(rows.train, options_of(16));
  for (std::int64_t step = 0; step < 20; ++step) loader.load(0, step, 0);
  lock.reset();
  EXPECT_EQ(batches(rows.train), wanted);
  for (int i = 0; i < 1000 && rows.train.is_filling(); ++i) ::usleep(10000);
  EXPECT_FALSE(rows.train.is_filling());
  EXPECT_EQ(batches(rows.train), wanted);
}

// While it still makes others, which it may take hours to do.
TEST_F(RowFillerTest, AnotherProcessesTokensAreTakenAsTheyCome) {
  const std::vector<std::uint32_t> wanted = batches(tokenize(TokenizeOptions::Rows::while_used, false).train);
  tokenize(TokenizeOptions::Rows::before);
  const fs::path later = dir_.path() / "later";
  fs::create_directory(later);
  std::vector<fs::path> names;
  for (const auto& entry : fs::directory_iterator(cache_folder()))
    if (entry.path().extension() == ".tokens" && entry.path().filename() != "rows-000000000000.tokens")
      names.push_back(entry.path().filename());
  ASSERT_GE(names.size(), 5u);
  const fs::path folder = cache_folder();
  for (const fs::path& name : names) fs::rename(folder / name, later / name);
  const HeldLock lock(folder);
  const TokenizedDataset rows = tokenize();
  EXPECT_TRUE(rows.train.is_filling());
  for (const fs::path& name : names) fs::rename(later / name, folder / name);
  for (int i = 0; i < 500 && rows.train.is_filling(); ++i) ::usleep(10000);
  EXPECT_FALSE(rows.train.is_filling());
  EXPECT_EQ(batches(rows.train), wanted);
}

TEST_F(RowFillerTest, ARowOfNoUseLeavesItsPlaceEmpty) {
  const TokenizedDataset rows = tokenize();
  EXPECT_EQ(rows.train.rows(), 2700);  // no place is lost
  const BatchLoader loader(rows.train, options_of(1));
  EXPECT_EQ(loader.steps_per_epoch(), 2700);
  const std::vector<std::int64_t> order = epoch_order(2700, 42, 0);
  const std::vector<std::int32_t> stand_in = rows.train.ids(rows.train.known_row(0));
  int empty = 0;
  for (std::int64_t step = 0; step < 2700; ++step) {
    const HostBatch batch = loader.load(0, step, 0);
    const std::int64_t row = order[static_cast<std::size_t>(step)];
    if (!is_faulty(rows.train.source_row(row))) {
      ASSERT_EQ(batch.rows, std::vector<std::int64_t>{row});
      continue;
    }
    ++empty;
    ASSERT_TRUE(batch.rows.empty());
    ASSERT_EQ(batch.counts.num_supervised, 0);
    ASSERT_EQ(batch.counts.num_docs, 1);
    ASSERT_TRUE(std::equal(stand_in.begin(), stand_in.end(), batch.tokens.begin()));
  }
  EXPECT_GT(empty, 40);
  const BatchLoader sixteen(rows.train, options_of(16));
  std::int64_t places = 0;
  for (std::int64_t step = 0; step < sixteen.steps_per_epoch(); ++step)
    places += std::ssize(sixteen.load(0, step, 0).rows);
  EXPECT_EQ(places, 2700 - empty);
}

// As of more than 2^31 rows: the split is computed, not listed.
TEST_F(RowFillerTest, AComputedSplitIsAsItsList) {
  const SplitRows computed = train_test_split(kRows, 0.1, 42, 0);
  ASSERT_FALSE(computed.train.is_listed());
  SplitRows listed;
  for (std::int64_t i = 0; i < computed.train.size(); ++i) listed.train.push_back(computed.train[i]);
  for (std::int64_t i = 0; i < computed.test.size(); ++i) listed.test.push_back(computed.test[i]);
  const TokenizedDataset a = tokenize(computed), b = tokenize(listed);
  EXPECT_EQ(a.train.summary(), b.train.summary());
  EXPECT_EQ(batches(a.train), batches(b.train));
  EXPECT_EQ(batches(a.held_out), batches(b.held_out));
  EXPECT_NE(a.train.checksum(), tokenize().train.checksum());
}

TEST_F(RowFillerTest, PackingIsForRowsThatAreAllKnown) {
  BatchLoaderOptions options = options_of(4);
  options.packing = Packing::fill;
  const TokenizedDataset large = tokenize();
  EXPECT_THROW(BatchLoader(large.train, options), Error);
  const TokenizedDataset all = tokenize(TokenizeOptions::Rows::before);
  EXPECT_TRUE(all.train.knows_all());
  EXPECT_NO_THROW(BatchLoader(all.train, options));
}

TEST_F(RowFillerTest, WhatGoesWrongIsToldToWhoReads) {
  write_rows(2900);
  const TokenizedDataset rows = tokenize();
  try {
    batches(rows.train);
    FAIL() << "read a broken line";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("x.jsonl line 2901: not valid JSON"), std::string::npos) << error.what();
  }
}

TEST_F(RowFillerTest, AnIdOutsideTheVocabularyIsRefusedWhenItIsRead) {
  TokenizedDataset rows = tokenize();
  rows.train.limit_ids(20);
  EXPECT_THROW(rows.train.read(5), Error);
}

TEST_F(RowFillerTest, OtherFilesHaveAnotherChecksum) {
  const std::uint32_t before = tokenize().train.checksum();
  write_rows(-1);  // a copy of another time
  EXPECT_EQ(tokenize().train.checksum(), before);
  std::fstream file(rows_file(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-8, std::ios::end);  // in the last row
  file << "X";
  file.close();
  data_ = std::make_unique<Dataset>(open_dataset(rows_file(), "train", {}));
  EXPECT_NE(tokenize().train.checksum(), before);
}

TEST_F(RowFillerTest, StoppedInTheMiddleItIsGoneOnWith) {
  const std::vector<std::uint32_t> wanted = batches(tokenize(TokenizeOptions::Rows::while_used, false).train);
  for (int i = 0; i < 4; ++i) tokenize();  // each ends at once
  const TokenizedDataset rows = tokenize();
  EXPECT_EQ(batches(rows.train), wanted);
}

TEST_F(RowFillerTest, SeveralProcessesAtOnce) {
  const std::vector<std::uint32_t> wanted = batches(tokenize(TokenizeOptions::Rows::while_used, false).train);
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      set_num_threads(1);  // the pool's threads did not come along
      bool is_right = false;
      try {
        is_right = batches(tokenize().train) == wanted;
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
  EXPECT_EQ(batches(tokenize().train), wanted);
}

}  // namespace
}  // namespace llmfp8
