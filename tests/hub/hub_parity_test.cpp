// One cache, two programs: what this client downloads Python's huggingface_hub finds, and the other way round, against the same hub on
// the loopback interface. Skipped where test_python() does not have the package.
#include <cstdlib>
#include <map>

#include "core/sha.h"
#include "hub/file_io.h"
#include "hub/hub_repository.h"
#include "hub_test_util.h"
#include "support/fake_hub.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using testing::FakeHub;

std::string sha256_of(const std::string& text) {
  Sha256 sha;
  sha.update(text);
  return sha.hex();
}

class HubParity : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = testing::why_python_lacks("huggingface_hub"); !why.empty()) GTEST_SKIP() << why;
    hub_.set_environment();
    hub_.add("models/org/name/config.json",
             R"({"model_type": "llama", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128,
      "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-5})");
    hub_.add("models/org/name/tokenizer.json", "{}");
    hub_.add("models/org/name/model.safetensors", testing::noise(2'000'000));
    hub_.add("datasets/org/set/README.md", "# rows\n");
    hub_.add("datasets/org/set/data/train-00000-of-00001.parquet", testing::noise(100'000));
    options_.chunk_bytes = 300'000;
  }
  void TearDown() override { setenv("HF_HUB_OFFLINE", "1", 1); }

  nlohmann::json python(const std::string& arguments) const {
    const fs::path out = hub_.path("out.json");
    const std::string command = testing::test_python() + " '" +
                                (testing::source_dir() / "tests/hub/use_huggingface_hub.py").string() + "' " +
                                arguments + " >'" + out.string() + "' 2>'" + out.string() + ".log'";
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    return testing::read_json(out);
  }
  std::size_t bytes_requested() const {
    return hub_.count("GET", ".safetensors") + hub_.count("GET", ".parquet") + hub_.count("GET", "config.json");
  }

  // Files with their SHA-256, links with what they say. Locks may or may not stay; trees/ keeps the hub's answers for later, which
  // is this package's own affair.
  std::map<std::string, std::string> cache_tree() const {
    std::map<std::string, std::string> tree;
    for (const auto& entry : fs::recursive_directory_iterator(hub_.cache())) {
      const std::string name = entry.path().lexically_relative(hub_.cache()).string();
      if (name.starts_with(".locks") || name == "CACHEDIR.TAG" || name.find("/trees/") != std::string::npos) continue;
      if (entry.is_symlink())
        tree[name] = "-> " + fs::read_symlink(entry.path()).string();
      else if (entry.is_regular_file())
        tree[name] = sha256_of(read_text_file(entry.path()));
    }
    return tree;
  }

  FakeHub hub_;
  HubOptions options_;
};

TEST_F(HubParity, PythonFindsWhatWasDownloadedHere) {
  const fs::path folder = resolve_model("org/name", options_);
  const std::size_t requested = bytes_requested();
  EXPECT_EQ(python("cached model org/name")["path"], folder.string());
  EXPECT_EQ(python("file model org/name model.safetensors")["path"], (folder / "model.safetensors").string());
  EXPECT_EQ(python("download model org/name")["path"], folder.string());
  EXPECT_EQ(bytes_requested(), requested);
}

TEST_F(HubParity, WhatPythonDownloadedIsFoundHere) {
  const nlohmann::json python_path = python("download model org/name");
  ASSERT_TRUE(python_path.contains("path")) << python_path;
  const std::size_t requested = bytes_requested();
  EXPECT_EQ(resolve_model("org/name", options_).string(), python_path["path"]);
  EXPECT_EQ(bytes_requested(), requested);
  setenv("HF_HUB_OFFLINE", "1", 1);
  EXPECT_EQ(resolve_model("org/name", options_).string(), python_path["path"]);
}

TEST_F(HubParity, BothLeaveTheSameFiles) {
  resolve_model("org/name", options_);
  HubSnapshot set = HubSnapshot::open({RepoKind::dataset, "org/set"}, options_);
  set.fetch({"README.md", "data/train-00000-of-00001.parquet"});
  const auto ours = cache_tree();
  EXPECT_EQ(ours.size(), 2 * 3 + 1 + 2 * 2 + 1u);  // blobs and links, and a ref
  fs::remove_all(hub_.cache());
  python("download model org/name");
  python("download dataset org/set");
  EXPECT_EQ(cache_tree(), ours);
}

}  // namespace
}  // namespace llmfp8
