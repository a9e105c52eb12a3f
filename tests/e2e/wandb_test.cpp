// --use_wandb and llm-fp8 wandb-sync as a user meets them, with the stand-in for the SDK (tests/support/fake_wandb).
#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "e2e/workshop.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

// The environment of a program whose Python has the stand-in, and what that was told.
struct Server {
  explicit Server(const Workshop& workshop) : shop(workshop) {}

  RunOptions options(std::map<std::string, std::string> more = {}) const {
    more.insert({{"LLMFP8_PYTHON", "python3"},
                 {"PYTHONPATH", (source_dir() / "tests/support/fake_wandb").string()},
                 {"PYTHONDONTWRITEBYTECODE", "1"},
                 {"FAKE_WANDB_LOG", shop.path("server.jsonl").string()},
                 {"WANDB_MODE", ""},
                 {"WANDB_RUN_ID", ""}});
    return {.environment = more};
  }
  std::vector<nlohmann::json> told(const std::string& key) const {
    std::vector<nlohmann::json> values;
    for (const nlohmann::json& line : read_jsonl(shop.path("server.jsonl"))) {
      if (line.contains(key)) values.push_back(line[key]);
    }
    return values;
  }
  std::map<std::string, nlohmann::json> summary() const {
    std::map<std::string, nlohmann::json> values;
    for (const nlohmann::json& line : read_jsonl(shop.path("server.jsonl"))) {
      if (line.contains("summary")) values[line["summary"]] = line["value"];
    }
    return values;
  }

  const Workshop& shop;
};

Finished run_well(const char* program, const Args& args, const RunOptions& options) {
  Finished run = run_program(program, args, options);
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_TRUE(run.errors().empty()) << run.err;
  return run;
}

TEST(Wandb, HasWhatMetricsJsonlHas) {
  Workshop shop;
  const Server server(shop);
  const Finished run = run_well("train_fp8",
                                shop.args({"--use_wandb", "--wandb_project", "a-project", "--wandb_run_name", "a-run",
                                           "--mixed_precision", "fp8"}),
                                server.options());
  EXPECT_EQ(run.count("W&B: fake://run"), 1u) << run.err;
  EXPECT_EQ(run.count("warning:"), 0u) << run.err;

  const nlohmann::json json = read_json(shop.output() / "run.json"), init = server.told("init").at(0);
  EXPECT_EQ(init["project"], "a-project");
  EXPECT_EQ(init["name"], "a-run");
  EXPECT_TRUE(init["tags"].is_null());
  EXPECT_EQ(init["id"], json["wandb"]["id"]);
  EXPECT_EQ(init["id"].get<std::string>().size(), 8u);
  ASSERT_EQ(init["config"].size(), json["flags"].size());
  for (const auto& [name, flag] : json["flags"].items()) EXPECT_EQ(init["config"][name], flag["value"]) << name;
  EXPECT_EQ(json["wandb"]["url"], "fake://run");
  EXPECT_EQ(json["wandb"]["problem"], "");

  const std::vector<nlohmann::json> values = server.told("values");
  std::size_t i = 0;
  for (nlohmann::json line : read_jsonl(shop.output() / "metrics.jsonl")) {
    if (!line.contains("Train/Loss") && !line.contains("Eval/Loss")) continue;
    ASSERT_LT(i, values.size());
    EXPECT_TRUE(line.contains("hardware/process_memory_mb"));
    line["_timestamp"] = line["time"];
    line.erase("time");
    line.erase("step");
    EXPECT_EQ(values[i++], line);
  }
  EXPECT_EQ(i, values.size());
  EXPECT_GT(i, 9u);
  const auto summary = server.summary();
  const nlohmann::json wanted = read_json(shop.output() / "summary.json");
  for (const auto& [name, value] : wanted.items()) {
    ASSERT_TRUE(summary.contains(name)) << name;
    if (value.is_number()) {
      EXPECT_EQ(summary.at(name), value) << name;
    }
  }
  EXPECT_TRUE(summary.contains("stability_report/gradient_norm/iqr"));
  EXPECT_EQ(summary.at("precision"), "fp8 (default)");
  EXPECT_EQ(server.told("finish"), std::vector<nlohmann::json>{0});
}

TEST(Wandb, MultiGpuNamesAndTags) {
  Workshop shop;
  const Server server(shop);
  run_well("train_multi_gpu", shop.args({"--use_wandb", "--max_steps", "2"}),
           server.options({{"WANDB_RUN_ID", "given-id"}}));
  const nlohmann::json init = server.told("init").at(0);
  const std::string gpus = test_device() == "cpu" ? "gpus:0" : "gpus:1";
  EXPECT_EQ(init["project"], "llm-fp8-advanced");
  EXPECT_EQ(init["name"], "model-ddp");
  EXPECT_EQ(init["id"], "given-id");
  EXPECT_EQ(init["tags"], (std::vector<std::string>{"model:model", gpus, "sharding:ddp", "precision:bf16"}));
  EXPECT_TRUE(server.told("values").at(0).contains("train/useful_share"));
}

TEST(Wandb, WithoutTheSdkThereIsOneWarning) {
  Workshop shop;
  const Server server(shop);
  const fs::path python = shop.path("python");
  write_bytes(python, "#!/bin/sh\nexec python3 -S -E \"$@\"\n");
  fs::permissions(python, fs::perms::owner_all);
  const Finished run = run_well("train_fp8", shop.args({"--use_wandb", "--max_steps", "2", "--quiet"}),
                                server.options({{"LLMFP8_PYTHON", python.string()}}));
  EXPECT_EQ(run.count("warning: --use_wandb: " + python.string() + " has no package wandb"), 1u) << run.err;
  EXPECT_EQ(run.count("llm-fp8 wandb-sync " + shop.output().string()), 1u) << run.err;
  // The warning and how it ended.
  EXPECT_EQ(run.count("\n"), 2u) << run.err;
  EXPECT_EQ(run.count("done: 2 steps"), 1u) << run.err;
  EXPECT_EQ(metric(shop.output(), "Train/Loss").size(), 2u);
}

TEST(Wandb, WhatNeverAnswersIsLeftBehindAndSyncedLater) {
  Workshop shop;
  const Server server(shop);
  const Finished run = run_well("train_fp8", shop.args({"--use_wandb", "--max_steps", "3"}),
                                server.options({{"FAKE_WANDB", "hang"}, {"LLMFP8_WANDB_WAIT", "0.2"}}));
  EXPECT_EQ(run.count("warning: --use_wandb: W&B has not everything after 0.2 s"), 1u) << run.err;
  EXPECT_EQ(run.count("warning:"), 1u) << run.err;
  EXPECT_FALSE(fs::exists(shop.path("server.jsonl")));
  EXPECT_EQ(read_json(shop.output() / "run.json").at("state"), "finished");

  const std::string id = read_json(shop.output() / "run.json").at("wandb").at("id");
  const Args sync = {"wandb-sync", shop.output().string(), "--log_dir", shop.logs().string()};
  run_well("llm-fp8", sync, server.options());
  EXPECT_EQ(server.told("init").at(0)["id"], id);
  EXPECT_EQ(server.told("step"), (std::vector<nlohmann::json>{1, 2, 3, 3}));
  EXPECT_TRUE(server.summary().contains("stability_report/loss/mean"));
  EXPECT_EQ(read_json(shop.output() / "run.json").at("wandb").at("url"), "fake://run");
  // What is there already is not sent again.
  run_well("llm-fp8", sync, server.options());
  EXPECT_EQ(server.told("init").at(1)["id"], id);
  EXPECT_EQ(server.told("step").size(), 4u);

  const Finished failed = run_program("llm-fp8", sync, server.options({{"FAKE_WANDB", "login"}}));
  EXPECT_EQ(failed.code, 1);
  EXPECT_EQ(failed.count("not logged in to W&B"), 1u) << failed.err;
}

TEST(Wandb, ARunWithoutWandbCanBeHandedOverToo) {
  Workshop shop;
  const Server server(shop);
  run_well("train_fp8", shop.args({"--max_steps", "2", "--wandb_run_name", "later"}), server.options());
  EXPECT_FALSE(read_json(shop.output() / "run.json").contains("wandb"));
  const Args sync = {"wandb-sync", shop.output().string(), "--project", "other", "--log_dir", shop.logs().string()};
  run_well("llm-fp8", sync, server.options());
  run_well("llm-fp8", sync, server.options());
  const std::vector<nlohmann::json> init = server.told("init");
  ASSERT_EQ(init.size(), 2u);
  EXPECT_EQ(init[0]["name"], "later");
  EXPECT_EQ(init[0]["project"], "other");
  EXPECT_EQ(init[0]["id"], init[1]["id"]);
  EXPECT_EQ(server.told("step"), (std::vector<nlohmann::json>{1, 2, 2}));
}

TEST(Wandb, BadInput) {
  Workshop shop;
  const Server server(shop);
  const Finished wait =
      run_program("train_fp8", shop.args({"--use_wandb"}), server.options({{"LLMFP8_WANDB_WAIT", "soon"}}));
  EXPECT_EQ(wait.code, 2);
  EXPECT_TRUE(wait.says("LLMFP8_WANDB_WAIT=soon: wanted a number of seconds")) << wait.err;
  const auto sync = [&](const fs::path& run) {
    return run_program("llm-fp8", {"wandb-sync", run.string()}, server.options());
  };
  EXPECT_TRUE(sync(shop.path("none")).says("run.json: cannot be read; the output folder of a run is wanted"));
  for (const char* text :
       {"{", "[]", "{}", R"({"flags": {}})", R"({"flags": {"wandb_project": 3}, "wandb": {"id": 1}})"}) {
    write_bytes(shop.path("bad") / "run.json", text);
    write_bytes(shop.path("bad") / "metrics.jsonl", "");
    const Finished bad = sync(shop.path("bad"));
    EXPECT_EQ(bad.code, 1) << text << bad.err;
    EXPECT_EQ(bad.errors().size(), 1u) << text << bad.err;
    EXPECT_TRUE(bad.says("run.json")) << text << bad.err;
  }
}

}  // namespace
}  // namespace llmfp8::testing
