// A data set that counts as large (LLMFP8_SEGMENT_TOKENS): the same run whether its rows were tokenised before or while it trains,
// killed and resumed, beside another run, with rows of no use in it, and packed.
#include <csignal>
#include <fstream>
#include <future>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "e2e/checkpoints.h"

namespace llmfp8::testing {
namespace {

constexpr int kRows = 1200;
const char* const kFirstPiece = "rows-000000000000.tokens";

// Keeps every process from going on with a cache: what it needs beyond the first piece it makes before its turn.
class HeldLock {
 public:
  explicit HeldLock(const fs::path& folder) : file_(::open((folder / "lock").c_str(), O_RDWR | O_CLOEXEC)) {
    EXPECT_EQ(::flock(file_, LOCK_EX | LOCK_NB), 0);
  }
  ~HeldLock() { ::close(file_); }

 private:
  int file_;
};

class LargeData : public ::testing::Test {
 protected:
  void SetUp() override { write_rows(true); }

  void write_rows(bool with_faults) {
    std::string text;
    for (int i = 0; i < kRows; ++i) {
      const std::string row = std::to_string(i % 10) + "+" + std::to_string(i / 10 % 10) + "=" +
                              std::to_string(i % 10 + i / 10 % 10) + "; row " + std::to_string(i);
      text += with_faults && i % 37 == 5 ? "{\"text\": null}\n" : Json{{"text", row}}.dump() + "\n";
    }
    write_bytes(shop_.path("rows.jsonl"), text);
  }

  RunOptions options(const std::string& cache, bool is_large = true) const {
    RunOptions options;
    options.environment = {{"LLMFP8_CACHE_DIR", shop_.path(cache).string()}};
    if (is_large) options.environment["LLMFP8_SEGMENT_TOKENS"] = "2000";
    return options;
  }

  Args args(const std::string& output, const Args& more = {}) const {
    Args all = {
        "--mixed_precision",     "fp8",  "--max_steps",     "120",  "--save_interval",   "25",
        "--keep_checkpoints",    "1000", "--learning_rate", "1e-3", "--health_interval", "30",
        "--eval_interval_steps", "60",   "--eval_max_rows", "20",   "--output_dir",      shop_.path(output).string()};
    all.insert(all.end(), more.begin(), more.end());
    return shop_.args(all);
  }

  Finished train(const std::string& output, const Args& more, const RunOptions& options) const {
    Finished run = run_program("train_fp8", args(output, more), options);
    EXPECT_EQ(run.code, 0) << run.err;
    EXPECT_TRUE(run.errors().empty()) << run.err;
    return run;
  }

  fs::path folder_of(const std::string& cache) const {
    return fs::directory_iterator(shop_.path(cache) / "tokens")->path();
  }

  // All rows' tokens: packing wants them before it begins.
  void fill(const std::string& cache) const {
    train("filling", {"--packing", "--max_steps", "1", "--overwrite"}, options(cache));
  }

  // As a run leaves it that was killed behind its first piece.
  void keep_first_piece(const std::string& cache) const {
    fill(cache);
    for (const auto& entry : fs::directory_iterator(folder_of(cache)))
      if (entry.path().extension() == ".tokens" && entry.path().filename() != kFirstPiece) fs::remove(entry.path());
  }

  Workshop shop_;
};

TEST_F(LargeData, FilledWhileItTrainsOrBefore) {
  fill("full");
  const Finished before = train("before", {}, options("full"));
  EXPECT_FALSE(before.says("tokenised while training runs"));
  keep_first_piece("part");
  {
    const HeldLock lock(folder_of("part"));
    const Finished meanwhile = train("meanwhile", {}, options("part"));
    EXPECT_TRUE(meanwhile.says("the other rows are tokenised while training runs")) << meanwhile.err;
    expect_same_run(shop_.path("before"), shop_.path("meanwhile"));
  }
  train("fresh", {}, options("fresh"));
  expect_same_run(shop_.path("before"), shop_.path("fresh"));
  const Json rows = Json::parse(read_bytes(shop_.path("meanwhile") / "run.json")).at("rows");
  EXPECT_EQ(rows.at("train"), 1080);
  EXPECT_LT(rows.at("known"), 1000);
}

// Where every row is of use, a data set that stays in memory is no other one.
TEST_F(LargeData, TrainsAsASmallOneDoes) {
  write_rows(false);
  train("small", {}, options("small", false));
  train("large", {}, options("large"));
  EXPECT_TRUE(fs::exists(folder_of("large") / kFirstPiece));
  EXPECT_EQ(metric(shop_.path("small"), "Train/Loss"), metric(shop_.path("large"), "Train/Loss"));
  EXPECT_EQ(metric(shop_.path("large"), "Train/Loss").size(), 120u);
}

TEST_F(LargeData, KilledAndResumed) {
  fill("full");
  train("whole", {}, options("full"));
  keep_first_piece("part");
  const fs::path metrics = shop_.path("cut") / "metrics.jsonl";
  {
    const HeldLock lock(folder_of("part"));
    RunOptions kill = options("part");
    kill.signal = SIGKILL;
    kill.interrupt_when = [&] { return lines_of(metrics) > 70; };
    EXPECT_EQ(run_program("train_fp8", args("cut"), kill).code, 128 + SIGKILL);
  }
  ASSERT_FALSE(saved_steps(shop_.path("cut")).empty());
  const Finished resumed = train("cut", {"--resume", "auto"}, options("part"));
  EXPECT_TRUE(resumed.says("resumed from step")) << resumed.err;
  expect_same_run(shop_.path("whole"), shop_.path("cut"), Compare::without_checkpoint_names);
}

// Killed again and again while it fills its cache: what is there is whole, and gone on with.
TEST_F(LargeData, KilledWhileItFills) {
  fill("full");
  train("whole", {}, options("full"));
  for (int i = 0; i < 4; ++i) {
    RunOptions kill = options("part");
    kill.signal = SIGKILL;
    const fs::path tokens = shop_.path("part") / "tokens";
    kill.interrupt_when = [&] { return fs::exists(tokens) && std::ssize(files_below(tokens)) > 3 + i; };
    run_program("train_fp8", args("killed", {"--overwrite"}), kill);
  }
  train("after", {}, options("part"));
  expect_same_run(shop_.path("whole"), shop_.path("after"));
}

TEST_F(LargeData, TwoRunsAtOnce) {
  fill("full");
  train("alone", {}, options("full"));
  auto other = std::async(std::launch::async, [&] { train("b", {}, options("shared")); });
  train("a", {}, options("shared"));
  other.get();
  expect_same_run(shop_.path("alone"), shop_.path("a"));
  expect_same_run(shop_.path("alone"), shop_.path("b"));
}

TEST_F(LargeData, AStepWhoseRowIsOfNoUseLearnsNothing) {
  train("one", {"--batch_size", "1", "--max_steps", "300"}, options("cache"));
  const Json run = Json::parse(read_bytes(shop_.path("one") / "run.json"));
  EXPECT_EQ(run.at("steps").at("done"), 300);
  fill("full");
  train("before", {"--batch_size", "1", "--max_steps", "300"}, options("full"));
  expect_same_run(shop_.path("before"), shop_.path("one"));
}

TEST_F(LargeData, PackedItIsAsTheSmallOne) {
  train("small", {"--packing", "--max_steps", "20", "--save_interval", "10"}, options("small", false));
  const Finished run = train("large", {"--packing", "--max_steps", "20", "--save_interval", "10"}, options("large"));
  EXPECT_TRUE(run.says("--packing needs the length of every row")) << run.err;
  EXPECT_FALSE(run.says("tokenised while training runs"));
  EXPECT_EQ(read_bytes(shop_.path("small") / "model.safetensors"),
            read_bytes(shop_.path("large") / "model.safetensors"));
}

TEST_F(LargeData, ResumingRefusesOtherRows) {
  train("run", {"--max_steps", "50"}, options("cache"));
  std::string rows = read_bytes(shop_.path("rows.jsonl"));
  write_bytes(shop_.path("rows.jsonl"), rows);  // written anew: the same
  const Finished same = train("run", {"--resume", "--max_steps", "60"}, options("cache"));
  EXPECT_TRUE(same.says("resumed from step 50")) << same.err;
  rows[rows.size() - 4] = 'X';  // in the last row
  write_bytes(shop_.path("rows.jsonl"), rows);
  const Finished other = run_program("train_fp8", args("run", {"--resume", "--max_steps", "70"}), options("cache"));
  EXPECT_EQ(other.code, 1) << other.err;
  EXPECT_TRUE(other.says("training rows")) << other.err;
}

}  // namespace
}  // namespace llmfp8::testing
