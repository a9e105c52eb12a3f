// A run from hub names: model and data set come from a hub on the loopback interface, once.
#include <gtest/gtest.h>

#include <filesystem>

#include "e2e/workshop.h"
#include "support/fake_hub.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

class HubRun : public ::testing::Test {
 protected:
  HubRun() {
    for (const auto& entry : fs::directory_iterator(shop_.path("model"))) {
      hub_.add("models/org/tiny/" + entry.path().filename().string(), read_bytes(entry.path()));
    }
    const std::string rows = read_bytes(shop_.text_rows(40));
    hub_.add("datasets/org/sums/data/train_1M-00000-of-00001.jsonl", rows);
    hub_.add("datasets/org/sums/data/train-00000-of-00001.jsonl", rows + rows);
    options_.environment = hub_.environment();
  }
  Finished train(const Args& more = {}) const {
    Args args = {"--model_name", "org/tiny", "--dataset_name", "org/sums", "--split_name", "train_1M"};
    args.insert(args.end(), more.begin(), more.end());
    return run_program("train_fp8", shop_.args(args), options_);
  }

  Workshop shop_;
  FakeHub hub_;
  RunOptions options_;
};

TEST_F(HubRun, TrainsFromNamesAndDownloadsOnce) {
  const Finished first = train();
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_TRUE(first.says("downloading org/tiny, MB")) << first.err;
  EXPECT_TRUE(fs::exists(shop_.output() / "model.safetensors"));
  EXPECT_EQ(hub_.count("GET", "/signed/models/org/tiny/model.safetensors"), 1u);
  EXPECT_EQ(hub_.count("GET", "data/train-00000-of-00001.jsonl"), 0u);
  const auto losses = metric(shop_.output(), "Train/Loss");

  const Finished again = train({"--overwrite"});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_FALSE(again.says("downloading")) << again.err;
  options_.environment["HF_HUB_OFFLINE"] = "1";
  const std::size_t requests = hub_.log().size();
  const Finished offline = train({"--overwrite"});
  ASSERT_EQ(offline.code, 0) << offline.err;
  EXPECT_EQ(hub_.log().size(), requests);
  EXPECT_EQ(metric(shop_.output(), "Train/Loss"), losses);

  const Finished info = run_program("llm-fp8", {"info", "org/tiny"}, options_);
  EXPECT_EQ(info.code, 0) << info.err;
}

// run.json and every checkpoint tell which commit stood behind a name, also where the cache gave it.
TEST_F(HubRun, TheCommitsAreKept) {
  ASSERT_EQ(train().code, 0);
  const auto commit = [&](const char* repository) {
    const fs::path ref = hub_.cache() / repository / "refs/main";
    return read_bytes(ref);
  };
  const auto origin = [](const std::string& repository, const std::string& hash) {
    return nlohmann::json{{"repository", repository}, {"revision", "main"}, {"commit", hash}};
  };
  const std::string old_rows = commit("datasets--org--sums"), model = commit("models--org--tiny");
  ASSERT_EQ(old_rows.size(), 40u);
  const nlohmann::json hub = {{"model", origin("org/tiny", model)}, {"dataset", origin("org/sums", old_rows)}};
  EXPECT_EQ(read_json(shop_.output() / "run.json").at("hub"), hub);
  options_.environment["HF_HUB_OFFLINE"] = "1";
  ASSERT_EQ(train({"--overwrite"}).code, 0);
  EXPECT_EQ(read_json(shop_.output() / "run.json").at("hub"), hub);
  ASSERT_EQ(run_program("llm-fp8", {"report", shop_.output().string()}).code, 0);
  const std::string page = read_bytes(shop_.output() / "report.html");
  for (const std::string& text : {"org/tiny at commit " + model, "org/sums at commit " + old_rows})
    EXPECT_NE(page.find(text), std::string::npos) << text;

  // What lies in a folder of this machine has none.
  const Finished local = run_program("train_fp8", shop_.args({"--output_dir", shop_.path("local").string()}));
  ASSERT_EQ(local.code, 0) << local.err;
  EXPECT_FALSE(read_json(shop_.path("local") / "run.json").contains("hub"));

  // Other rows behind the same name: not resumed, and both commits are named.
  options_.environment["HF_HUB_OFFLINE"] = "";
  hub_.add("datasets/org/sums/data/train_1M-00000-of-00001.jsonl", read_bytes(shop_.text_rows(50, "more.jsonl")));
  const Finished resumed = train({"--resume"});
  EXPECT_EQ(resumed.code, 1) << resumed.err;
  const std::string new_rows = commit("datasets--org--sums");
  ASSERT_NE(new_rows, old_rows);
  ASSERT_EQ(resumed.errors().size(), 1u) << resumed.err;
  for (const std::string& text : {std::string("training rows is 45 rows"),
                                  "--dataset_name is org/sums at commit " + new_rows + ", the checkpoint has org/sums at commit " + old_rows})
    EXPECT_NE(resumed.errors()[0].find(text), std::string::npos) << resumed.errors()[0];
  EXPECT_FALSE(resumed.says("--model_name is")) << resumed.err;
  // The old ones are still there to be named.
  const fs::path snapshot = hub_.cache() / "datasets--org--sums/snapshots" / old_rows;
  EXPECT_EQ(train({"--resume", "--dataset_name", snapshot.string()}).code, 0);
}

// What a run that ended in an error was, and the error.
TEST_F(HubRun, AnErrorIsKept) {
  ASSERT_EQ(train().code, 0);
  const nlohmann::json hub = read_json(shop_.output() / "run.json").at("hub");
  options_.max_file_bytes = fs::file_size(shop_.output() / "model.safetensors") / 2;
  const Finished full = train({"--overwrite"});
  EXPECT_EQ(full.code, 1);
  ASSERT_EQ(full.errors().size(), 1u) << full.err;
  const nlohmann::json run = read_json(shop_.output() / "run.json");
  EXPECT_EQ(run.at("state"), "stopped: an error");
  EXPECT_EQ("error: " + run.at("error").get<std::string>(), full.errors()[0]);
  EXPECT_EQ(run.at("hub"), hub);
  EXPECT_EQ(run.at("steps").at("done"), 9);
}

TEST_F(HubRun, WhatIsRefusedIsRefusedBeforeTheWeights) {
  const Finished no_split = train({"--split_name", "train_9M"});
  EXPECT_EQ(no_split.code, 1);
  EXPECT_TRUE(no_split.says("no split \"train_9M\"; it has train, train_1M")) << no_split.err;
  const Finished no_data = train({"--dataset_name", "org/nothing"});
  EXPECT_TRUE(no_data.says("error: dataset 'org/nothing' is not on")) << no_data.err;
  fs::remove_all(hub_.cache());
  hub_.faults({{"gated", 401}});
  const Finished gated = train();
  EXPECT_EQ(gated.code, 1);
  EXPECT_TRUE(gated.says("error: model 'org/tiny' is gated: accept its licence at")) << gated.err;
  EXPECT_EQ(gated.errors().size(), 1u);
  EXPECT_EQ(hub_.count("GET", "model.safetensors"), 0u);
}

TEST_F(HubRun, OnlyTheTokenizerForTokenize) {
  const Finished done = run_program("llm-fp8", {"tokenize", "--tokenizer", "org/tiny"}, options_);
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(hub_.count("GET", "model.safetensors"), 0u);
}

TEST_F(HubRun, CtrlCKeepsWhatThereIs) {
  hub_.faults({{"slow", 20'000}});
  const fs::path blobs = hub_.cache() / "models--org--tiny" / "blobs";
  const auto unfinished = [&] {
    std::error_code none;
    std::size_t bytes = 0;
    for (const auto& entry : fs::directory_iterator(blobs, none)) {
      if (entry.path().extension() == ".incomplete") bytes = std::max<std::size_t>(bytes, entry.file_size(none));
    }
    return bytes;
  };
  options_.interrupt_when = [&] { return unfinished() > 8'000; };
  const Finished stopped = train();
  EXPECT_EQ(stopped.code, 130) << stopped.err;
  EXPECT_TRUE(stopped.errors().empty()) << stopped.err;
  EXPECT_GT(unfinished(), 8'000u);
  hub_.faults(nlohmann::json::object());
  options_.interrupt_when = {};
  const Finished done = train();
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(unfinished(), 0u);
}

TEST_F(HubRun, ADiskThatIsFull) {
  options_.max_file_bytes = 20'000;
  const Finished full = train();
  EXPECT_EQ(full.code, 1);
  ASSERT_EQ(full.errors().size(), 1u) << full.err;
  EXPECT_TRUE(full.says(".incomplete: cannot be written")) << full.err;
  options_.max_file_bytes = 0;
  EXPECT_EQ(train().code, 0);
}

TEST_F(HubRun, WithoutLibcurl) {
  // A folder whose "libcurl.so.4" is no library is searched first.
  write_bytes(shop_.path("lib/libcurl.so.4"), "no library");
  write_bytes(shop_.path("lib/libcurl-gnutls.so.4"), "no library");
  options_.environment["LD_LIBRARY_PATH"] = shop_.path("lib").string();
  const Finished done = train();
  EXPECT_EQ(done.code, 1);
  ASSERT_EQ(done.errors().size(), 1u) << done.err;
  EXPECT_TRUE(done.says("downloads need libcurl.so.4")) << done.err;
}

}  // namespace
}  // namespace llmfp8::testing
