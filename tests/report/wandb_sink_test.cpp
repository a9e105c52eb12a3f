// W&B through its side process, against a stand-in for the SDK (tests/support/fake_wandb) that records what it is told;
// every way in which the process, the SDK or the network can fail, and that training neither waits nor loses a value.
#include "report/wandb_sink.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

bool wait_until(const std::function<bool()>& condition, double seconds = 20) {
  for (const double begin = now_seconds(); now_seconds() - begin < seconds;) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

class WandbSinkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    setenv("PYTHONPATH", (testing::source_dir() / "tests/support/fake_wandb").c_str(), 1);
    setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
    setenv("FAKE_WANDB_LOG", server().c_str(), 1);
    for (const char* name : {"FAKE_WANDB", "WANDB_MODE"}) unsetenv(name);
    log::set_writer([this](const std::string& line) { messages_.push_back(line); });
  }
  void TearDown() override { log::set_writer(nullptr); }

  fs::path path(const char* name) const { return folder_.path() / name; }
  fs::path server() const { return path("server.jsonl"); }

  WandbOptions options() const {
    WandbOptions options;
    options.run = {.id = "abcd1234", .project = "llm-fp8", .name = "a-run", .tags = {"gpus:1"}};
    options.config = {{"batch_size", 12}, {"mixed_precision", "fp8"}};
    options.metrics_file = path("metrics.jsonl");
    options.folder = path("logs");
    options.replay_command = "llm-fp8 wandb-sync out";
    options.python = "python3";
    options.retry_s = 0.02;
    return options;
  }

  // metrics.jsonl and W&B, as a run puts them together.
  WandbSink& open(Metrics& metrics, WandbOptions options) {
    metrics.add(std::make_unique<JsonlSink>(options.metrics_file, FileMode::replace));
    auto sink = std::make_unique<WandbSink>(std::move(options));
    WandbSink& opened = *sink;
    metrics.add(std::move(sink));
    return opened;
  }

  static void log_steps(Metrics& metrics, int from, int to) {
    for (int step = from; step <= to; ++step) metrics.log(step, {{"Train/Loss", 1.0 / step}});
  }

  // What the stand-in was told: every value of one key, in order.
  std::vector<nlohmann::json> told(const char* key) const {
    std::vector<nlohmann::json> values;
    std::ifstream in(server());
    for (std::string text; std::getline(in, text);) {
      const auto line = nlohmann::json::parse(text, nullptr, false);  // the last one may be half written
      if (line.contains(key)) values.push_back(line[key]);
    }
    return values;
  }

  void expect_steps_once(int last) const {
    std::vector<nlohmann::json> wanted;
    for (int step = 1; step <= last; ++step) wanted.emplace_back(step);
    EXPECT_EQ(told("step"), wanted);
  }

  std::size_t count(const std::string& text) const {
    return static_cast<std::size_t>(std::count_if(messages_.begin(), messages_.end(), [&](const std::string& line) {
      return line.find(text) != std::string::npos;
    }));
  }
  std::string all_messages() const {
    std::string all;
    for (const std::string& line : messages_) all += line + "\n";
    return all;
  }
  // One warning, which says what is wrong, where the values are and how they get to W&B.
  void expect_the_warning(const std::string& what) const {
    EXPECT_EQ(count("warning: "), 1u) << all_messages();
    EXPECT_EQ(count("warning: --use_wandb: "), 1u) << all_messages();
    EXPECT_EQ(count(what), 1u) << all_messages();
    EXPECT_EQ(count("every value is in " + path("metrics.jsonl").string()), 1u) << all_messages();
    EXPECT_EQ(count("llm-fp8 wandb-sync out"), 1u) << all_messages();
  }

  const testing::TempDir folder_;
  std::vector<std::string> messages_;
};

TEST_F(WandbSinkTest, TheSdkIsToldEverything) {
  Json run_json;
  {
    Metrics metrics;
    open(metrics, options());
    metrics.log(1, {{"Train/Loss", 0.1}, {"x", std::numeric_limits<double>::quiet_NaN()}});
    metrics.log(2, {{"Train/Loss", 0.25}});
    metrics.log(2, {{"Eval/Loss", 2.5}});
    metrics.text("precision", "fp8 (default)");
    metrics.summary("stability_report/loss/mean", 1.5);
    metrics.summary("bad", std::numeric_limits<double>::infinity());
    metrics.finish();
    metrics.describe(run_json);
  }
  const auto init = told("init");
  ASSERT_EQ(init.size(), 1u) << all_messages();
  EXPECT_EQ(init[0]["project"], "llm-fp8");
  EXPECT_EQ(init[0]["name"], "a-run");
  EXPECT_EQ(init[0]["id"], "abcd1234");
  EXPECT_EQ(init[0]["resume"], "allow");
  EXPECT_EQ(init[0]["tags"], (std::vector<std::string>{"gpus:1"}));
  EXPECT_EQ(init[0]["config"]["batch_size"], 12);
  EXPECT_EQ(init[0]["dir"], path("logs").string());
  EXPECT_EQ(told("step"), (std::vector<nlohmann::json>{1, 2, 2}));
  std::ifstream in(server());
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  EXPECT_NE(text.find(R"("Train/Loss": 0.1, "x": {"float": "nan"})"), std::string::npos) << text;
  EXPECT_NE(text.find(R"x({"summary": "precision", "value": "fp8 (default)"})x"), std::string::npos) << text;
  EXPECT_NE(text.find(R"({"summary": "stability_report/loss/mean", "value": 1.5})"), std::string::npos) << text;
  EXPECT_NE(text.find(R"({"summary": "bad", "value": {"float": "inf"}})"), std::string::npos) << text;
  EXPECT_EQ(told("finish"), (std::vector<nlohmann::json>{0}));
  // When a value was measured, not when it was handed over.
  EXPECT_EQ(told("values").at(0)["_timestamp"], testing::read_jsonl(path("metrics.jsonl"))[0]["time"]);
  EXPECT_EQ(run_json["wandb"]["id"], "abcd1234");
  EXPECT_EQ(run_json["wandb"]["mode"], "online");
  EXPECT_EQ(run_json["wandb"]["url"], "fake://run");
  EXPECT_EQ(run_json["wandb"]["problem"], "");
  EXPECT_EQ(count("W&B: fake://run"), 1u);
  EXPECT_EQ(count("warning"), 0u);
}

TEST_F(WandbSinkTest, AKilledSideProcessIsReplacedAndNothingIsLostOrDoubled) {
  {
    Metrics metrics;
    WandbSink& sink = open(metrics, options());
    log_steps(metrics, 1, 10);
    ASSERT_TRUE(wait_until([&] { return told("step").size() == 10; })) << all_messages();
    const pid_t first = sink.side_process();
    kill(first, SIGKILL);
    for (int step = 11; step <= 40; ++step) {
      log_steps(metrics, step, step);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_NE(sink.side_process(), first);
    metrics.finish();
  }
  expect_steps_once(40);
  EXPECT_EQ(told("init").size(), 2u);
  EXPECT_EQ(told("finish"), (std::vector<nlohmann::json>{0}));
  EXPECT_EQ(count("signal 9"), 1u) << all_messages();
  EXPECT_EQ(count("warning"), 0u) << all_messages();
}

TEST_F(WandbSinkTest, KilledAtTheEndIsReplacedToo) {
  {
    Metrics metrics;
    WandbSink& sink = open(metrics, options());
    log_steps(metrics, 1, 5);
    kill(sink.side_process(), SIGKILL);
    metrics.finish();
  }
  expect_steps_once(5);
  EXPECT_EQ(told("finish").size(), 1u);
}

// An offline run is written again from its first step, so that the newest folder holds all of it.
TEST_F(WandbSinkTest, OfflineASecondSideProcessBeginsAtTheBeginning) {
  setenv("WANDB_MODE", "offline", 1);
  Json run_json;
  {
    Metrics metrics;
    WandbSink& sink = open(metrics, options());
    log_steps(metrics, 1, 3);
    ASSERT_TRUE(wait_until([&] { return told("step").size() == 3; }));
    kill(sink.side_process(), SIGKILL);
    metrics.finish();
    metrics.describe(run_json);
  }
  EXPECT_EQ(told("step"), (std::vector<nlohmann::json>{1, 2, 3, 1, 2, 3}));
  EXPECT_EQ(run_json["wandb"]["mode"], "offline");
  EXPECT_EQ(count("to upload: wandb sync /fake-folder"), 1u) << all_messages();
}

TEST_F(WandbSinkTest, AStoppedSideProcessHoldsNothingUp) {
  pid_t pid = -1;
  double seconds = 0;
  {
    Metrics metrics;
    WandbOptions slow = options();
    slow.finish_wait_s = 0.2;
    WandbSink& sink = open(metrics, slow);
    log_steps(metrics, 1, 1);
    ASSERT_TRUE(wait_until([&] { return told("step").size() == 1; }));
    pid = sink.side_process();
    kill(pid, SIGSTOP);
    const double begin = now_seconds();
    log_steps(metrics, 2, 5000);  // far more than its queue holds
    seconds = now_seconds() - begin;
    metrics.finish();
  }
  EXPECT_LT(seconds, 5.0);  // it writes 5000 lines and asks for the size of a file; a wait would be one without end
  EXPECT_EQ(testing::read_jsonl(path("metrics.jsonl")).size(), 5000u);
  expect_the_warning("W&B has not everything after 0.2 s");
  EXPECT_EQ(kill(pid, 0), -1) << "the side process is left behind";
}

TEST_F(WandbSinkTest, AHangingSideProcessIsReplaced) {
  {
    Metrics metrics;
    WandbOptions impatient = options();
    impatient.silence_s = 2;  // a busy machine takes a while to start Python
    WandbSink& sink = open(metrics, impatient);
    log_steps(metrics, 1, 1);
    ASSERT_TRUE(wait_until([&] { return told("step").size() == 1; }));
    const pid_t first = sink.side_process();
    kill(first, SIGSTOP);
    int step = 1;
    EXPECT_TRUE(wait_until([&] {
      ++step;
      log_steps(metrics, step, step);
      return told("init").size() == 2;
    }));
    log_steps(metrics, step + 1, step + 1);
    metrics.finish();
    EXPECT_TRUE(sink.deliver());
    expect_steps_once(step + 1);
  }
  EXPECT_EQ(count("no answer for 2 s"), 1u) << all_messages();
  EXPECT_EQ(count("warning"), 0u) << all_messages();
}

TEST_F(WandbSinkTest, WithoutTheSdk) {
  // A folder `wandb`, as the SDK leaves one in the working directory, is no SDK.
  fs::create_directories(path("here") / "wandb");
  const fs::path python = path("python");
  std::ofstream(python) << "#!/bin/sh\ncd " << path("here").string() << "\nunset PYTHONPATH\nexec python3 -S \"$@\"\n";
  fs::permissions(python, fs::perms::owner_all);
  Json run_json;
  {
    Metrics metrics;
    WandbOptions bare = options();
    bare.python = python.string();
    open(metrics, bare);
    log_steps(metrics, 1, 20);
    metrics.finish();
    metrics.describe(run_json);
  }
  expect_the_warning(python.string() + " has no package wandb (pip install wandb; LLMFP8_PYTHON names another Python)");
  EXPECT_EQ(testing::read_jsonl(path("metrics.jsonl")).size(), 20u);
  EXPECT_NE(run_json["wandb"]["problem"].get<std::string>().find("no package wandb"), std::string::npos);
}

TEST_F(WandbSinkTest, WithoutPython) {
  Metrics metrics;
  WandbOptions none = options();
  none.python = path("no-python").string();
  open(metrics, none);
  log_steps(metrics, 1, 3);
  metrics.finish();
  expect_the_warning("no-python: cannot be started (No such file or directory)");
}

TEST_F(WandbSinkTest, NotLoggedIn) {
  setenv("FAKE_WANDB", "login", 1);
  {
    Metrics metrics;
    open(metrics, options());
    log_steps(metrics, 1, 3);
    metrics.finish();
  }
  expect_the_warning("not logged in to W&B (wandb login, WANDB_API_KEY or WANDB_MODE=offline)");
}

TEST_F(WandbSinkTest, WhatFailsEachTimeIsGivenUp) {
  for (const auto& [fault, what] : {std::pair{"import", "RuntimeError: half of the package is missing"},
                                    std::pair{"network", "CommError: no such host"}}) {
    SCOPED_TRACE(fault);
    messages_.clear();
    setenv("FAKE_WANDB", fault, 1);
    {
      Metrics metrics;
      WandbOptions few = options();
      few.retries = 2;
      open(metrics, few);
      log_steps(metrics, 1, 3);
      metrics.finish();
    }
    EXPECT_EQ(count("another one starts"), 2u) << all_messages();
    EXPECT_EQ(count("warning: --use_wandb: the side process failed 3 times, last: " + std::string(what)), 1u)
        << all_messages();
    EXPECT_EQ(count("warning"), 1u) << all_messages();
  }
}

TEST_F(WandbSinkTest, AnInitThatNeverReturnsHoldsNothingUp) {
  setenv("FAKE_WANDB", "hang", 1);
  const double begin = now_seconds();
  double logged = 0;
  {
    Metrics metrics;
    WandbOptions short_wait = options();
    short_wait.finish_wait_s = 0.1;
    open(metrics, short_wait);
    log_steps(metrics, 1, 100);
    logged = now_seconds() - begin;
    metrics.finish();
  }
  EXPECT_LT(logged, 2.0);
  expect_the_warning("W&B has not everything after 0.1 s");
}

TEST_F(WandbSinkTest, ValuesBeforeTheSdkIsReadyArrive) {
  setenv("FAKE_WANDB", "slow", 1);
  {
    Metrics metrics;
    open(metrics, options());
    log_steps(metrics, 1, 50);
    metrics.finish();
  }
  expect_steps_once(50);
  EXPECT_EQ(count("warning"), 0u) << all_messages();
}

// metrics.jsonl of a run that was killed while it wrote a line, and then went on from an earlier step.
TEST_F(WandbSinkTest, HalfALineAndRepeatedSteps) {
  std::ofstream(path("metrics.jsonl")) << R"({"step": 1, "time": 1.5, "a": 1}
{"step": 2, "time": 1.5, "a": 2}
{"step": 3, "ti
{"step": 1, "time": 1.5, "a": 1}
{"step": 2, "time": 1.5, "a": 2}
{"step": 3, "time": 1.5, "a": 3}
{"step": 4, )";
  WandbSink sink(options());
  sink.finish();
  EXPECT_TRUE(sink.deliver()) << all_messages();
  EXPECT_EQ(told("step"), (std::vector<nlohmann::json>{1, 2, 2, 3}));
}

TEST_F(WandbSinkTest, AnInterruptEndsTheWait) {
  setenv("FAKE_WANDB", "stuck", 1);
  int asked = 0;
  const double begin = now_seconds();
  {
    Metrics metrics;
    WandbOptions patient = options();
    patient.finish_wait_s = 1000;
    patient.is_interrupted = [&] { return ++asked > 20; };
    open(metrics, patient);
    log_steps(metrics, 1, 1);
    metrics.finish();
  }
  EXPECT_LT(now_seconds() - begin, 10.0);
  EXPECT_EQ(count("warning"), 1u);
}

TEST_F(WandbSinkTest, ARunThatDoesNotEndWellHasFailedAtWandb) {
  {
    Metrics metrics;
    open(metrics, options());
    log_steps(metrics, 1, 2);
    metrics.text("state", "stopped: not finite");
    metrics.finish();
  }
  {  // an exception takes the sinks down without finish()
    Metrics metrics;
    open(metrics, options());
    log_steps(metrics, 3, 3);
  }
  // A training process that is killed says nothing at all.
  const pid_t child = fork();
  if (child == 0) {
    Metrics metrics;
    WandbSink& sink = open(metrics, options());
    log_steps(metrics, 4, 5);
    for (; sink.read_bytes() == 0; usleep(10'000)) metrics.log(5, {{"x", 1.0}});
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(wait_until([&] { return told("finish").size() == 3; }));
  EXPECT_EQ(told("finish"), (std::vector<nlohmann::json>{1, 1, 1}));
}

TEST(WandbRun, IsKeptInRunJson) {
  const WandbRun run = {.id = WandbRun::new_id(),
                        .project = "p",
                        .name = "n",
                        .tags = {"a", "b"},
                        .mode = "offline",
                        .url = "u",
                        .folder = "f",
                        .problem = "x"};
  EXPECT_EQ(run.id.size(), 8u);
  EXPECT_NE(run.id, WandbRun::new_id());
  const WandbRun again = WandbRun::from_json(Json::parse(run.to_json().dump()));
  EXPECT_EQ(again.to_json(), run.to_json());
  EXPECT_EQ(again.id, run.id);
  EXPECT_THROW(WandbRun::from_json({{"id", 3}}), Error);
}

TEST(WandbPython, IsWhatTheUserNames) {
  setenv("LLMFP8_PYTHON", "a-python", 1);
  EXPECT_EQ(wandb_python(), "a-python");
  unsetenv("LLMFP8_PYTHON");
  EXPECT_FALSE(wandb_python().empty());
}

}  // namespace
}  // namespace llmfp8
