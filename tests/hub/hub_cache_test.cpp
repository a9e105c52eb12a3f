// Names to paths without a network: folders, files, and what lies in a cache of huggingface_hub.
#include <cstdlib>

#include "hub/hub_repository.h"

#include "hub_test_util.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::error_of;
using testing::write_text;

class HubCache : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) unsetenv(name);
    setenv("HOME", (dir_.path() / "home").c_str(), 1);
    setenv("HF_HUB_OFFLINE", "1", 1);
  }
  // A repository in the cache as huggingface_hub lays it out; the snapshot's folder.
  fs::path add(const fs::path& cache, const std::string& folder) {
    write_text(cache / folder / "refs" / "main", "abc123");
    write_text(cache / folder / "snapshots" / "abc123" / "config.json", "{}");
    return cache / folder / "snapshots" / "abc123";
  }
  static fs::path model(const std::string& name, const std::string& cache_dir = "") {
    HubOptions options;
    options.cache_dir = cache_dir;
    return resolve_model(name, options);
  }
  const fs::path& root() const { return dir_.path(); }

 private:
  testing::TempDir dir_;
};

TEST_F(HubCache, PathsComeFirst) {
  write_text(root() / "m.gguf", "x");
  write_text(root() / "d.jsonl", "x");
  EXPECT_EQ(model(root().string()), root());
  EXPECT_EQ(model((root() / "m.gguf").string()), root() / "m.gguf");
  EXPECT_EQ(find_local(RepoKind::dataset, (root() / "d.jsonl").string()), root() / "d.jsonl");
  EXPECT_TRUE(
      contains(error_of([&] { model((root() / "d.jsonl").string()); }), "is a file; a folder or a .gguf file wanted"));
  EXPECT_TRUE(contains(error_of([&] { model((root() / "no.gguf").string()); }), "does not exist"));
}

TEST_F(HubCache, LooksInEveryPlace) {
  const std::string folder = "models--org--name";
  const fs::path home = add(root() / "home" / ".cache" / "huggingface" / "hub", folder);
  EXPECT_EQ(model("org/name"), home);
  const fs::path hf_home = add(root() / "hf" / "hub", folder);
  setenv("HF_HOME", (root() / "hf").c_str(), 1);
  EXPECT_EQ(model("org/name"), hf_home);
  const fs::path hub = add(root() / "hub", folder);
  setenv("HF_HUB_CACHE", (root() / "hub").c_str(), 1);
  EXPECT_EQ(model("org/name"), hub);
  const fs::path given = add(root() / "given", folder);
  EXPECT_EQ(model("org/name", (root() / "given").string()), given);
  EXPECT_EQ(model("org/name", (root() / "elsewhere").string()), hub);
  const fs::path dataset = add(root() / "hub", "datasets--org--set");
  EXPECT_EQ(HubSnapshot::open({RepoKind::dataset, "org/set"}, {}).folder(), dataset);
  fs::remove_all(root() / "hub" / folder / "refs");
  EXPECT_EQ(model("org/name"), hub);  // the only snapshot
  fs::create_directories(root() / "hub" / folder / "snapshots" / "other");
  EXPECT_TRUE(contains(error_of([&] { model("org/name"); }), "holds 2 snapshots"));
}

TEST_F(HubCache, BothSpellingsOfLlama31) {
  setenv("HF_HUB_CACHE", root().c_str(), 1);
  const fs::path meta = add(root(), "models--meta-llama--Meta-Llama-3.1-8B");
  EXPECT_EQ(model("meta-llama/Llama-3.1-8B"), meta);
  EXPECT_EQ(model("meta-llama/Meta-Llama-3.1-8B"), meta);
  const fs::path plain = add(root(), "models--meta-llama--Llama-3.1-8B-Instruct");
  EXPECT_EQ(model("meta-llama/Meta-Llama-3.1-8B-Instruct"), plain);
}

TEST_F(HubCache, SaysWhereItLooked) {
  setenv("HF_HUB_CACHE", (root() / "a").c_str(), 1);
  const std::string message = error_of([&] { model("org/name", (root() / "b").string()); });
  EXPECT_TRUE(contains(message, (root() / "a").string()));
  EXPECT_TRUE(contains(message, (root() / "b").string()));
  EXPECT_TRUE(contains(message, "HF_HUB_OFFLINE forbids to download it"));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST_F(HubCache, RefusesNamesThatLeaveTheCache) {
  setenv("HF_HUB_CACHE", root().c_str(), 1);
  for (const char* name :
       {"gpt2", "../x", "a/../b", "a/b/c", "/no/such", "a b/c", "org/", "/x", "org/..", ".x/y", "a/b\n"}) {
    try {
      model(name);
      FAIL() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::usage) << name;
      EXPECT_TRUE(contains(error.what(), "nor a hub name like org/name"));
    }
  }
  EXPECT_TRUE(contains(error_of([] { model(""); }), "--model_name is empty"));
  add(root(), "models--org--bad");
  write_text(root() / "models--org--bad" / "refs" / "main", "../../x");
  EXPECT_TRUE(contains(error_of([] { model("org/bad"); }), "a commit hash wanted"));
  write_text(root() / "models--org--bad" / "refs" / "main", "def\n");
  EXPECT_TRUE(contains(error_of([] { model("org/bad"); }), "not completely in the cache"));
}

}  // namespace
}  // namespace llmfp8
