// The fan-out, metrics.jsonl and summary.json.
#include "report/metrics.h"

#include <fstream>
#include <limits>

#include <gtest/gtest.h>

#include "core/error.h"
#include "report/metric_names.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(JsonlSink, OneObjectALineFlushedAtOnce) {
  const testing::TempDir folder;
  const auto path = folder.path() / "metrics.jsonl";
  Metrics metrics;
  metrics.add(std::make_unique<JsonlSink>(path, FileMode::replace));
  metrics.log(
      50, {{kTrainFp8Names.loss, 0.1}, {kTrainFp8Names.step, 50.0}, {"x", kNaN}, {"y", kInfinity}, {"z", -kInfinity}});
  metrics.text("fp8/fallback", "mxfp8 \xff → default");
  // Read before anything is closed: a killed run keeps its lines.
  const auto lines = testing::read_jsonl(path);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["step"], 50);
  EXPECT_GT(lines[0]["time"].get<double>(), 1.5e9);
  EXPECT_EQ(lines[0]["Train/Loss"], 0.1);
  EXPECT_EQ(lines[0]["x"], "NaN");
  EXPECT_EQ(lines[0]["y"], "Infinity");
  EXPECT_EQ(lines[0]["z"], "-Infinity");
  EXPECT_EQ(lines[0].size(), 6u);  // the empty name is dropped
  EXPECT_EQ(lines[1]["step"], 50);
  EXPECT_EQ(lines[1]["fp8/fallback"], "mxfp8 \xEF\xBF\xBD → default");
}

TEST(JsonlSink, NothingToLogIsNoLine) {
  const testing::TempDir folder;
  const auto path = folder.path() / "metrics.jsonl";
  Metrics metrics;
  metrics.add(std::make_unique<JsonlSink>(path, FileMode::replace));
  metrics.log(1, {{"", 1.0}});
  metrics.log(1, {});
  EXPECT_TRUE(testing::read_jsonl(path).empty());
}

TEST(JsonlSink, ReplacesOrAppends) {
  const testing::TempDir folder;
  const auto path = folder.path() / "metrics.jsonl";
  const auto log_once = [&](FileMode mode) {
    JsonlSink(path, mode).log({.step = 1, .time = 2.0, .values = {{"a", 3.0}}});
  };
  log_once(FileMode::replace);
  log_once(FileMode::append);
  EXPECT_EQ(testing::read_jsonl(path).size(), 2u);
  log_once(FileMode::replace);
  EXPECT_EQ(testing::read_jsonl(path).size(), 1u);
}

TEST(JsonlSink, CannotBeWritten) {
  const testing::TempDir folder;
  EXPECT_THROW(JsonlSink(folder.path() / "none" / "metrics.jsonl", FileMode::replace), Error);
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  JsonlSink full("/dev/full", FileMode::append);
  EXPECT_THROW(full.log({.step = 1, .time = 2.0, .values = {{"a", 3.0}}}), Error);
}

TEST(SummarySink, WritesAtTheEndAndReplacesByRename) {
  const testing::TempDir folder;
  const auto path = folder.path() / "summary.json";
  std::ofstream(path) << "old";
  Metrics metrics;
  metrics.add(std::make_unique<SummarySink>(path));
  metrics.summary("Eval/Loss", 2.0);
  metrics.summary("Eval/Loss", 1.5);
  metrics.summary("bad", kNaN);
  metrics.text("recipe", "default");
  metrics.log(1, {{"Train/Loss", 1.0}});
  EXPECT_EQ(std::filesystem::file_size(path), 3u);
  metrics.finish();
  const auto json = testing::read_json(path);
  EXPECT_EQ(json["Eval/Loss"], 1.5);
  EXPECT_EQ(json["bad"], "NaN");
  EXPECT_EQ(json["recipe"], "default");
  EXPECT_EQ(json.size(), 3u);
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "summary.json.tmp"));
}

TEST(Metrics, EverySinkHears) {
  struct Counter : MetricsSink {
    explicit Counter(std::vector<std::string>& list) : heard(list) {}
    void log(const MetricRecord& record) override { heard.push_back("log " + std::to_string(record.step)); }
    void summary(const std::string& name, double) override { heard.push_back(name); }
    void text(const std::string& name, const std::string&) override { heard.push_back(name); }
    void finish() override { heard.push_back("finish"); }
    std::vector<std::string>& heard;
  };
  std::vector<std::string> first, second;
  Metrics metrics;
  metrics.add(std::make_unique<Counter>(first));
  metrics.add(std::make_unique<Counter>(second));
  metrics.log(3, {{"a", 1.0}});
  metrics.summary("s", 1.0);
  metrics.text("t", "x");
  metrics.finish();
  EXPECT_EQ(first, (std::vector<std::string>{"log 3", "s", "t", "finish"}));
  EXPECT_EQ(first, second);
}

// As it was logged, without texts, and no more of the file than is asked for.
TEST(JsonlSink, RecordsOfAStepAreReadBack) {
  const testing::TempDir folder;
  const auto path = folder.path() / "metrics.jsonl";
  std::uintmax_t bytes = 0;
  {
    Metrics metrics;
    metrics.add(std::make_unique<JsonlSink>(path, FileMode::replace));
    metrics.log(1, {{"a", 1.0}});
    metrics.log(2, {{"a", 0.1}, {"b", -kInfinity}});
    metrics.text("note", "NaN is a number, this is none");
    metrics.log(2, {{"c", 3.0}});
    bytes = std::filesystem::file_size(path);
    metrics.log(2, {{"d", 4.0}});
  }
  std::ofstream(path, std::ios::app) << "{\"step\": 2, \"e\"";
  const std::vector<MetricRecord> records = records_of_step(path, 2, bytes);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].values, (MetricValues{{"a", 0.1}, {"b", -kInfinity}}));
  EXPECT_GT(records[0].time, 1.5e9);
  EXPECT_EQ(records[1].values, (MetricValues{{"c", 3.0}}));
  EXPECT_EQ(records_of_step(path, 2, bytes * 10).size(), 3u);
  EXPECT_TRUE(records_of_step(path, 3, bytes).empty());
  EXPECT_TRUE(records_of_step(folder.path() / "none", 2, bytes).empty());
}

TEST(MetricNames, AreTheContracts) {
  const MetricNames& fp8 = metric_names(MetricStyle::train_fp8);
  EXPECT_EQ(fp8.loss, "Train/Loss");
  EXPECT_EQ(fp8.step_time_s, "Train/StepTime_s");
  EXPECT_EQ(fp8.gpu_memory_mb, "Train/GPU_Memory_MB");
  EXPECT_EQ(fp8.time_per_step_ms, "Train/TimePerStep_ms");
  EXPECT_EQ(fp8.eval_tokens, "Eval/Tokens");
  EXPECT_EQ(fp8.stability_gradient_norm, "stability/gradient_norm");
  const MetricNames& multi = metric_names(MetricStyle::train_multi_gpu);
  EXPECT_EQ(multi.loss, "train/loss");
  EXPECT_EQ(multi.tokens_per_second, "train/tokens_per_second");
  EXPECT_EQ(multi.gpu_memory_gb, "train/gpu_memory_gb");
  EXPECT_EQ(multi.eval_epoch, "eval/epoch");
  EXPECT_EQ(multi.step_time_s, "");
}

}  // namespace
}  // namespace llmfp8
