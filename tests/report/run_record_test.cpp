// A run's folder read back: whole, cut off, broken, resumed.
#include "report/run_record.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "report/run_folders.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

using testing::FakeRun;

std::string error_of(const std::filesystem::path& folder) {
  try {
    read_run(folder);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(RunRecord, TellsWhatTheFolderHolds) {
  const testing::TempDir dir;
  const RunRecord run = read_run(FakeRun{.precision = "fp8 (default)", .steps = 50}.write(dir.path() / "first") / "");
  EXPECT_EQ(run.name, "first");
  EXPECT_EQ(run.state, "finished");
  EXPECT_EQ(run.model, "tiny");
  EXPECT_EQ(run.precision, "fp8 (default)");
  EXPECT_EQ(run.steps_done, 50);
  EXPECT_DOUBLE_EQ(run.started, 1700000000.0);
  EXPECT_DOUBLE_EQ(run.memory_bytes, 100e6);
  EXPECT_DOUBLE_EQ(run.tokens_per_second, 1000);
  EXPECT_DOUBLE_EQ(run.stability.at("loss").at("mean"), 1.25);
  EXPECT_TRUE(std::isnan(run.stability.at("loss").at("normality_p_value")));
  ASSERT_NE(run.find("loss"), nullptr);
  ASSERT_EQ(run.find("loss")->size(), 50u);
  EXPECT_DOUBLE_EQ(run.find("loss")->front().value, 5.0 / 1.05);
  EXPECT_DOUBLE_EQ(run.find("loss")->back().seconds, 49);
  // 500 ms at 1000 tokens/s: 500 tokens a step.
  EXPECT_DOUBLE_EQ(run.find("loss")->back().tokens, 25000);
  EXPECT_DOUBLE_EQ(run.last("eval_loss"), 2.0);
  EXPECT_EQ(run.find("accuracy"), nullptr);
  EXPECT_TRUE(run.health.amax.empty());
  EXPECT_TRUE(run.left_out.empty());
  EXPECT_EQ(run.flag("batch_size"), "8");
  EXPECT_EQ(run.flag("no_such"), "");
  EXPECT_EQ(run.error + run.model_commit + run.dataset_commit, "");
}

TEST(RunRecord, BothStylesOfNamesGiveTheSameCurves) {
  const testing::TempDir dir;
  FakeRun{}.write(dir.path());
  std::ofstream(dir.path() / "metrics.jsonl")
      << R"({"step": 10, "time": 1.0, "train/loss": 1.5, "train/gpu_memory_gb": 2.5, "train/tokens_per_second": 7.0})"
      << "\n"
      << R"({"step": 10, "time": 2.0, "eval/loss": 1.75, "eval/accuracy": 0.5})"
      << "\n";
  const RunRecord run = read_run(dir.path());
  EXPECT_DOUBLE_EQ(run.last("loss"), 1.5);
  EXPECT_DOUBLE_EQ(run.last("memory"), 2500);
  EXPECT_DOUBLE_EQ(run.last("eval_loss"), 1.75);
  EXPECT_DOUBLE_EQ(run.last("accuracy"), 0.5);
  EXPECT_TRUE(std::isnan(run.find("loss")->front().tokens));  // no time per step: tokens cannot be told
}

TEST(RunRecord, HealthIsReadWhereARunHasLooked) {
  const testing::TempDir dir;
  FakeRun{}.write(dir.path());
  testing::append_to(dir.path() / "metrics.jsonl", R"({"step": 100, "time": 1700000200, "health/weights_changed": 0.75})" "\n");
  const auto line = [](int step, double saturated) {
    return fmt::format(R"({{"step": {}, "matrices": [)"
                       R"({{"product": "qkv", "role": "input", "layer": 0, "zero_share": 0.5, "saturated_share": {}, "amax": 3.5}},)"
                       R"({{"product": "qkv", "role": "input", "layer": 1, "zero_share": 0.25, "saturated_share": 0.125, "amax": 2}},)"
                       R"({{"product": "lm_head", "role": "weight", "zero_share": 0, "saturated_share": 0, "amax": 0}}]}})", step, saturated) + "\n";
  };
  testing::append_to(dir.path() / "health.jsonl", line(90, 1.0) + line(100, 0.5) + line(100, 0.0) + "{\"step\": 110, \"matr");
  const RunRecord run = read_run(dir.path());
  EXPECT_DOUBLE_EQ(run.last("weights_changed"), 0.75);
  const SeriesPoints& saturated = run.health.saturated_share.at("qkv input");
  ASSERT_EQ(saturated.size(), 2u);  // step 100 was done again
  EXPECT_DOUBLE_EQ(saturated[0].value, 1.0);
  EXPECT_DOUBLE_EQ(saturated[1].value, 0.125);  // the worse layer
  EXPECT_DOUBLE_EQ(saturated[1].seconds, 199);  // as metrics.jsonl says of that step
  EXPECT_DOUBLE_EQ(run.health.amax.at("qkv input").back().value, 3.5);
  EXPECT_EQ(run.health.amax.count("lm_head weight"), 0u);  // not kept
  EXPECT_DOUBLE_EQ(run.health.last_step, 100);
  ASSERT_EQ(run.health.last.size(), 3u);
  EXPECT_EQ(run.health.last[2].layer, -1);
  ASSERT_EQ(run.left_out.size(), 1u);
  EXPECT_EQ(run.left_out[0], "health.jsonl: 1 broken lines");
}

TEST(RunRecord, ShadowChecksAreReadByModule) {
  const testing::TempDir dir;
  FakeRun{}.write(dir.path());
  EXPECT_TRUE(read_run(dir.path()).shadow_cosine.empty());
  const auto line = [](int step, double cosine) {
    return fmt::format(R"({{"step": {}, "time": 1700000200, "shadow/loss_difference": 0.01, "shadow/gradient_cosine": {},)"
                       R"( "shadow/gradient_cosine/self_attn.q_proj": {}, "shadow/gradient_cosine/norm": "NaN"}})", step, cosine, cosine) + "\n";
  };
  testing::append_to(dir.path() / "metrics.jsonl", line(50, 0.5) + line(100, 0.75) + line(100, 0.875));
  const RunRecord run = read_run(dir.path());
  EXPECT_DOUBLE_EQ(run.last("shadow_loss"), 0.01);
  EXPECT_DOUBLE_EQ(run.last("shadow_cosine"), 0.875);
  const SeriesPoints& q = run.shadow_cosine.at("self_attn.q_proj");
  ASSERT_EQ(q.size(), 2u);  // step 100 was done again
  EXPECT_DOUBLE_EQ(q.back().value, 0.875);
  EXPECT_TRUE(std::isnan(run.shadow_cosine.at("norm").back().value));
}

TEST(RunRecord, ACutOffLastLineIsLeftOutAndSaid) {
  const testing::TempDir dir;
  FakeRun{.steps = 20}.write(dir.path());
  std::filesystem::remove(dir.path() / "summary.json");
  testing::append_to(dir.path() / "metrics.jsonl", R"({"step": 21, "time": 17000000)");
  const RunRecord run = read_run(dir.path());
  EXPECT_EQ(run.find("loss")->size(), 20u);
  ASSERT_EQ(run.left_out.size(), 1u);
  EXPECT_EQ(run.left_out[0], "metrics.jsonl: the last line (line 23) is cut off");
  EXPECT_DOUBLE_EQ(run.tokens_per_second, 1000);  // of the records, without a summary
}

TEST(RunRecord, NumbersThatAreNotFiniteBreakTheCurve) {
  const testing::TempDir dir;
  FakeRun{.steps = 2}.write(dir.path());
  testing::append_to(dir.path() / "metrics.jsonl",
                     R"({"step": 3, "time": 3, "Train/Loss": "NaN", "Train/GradNorm": "Infinity"})"
                     "\n");
  const RunRecord run = read_run(dir.path());
  ASSERT_EQ(run.find("loss")->size(), 3u);
  EXPECT_TRUE(std::isnan(run.find("loss")->back().value));
  EXPECT_DOUBLE_EQ(run.last("loss"), 5.0 / 1.1);
}

TEST(RunRecord, AResumedRunReplacesTheStepsThatWereLost) {
  const testing::TempDir dir;
  FakeRun{.steps = 10}.write(dir.path());
  testing::append_to(
      dir.path() / "metrics.jsonl",
      R"({"step": 6, "time": 1700000100, "Train/Loss": 9.0, "Train/TimePerStep_ms": 500.0, "Train/TokensPerSecond": 1000})"
      "\n");
  const RunRecord run = read_run(dir.path());
  ASSERT_EQ(run.find("loss")->size(), 6u);
  EXPECT_DOUBLE_EQ(run.find("loss")->back().value, 9.0);
  EXPECT_DOUBLE_EQ(run.find("loss")->back().tokens, 3000);
}

TEST(RunRecord, RefusesWhatIsNoRunInOneLine) {
  const testing::TempDir dir;
  const std::filesystem::path run = dir.path() / "run";
  EXPECT_EQ(error_of(run), run.string() + ": no such folder, wanted the --output_dir of a run");
  std::filesystem::create_directories(run);
  EXPECT_EQ(error_of(run), run.string() + ": no run.json in it, wanted the --output_dir of a run");
  std::ofstream(run / "run.json") << "{\"state\": ";
  EXPECT_EQ(error_of(run), (run / "run.json").string() + ": not a JSON object");
  std::ofstream(run / "run.json") << "[]";
  EXPECT_EQ(error_of(run), (run / "run.json").string() + ": not a JSON object");
  EXPECT_EQ(error_of(run / "run.json"), (run / "run.json").string() + ": a file, wanted the --output_dir of a run");
  FakeRun{}.write(run);
  std::ofstream(run / "metrics.jsonl") << "\x7f"
                                          "ELF\n\n";
  EXPECT_EQ(error_of(run), (run / "metrics.jsonl").string() + ": not one line is a record of a run");
  FakeRun{}.write(run);
  std::ofstream(run / "summary.json") << "nope";
  EXPECT_EQ(error_of(run), (run / "summary.json").string() + ": not a JSON object");
}

TEST(RunRecord, TakesWrongTypesForUnknown) {
  const testing::TempDir dir;
  std::ofstream(dir.path() / "run.json")
      << R"({"state": 3, "steps": [1], "flags": {"a": [1, 2], "b": null}, "memory_bytes": {"x": "y"}, "notes": {}, "recipe_that_ran": 7, "rows": {"train": -5}})";
  const RunRecord run = read_run(dir.path());
  EXPECT_EQ(run.state, "3");
  EXPECT_EQ(run.flag("a"), "[1,2]");
  EXPECT_TRUE(std::isnan(run.memory_bytes));
  EXPECT_EQ(run.steps_done, 0);
  ASSERT_EQ(run.left_out.size(), 1u);  // no metrics.jsonl
}

TEST(RunRecord, DeepNestingDoesNotEndTheProgram) {
  const testing::TempDir dir;
  const int depth = 200000;
  std::ofstream(dir.path() / "run.json") << "{\"flags\": {\"a\": " << std::string(depth, '[') << std::string(depth, ']')
                                         << "}}";
  EXPECT_LT(read_run(dir.path()).flag("a").size(), 100u);
}

}  // namespace
}  // namespace llmfp8
