// What users read these files with reads them: the packages tensorboard and wandb. Skipped, with the reason, where
// test_python() does not have them; `make test` installs both.
#include <cstdlib>
#include <numbers>

#include <gtest/gtest.h>

#include "core/log.h"
#include "report/tensorboard.h"
#include "report/wandb_sink.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;

TEST(TensorboardPackage, ReadsWhatIsWritten) {
  if (const std::string why = testing::why_python_lacks("tensorboard.backend.event_processing.event_accumulator");
      !why.empty())
    GTEST_SKIP() << why;
  const testing::TempDir folder;
  constexpr int kSteps = 200;
  {
    TensorboardSink sink(folder.path() / "runs");
    for (int step = 1; step <= kSteps; ++step)
      sink.log({.step = step,
                .time = 1000.5 + step,
                .values = {{"Train/Loss", 1.0 / step}, {"Train/Progress", step / 200.0}}});
    sink.log({.step = std::int64_t{1} << 40, .time = 3000.25, .values = {{"Eval/Loss", std::numbers::pi}}});
    sink.text("precision", "fp8 (default) → µ");
    sink.summary("stability_report/loss/mean", -2.5);
  }
  const nlohmann::json read = testing::read_with_python("read_events.py", folder.path() / "runs", folder.path() / "read.json");
  const nlohmann::json& loss = read.at("scalars").at("Train/Loss");
  ASSERT_EQ(loss.size(), static_cast<std::size_t>(kSteps));
  for (int step = 1; step <= kSteps; ++step) {
    EXPECT_EQ(loss[step - 1][0], step);
    EXPECT_EQ(loss[step - 1][1].get<float>(), static_cast<float>(1.0 / step));
    EXPECT_EQ(loss[step - 1][2], 1000.5 + step);
  }
  EXPECT_EQ(read["scalars"]["Train/Progress"].size(), static_cast<std::size_t>(kSteps));
  EXPECT_EQ(read["scalars"]["Eval/Loss"][0][0], std::int64_t{1} << 40);
  EXPECT_EQ(read["scalars"]["Eval/Loss"][0][1].get<float>(), std::numbers::pi_v<float>);
  EXPECT_EQ(read["scalars"]["stability_report/loss/mean"][0][1], -2.5);
  EXPECT_EQ(read["texts"]["precision"], "fp8 (default) → µ");
}

// Three runs in one folder, each going on at a step that the one before had passed: no step is there twice, for either reader.
TEST(TensorboardPackage, ForgetsWhatARunThatWentOnDidAgain) {
  if (const std::string why = testing::why_python_lacks("tensorboard.backend.event_processing.event_accumulator");
      !why.empty())
    GTEST_SKIP() << why;
  const testing::TempDir folder;
  const auto run = [&](int first, int last, double value, bool goes_on) {
    TensorboardSink sink(folder.path() / "runs");
    if (goes_on) sink.forget_from(first);
    for (int step = first; step <= last; ++step) sink.log({.step = step, .time = 1.0 * step, .values = {{"Train/Loss", value}}});
    sink.summary("stability_report/loss/mean", value);
  };
  run(1, 10, 1.0, false);
  run(6, 8, 2.0, true);
  run(8, 12, 3.0, true);
  const nlohmann::json read = testing::read_with_python("read_events.py", folder.path() / "runs", folder.path() / "read.json");
  for (const char* reader : {"scalars", "server"}) {
    SCOPED_TRACE(reader);
    const nlohmann::json& loss = read.at(reader).at("Train/Loss");
    ASSERT_EQ(loss.size(), 12u) << loss;
    for (int step = 1; step <= 12; ++step) {
      EXPECT_EQ(loss[step - 1][0], step);
      EXPECT_EQ(loss[step - 1][1], step < 6 ? 1.0 : step < 8 ? 2.0 : 3.0);
    }
    EXPECT_EQ(read.at(reader).at("stability_report/loss/mean").size(), 1u);
  }
}

TEST(WandbPackage, TakesARunOffline) {
  if (const std::string why = testing::why_python_lacks("wandb; wandb.init"); !why.empty()) GTEST_SKIP() << why;
  const testing::TempDir folder;
  setenv("WANDB_MODE", "offline", 1);
  for (const char* name : {"WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"})
    setenv(name, (folder.path() / "sdk").c_str(), 1);
  unsetenv("WANDB_DIR");
  WandbOptions options;
  options.run = {.id = WandbRun::new_id(), .project = "llm-fp8", .name = "a-run", .tags = {"gpus:1"}};
  options.config = {{"batch_size", 12}};
  options.metrics_file = folder.path() / "metrics.jsonl";
  options.folder = folder.path() / "logs";
  options.replay_command = "llm-fp8 wandb-sync out";
  options.python = testing::test_python();
  options.finish_wait_s = 120;  // the SDK takes long to start on a busy machine
  const std::string id = options.run.id;
  nlohmann::ordered_json run_json;
  {
    Metrics metrics;
    metrics.add(std::make_unique<JsonlSink>(options.metrics_file, FileMode::replace));
    auto sink = std::make_unique<WandbSink>(std::move(options));
    WandbSink& wandb = *sink;
    metrics.add(std::move(sink));
    for (int step = 10; step <= 1000; step += 10) metrics.log(step, {{"Train/Loss", 1.0 / step}});
    metrics.log(1000, {{"Eval/Loss", 2.5}});
    metrics.text("precision", "fp8 (default)");
    metrics.summary("stability_report/loss/mean", 1.5);
    metrics.finish();
    EXPECT_TRUE(wandb.deliver());
    metrics.describe(run_json);
  }
  EXPECT_EQ(run_json["wandb"]["mode"], "offline");
  const fs::path run_folder = run_json["wandb"]["folder"].get<std::string>();
  ASSERT_TRUE(fs::exists(run_folder)) << run_folder;
  EXPECT_TRUE(run_folder.string().starts_with((folder.path() / "logs" / "wandb").string())) << run_folder;
  const nlohmann::json run =
      testing::read_with_python("read_wandb.py", run_folder / ("run-" + id + ".wandb"), folder.path() / "read.json");
  EXPECT_EQ(run["id"], id);
  EXPECT_EQ(run["project"], "llm-fp8");
  EXPECT_EQ(run["name"], "a-run");
  EXPECT_EQ(run["tags"], (std::vector<std::string>{"gpus:1"}));
  EXPECT_EQ(run["config"]["batch_size"], 12);
  const std::vector<nlohmann::json> lines = testing::read_jsonl(folder.path() / "metrics.jsonl");
  ASSERT_EQ(run["history"].size(), 100u);
  for (int i = 0; i < 100; ++i) {
    const auto& [step, values] = std::pair(run["history"][i][0], run["history"][i][1]);
    EXPECT_EQ(step, 10 * (i + 1));
    EXPECT_EQ(values["Train/Loss"], 1.0 / (10 * (i + 1)));
    EXPECT_NEAR(values["_timestamp"].get<double>(), lines[i]["time"].get<double>(), 1e-3);
  }
  EXPECT_EQ(run["history"][99][1]["Eval/Loss"], 2.5);
  EXPECT_EQ(run["summary"]["precision"], "fp8 (default)");
  EXPECT_EQ(run["summary"]["stability_report/loss/mean"], 1.5);
  EXPECT_EQ(run["exit_code"], 0);
}

}  // namespace
}  // namespace llmfp8
