// Splits of data sets on a hub and in folders: found by the README's front matter or by names as `datasets` finds them, and nothing
// but the split downloaded.
#include "data/dataset_source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>

#include "core/error.h"
#include "data/dataset_files.h"
#include "data/packed.h"
#include "support/fake_hub.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using testing::FakeHub;
using Files = std::vector<std::string>;
using Splits = std::map<std::string, Files>;

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

Splits splits(Files files, const std::string& readme = "", const std::string& config = "") {
  std::sort(files.begin(), files.end());
  return split_files({"org/set", std::move(files), readme}, config);
}

TEST(SplitFiles, ShardsInData) {
  EXPECT_EQ(splits({"README.md", "data/train_1M-00000-of-00002.parquet", "data/train_1M-00001-of-00002.parquet",
                    "data/train-00000-of-00001-0123456789abcdef.parquet", "other/test.parquet"}),
            (Splits{{"train", {"data/train-00000-of-00001-0123456789abcdef.parquet"}},
                    {"train_1M", {"data/train_1M-00000-of-00002.parquet", "data/train_1M-00001-of-00002.parquet"}}}));
}

TEST(SplitFiles, WordsInNames) {
  const Splits by_folder =
      splits({"training/a.jsonl", "training/deep/b.jsonl", "my-test-set/c.jsonl", "dev/d.jsonl", "detrain/e.jsonl"});
  EXPECT_EQ(by_folder, (Splits{{"train", {"training/a.jsonl", "training/deep/b.jsonl"}},
                               {"test", {"my-test-set/c.jsonl"}},
                               {"validation", {"dev/d.jsonl"}}}));
  const Splits by_file = splits({"x/gsm_train.jsonl", "x/gsm_eval.jsonl", "x/val.parquet", "x/trainer.jsonl"});
  EXPECT_EQ(
      by_file,
      (Splits{{"train", {"x/gsm_train.jsonl"}}, {"test", {"x/gsm_eval.jsonl"}}, {"validation", {"x/val.parquet"}}}));
  EXPECT_EQ(splits({"x/a.jsonl", "x/b.jsonl", "x/c.txt"}), (Splits{{"train", {"x/a.jsonl", "x/b.jsonl"}}}));
  // A file of its own name stays a split of its own; the word finds it too.
  const Splits both = splits({"train_1M.jsonl", "train_2M.jsonl", "test.jsonl"});
  EXPECT_EQ(both.at("train_1M"), Files{"train_1M.jsonl"});
  EXPECT_EQ(both.at("train"), (Files{"train_1M.jsonl", "train_2M.jsonl"}));
  EXPECT_EQ(both.at("test"), Files{"test.jsonl"});
}

TEST(SplitFiles, JsonAndCompressedNames) {
  EXPECT_EQ(splits({"data/train-00000-of-00001.jsonl.zst", "data/test-00000-of-00001.json.gz", "dataset_infos.json"}),
            (Splits{{"train", {"data/train-00000-of-00001.jsonl.zst"}}}));  // .json beside .jsonl is about the rows
  EXPECT_EQ(splits({"train.json", "test.json.gz", "config.json", "dataset_info.json", "a.csv.gz"}),
            (Splits{{"train", {"train.json"}}, {"test", {"test.json.gz"}}}));
  EXPECT_EQ(splits({"x/gsm_train.jsonl.gz", "x/gsm_eval.jsonl.zst"}),
            (Splits{{"train", {"x/gsm_train.jsonl.gz"}}, {"test", {"x/gsm_eval.jsonl.zst"}}}));
  EXPECT_NE(error_of([] {
              splits({"train/state.json", "train/data-00000-of-00001.arrow", "dataset_dict.json"});
            }).find("no files"),
            std::string::npos);
  const DatasetListing twice{"org/set", {"train.jsonl", "train.jsonl.gz"}, ""};
  EXPECT_EQ(
      error_of([&] { files_of_split(twice, "", "train"); }),
      "org/set: both train.jsonl and train.jsonl.gz, which by their names hold the same rows; one of them is wanted");
}

TEST(SplitFiles, FrontMatter) {
  const Files files = {"a/x.parquet", "a/deep/y.parquet", "b/z.parquet", "train.jsonl"};
  const auto card = [](const std::string& data_files) {
    return "---\nconfigs:\n- config_name: default\n  data_files: " + data_files + "\n---\n";
  };
  EXPECT_EQ(splits(files, card("a/*.parquet")), (Splits{{"train", {"a/x.parquet"}}}));
  EXPECT_EQ(splits(files, card("a/**/*.parquet")), (Splits{{"train", {"a/deep/y.parquet", "a/x.parquet"}}}));
  EXPECT_EQ(splits(files, card("[a/x.parquet, b/*]")), (Splits{{"train", {"a/x.parquet", "b/z.parquet"}}}));
  EXPECT_EQ(splits(files, card("{test: ./b/z.parquet}")), (Splits{{"test", {"b/z.parquet"}}}));
  EXPECT_EQ(splits(files, card("[{split: one, path: a/x.parquet}, {split: two, path: [b/*]}]")),
            (Splits{{"one", {"a/x.parquet"}}, {"two", {"b/z.parquet"}}}));
  EXPECT_EQ(splits(files, "---\nconfigs:\n- config_name: only\n  data_dir: b\n---\n").at("train"),
            Files{"b/z.parquet"});
  EXPECT_NE(error_of([&] { splits(files, card("a/*"), "other"); }).find("no configuration \"other\""),
            std::string::npos);
  EXPECT_NE(error_of([&] { splits(files, "---\nconfigs: [\n---\n"); }).find("broken front matter"), std::string::npos);
}

class DatasetSource : public ::testing::Test {
 protected:
  DatasetSource() {
    hub_.set_environment();
    hub_.add("datasets/org/set/README.md",
             "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n  - "
             "split: train_1M\n    path: data/train_1M-*\n---\n");
    for (const char* file : {"train-00000-of-00001", "train_1M-00000-of-00002", "train_1M-00001-of-00002"}) {
      hub_.add(std::string("datasets/org/set/data/") + file + ".jsonl", std::string("{\"text\": \"") + file + "\"}\n");
    }
    options_.backoff_seconds = 0.02;
  }
  void TearDown() override { setenv("HF_HUB_OFFLINE", "1", 1); }
  DatasetFiles get(const std::string& split) const { return resolve_dataset("org/set", split, "", options_); }
  std::string error(const std::string& split) const {
    return error_of([&] { get(split); });
  }

  FakeHub hub_;
  HubOptions options_;
};

TEST_F(DatasetSource, OnlyTheSplit) {
  const DatasetFiles found = get("train_1M");
  ASSERT_EQ(found.files.size(), 2u);
  const Dataset rows = open_dataset(found, {});
  EXPECT_EQ(rows.read(0, 2)[1].text, "train_1M-00001-of-00002");
  EXPECT_EQ(hub_.count("GET", "train-00000-of-00001.jsonl"), 0u);
  EXPECT_EQ(error("validation"), "dataset org/set: no split \"validation\"; it has train, train_1M");
  // Offline: what lies in the cache, and what does not.
  setenv("HF_HUB_OFFLINE", "1", 1);
  EXPECT_EQ(get("train_1M").files, found.files);
  EXPECT_EQ(error("train"), "dataset org/set (as far as it lies in the cache): no split \"train\"; it has train_1M");
  fs::remove(found.files[0]);
  EXPECT_NE(error("train_1M").find("shard 00000 of 00002 is missing"), std::string::npos);
}

TEST_F(DatasetSource, WithoutFrontMatter) {
  hub_.add("datasets/org/set/README.md", "# no front matter\n");
  EXPECT_EQ(get("train").files.size(), 1u);
  hub_.add("datasets/org/set/data/train_1M-00000-of-00002.csv", "a\n");
  EXPECT_EQ(get("train_1M").files.size(), 2u);
  hub_.add("datasets/org/csv/train.csv", "a\n");
  EXPECT_NE(
      error_of([&] { resolve_dataset("org/csv", "train", "", options_); }).find("no files .parquet, .jsonl or .json"),
      std::string::npos);
}

TEST_F(DatasetSource, CompressedFiles) {
  hub_.add("datasets/org/packed/train.jsonl.gz", testing::gzip("{\"text\": \"a\"}\n{\"text\": \"b\"}\n"));
  hub_.add("datasets/org/packed/test.jsonl.zst", testing::zstd("{\"text\": \"c\"}\n"));
  const Dataset train = open_dataset(resolve_dataset("org/packed", "train", "", options_), {});
  EXPECT_EQ(train.read(1, 2).front().text, "b");
  EXPECT_EQ(hub_.count("GET", "test.jsonl.zst"), 0u);
  EXPECT_EQ(open_dataset(resolve_dataset("org/packed", "test", "", options_), {}).read(0, 1).front().text, "c");
  const std::string local = train.files().front().string();  // one file of it, by its path
  EXPECT_EQ(open_dataset(resolve_dataset(local, "any", "", options_), {}).rows(), 2);
  EXPECT_NE(error_of([&] { resolve_dataset(local + ".x.jsonl.zst", "any", "", options_); }).find("does not exist"),
            std::string::npos);
}

TEST_F(DatasetSource, GatedAndAbsent) {
  EXPECT_NE(error_of([&] { resolve_dataset("org/none", "train", "", options_); }).find("dataset 'org/none' is not on"),
            std::string::npos);
  hub_.faults({{"gated", 401}});
  EXPECT_NE(error("train").find("accept its licence at " + hub_.endpoint() + "/datasets/org/set"), std::string::npos);
}

TEST_F(DatasetSource, PathsNeedNoHub) {
  const fs::path file = hub_.path("rows.jsonl");
  fs::create_directories(file.parent_path());
  hub_.add("../rows.jsonl", "{\"text\": \"a\"}\n");
  EXPECT_EQ(resolve_dataset(file.string(), "any", "", options_).files, std::vector<fs::path>{file});
  EXPECT_TRUE(hub_.log().empty());
  EXPECT_NE(error_of([&] { resolve_dataset("no-such", "train", "", options_); }).find("neither a folder"),
            std::string::npos);
}

}  // namespace
}  // namespace llmfp8
