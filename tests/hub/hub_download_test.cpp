// Downloads from a hub on the loopback interface, with each fault that one may have. A fault that passes must leave the right
// bytes; one that does not must leave one line that says what to do, and never a file under a finished name.
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>

#include <fcntl.h>

#include "hub/file_io.h"
#include "hub/hub_http.h"
#include "hub/hub_repository.h"
#include "hub_test_util.h"
#include "support/fake_hub.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::error_of;
using testing::FakeHub;
using testing::noise;

constexpr const char* kConfig =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256, "hidden_size": 64,
  "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-5})";

class HubDownload : public ::testing::Test {
 protected:
  HubDownload() {
    hub_.set_environment();
    hub_.add("models/org/name/config.json", kConfig);
    hub_.add("models/org/name/tokenizer.json", "{}");
    hub_.add("models/org/name/pytorch_model.bin", "not wanted");
    hub_.add("models/org/name/original/consolidated.00.pth", "not wanted");
    hub_.add("models/org/name/model.safetensors", weights_);
    options_.backoff_seconds = 0.02;
    options_.chunk_bytes = 100'000;
    options_.connections = 4;
  }
  void TearDown() override { setenv("HF_HUB_OFFLINE", "1", 1); }

  fs::path get() const { return resolve_model("org/name", options_); }
  std::string error() const {
    return error_of([&] { get(); });
  }
  fs::path repository() const { return hub_.cache() / "models--org--name"; }
  void expect_whole() const {
    const fs::path folder = get();
    EXPECT_EQ(read_text_file(folder / "config.json"), kConfig);
    EXPECT_TRUE(read_text_file(folder / "model.safetensors") == weights_);
    EXPECT_FALSE(fs::exists(folder / "pytorch_model.bin"));
    EXPECT_FALSE(fs::exists(folder / "original"));
    EXPECT_EQ(left_behind(), 0) << "unfinished files";
  }
  // .incomplete and .tmp files in the cache.
  std::ptrdiff_t left_behind() const {
    std::ptrdiff_t count = 0;
    for (const auto& entry : fs::recursive_directory_iterator(hub_.cache())) {
      const std::string name = entry.path().filename().string();
      count += name.ends_with(".incomplete") || name.find(".tmp.") != std::string::npos;
    }
    return count;
  }
  // The sizes of finished blobs add up to what was asked for, or are not there.
  void expect_no_broken_blob() const {
    for (const auto& entry : fs::directory_iterator(repository() / "blobs")) {
      if (entry.path().extension() == ".incomplete") continue;
      EXPECT_NE(entry.file_size(), weights_.size()) << entry.path();
    }
  }

  const std::string weights_ = noise(1'234'567);
  FakeHub hub_;
  HubOptions options_;
};

TEST_F(HubDownload, LayoutAndSecondLook) {
  const fs::path folder = get();
  expect_whole();
  const std::string commit = read_text_file(repository() / "refs" / "main");
  EXPECT_EQ(folder, repository() / "snapshots" / commit);
  const fs::path link = fs::read_symlink(folder / "model.safetensors");
  EXPECT_EQ(link.parent_path(), "../../blobs");
  EXPECT_EQ(link.filename().string().size(), 64u);
  EXPECT_EQ(fs::read_symlink(folder / "config.json").filename().string().size(), 40u);
  const std::size_t before = hub_.log().size();
  expect_whole();
  EXPECT_EQ(hub_.log().size(), before + 2) << "the commit and the list of files alone";
  EXPECT_EQ(hub_.count("GET", "pytorch_model.bin") + hub_.count("HEAD", "pytorch_model.bin"), 0u);
}

TEST_F(HubDownload, ARevisionInTheName) {
  get();
  const std::string first = read_text_file(repository() / "refs" / "main");
  hub_.add("models/org/name/generation_config.json", "{}");  // another commit
  HubOrigin origin;
  options_.found = [&](const HubOrigin& found) { origin = found; };
  EXPECT_NE(get(), repository() / "snapshots" / first);
  EXPECT_EQ(resolve_model("org/name@" + first, options_), repository() / "snapshots" / first);
  EXPECT_EQ(origin.repository, "org/name");
  EXPECT_EQ(origin.revision, first);
  EXPECT_EQ(origin.commit, first);
  EXPECT_TRUE(contains(error_of([&] { resolve_model("org/name@v9", options_); }), "has no revision 'v9'"));
  for (const char* name : {"org/name@", "org/name@../x", "@main", "org/name@a@b/"}) {
    EXPECT_TRUE(contains(error_of([&] { resolve_model(name, options_); }), "a hub name like org/name or org/name@revision")) << name;
  }
}

TEST_F(HubDownload, ShardsOfTheIndex) {
  fs::remove(hub_.path("root/models/org/name/model.safetensors"));
  hub_.add("models/org/name/model.safetensors.index.json",
           R"({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})");
  hub_.add("models/org/name/model-00001-of-00002.safetensors", "one");
  hub_.add("models/org/name/model-00002-of-00002.safetensors", "two");
  hub_.add("models/org/name/other.safetensors", "not wanted");
  const fs::path folder = get();
  EXPECT_EQ(read_text_file(folder / "model-00002-of-00002.safetensors"), "two");
  EXPECT_FALSE(fs::exists(folder / "other.safetensors"));
  hub_.add("models/org/name/model.safetensors.index.json", R"({"weight_map": {"a": "../../../x.safetensors"}})");
  EXPECT_TRUE(contains(error(), "gives tensor 'a' no file of the folder"));
  hub_.add("models/org/name/model.safetensors.index.json", R"({"weight_map": {"a": "gone.safetensors"}})");
  EXPECT_TRUE(contains(error(), "has no file 'gone.safetensors' on the hub"));
}

TEST_F(HubDownload, ServersThatAreBusyOrBroken) {
  hub_.faults({{"status", {429, 3}}, {"retry_after", 0.1}});
  expect_whole();
  fs::remove_all(hub_.cache());
  hub_.faults({{"status", {503, 3}}, {"api_status", {500, 2}}});
  expect_whole();
  fs::remove_all(hub_.cache());
  hub_.faults({{"status", {502, 1000}}});
  EXPECT_TRUE(contains(error(), "HTTP status 502; tried 6 times"));
}

TEST_F(HubDownload, RetryAfterIsWaitedFor) {
  hub_.faults({{"api_status", {429, 1}}, {"retry_after", 1}});
  const auto begin = std::chrono::steady_clock::now();
  get();
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(990));
}

TEST_F(HubDownload, ConnectionsThatEnd) {
  hub_.faults({{"cut", {30'000, 12}}});
  expect_whole();
  fs::remove_all(hub_.cache());
  options_.connections = 1;
  options_.chunk_bytes = 10'000'000;  // one stream
  hub_.faults({{"cut", {200'000, 4}}, {"sha", ""}});
  expect_whole();
}

TEST_F(HubDownload, AStalledConnectionIsGivenUp) {
  options_.stall_seconds = 1;
  hub_.faults({{"stall", {20, 2}}});
  const auto begin = std::chrono::steady_clock::now();
  expect_whole();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15));
}

TEST_F(HubDownload, GoesOnWhereItWas) {
  options_.attempts = 1;
  hub_.faults({{"cut", {150'000, 1000}}});
  options_.connections = 1;
  options_.chunk_bytes = 10'000'000;
  EXPECT_TRUE(contains(error(), "tried 1 times"));
  EXPECT_EQ(left_behind(), 1);
  hub_.faults(nlohmann::json::object());
  options_.attempts = 6;
  expect_whole();
  bool resumed = false;
  for (const auto& line : hub_.log()) {
    resumed = resumed || (line["server"] == "cdn" && line["range"].is_string() &&
                          !line["range"].get<std::string>().starts_with("bytes=0-"));
  }
  EXPECT_TRUE(resumed);
}

TEST_F(HubDownload, AServerWithoutRanges) {
  hub_.faults({{"no_ranges", true}});
  expect_whole();
  fs::remove_all(hub_.cache());
  hub_.faults({{"no_ranges", true}, {"cut", {900'000, 2}}});
  expect_whole();
}

TEST_F(HubDownload, DamagedBytesNeverGetAName) {
  options_.connections = 1;
  options_.chunk_bytes = 10'000'000;
  hub_.faults({{"wrong_hash", {1}}});
  expect_whole();  // the second time they are right
  fs::remove_all(hub_.cache());
  hub_.faults({{"wrong_hash", {1000}}});
  EXPECT_TRUE(contains(error(), "do not have the hash"));
  expect_no_broken_blob();
}

TEST_F(HubDownload, ADamagedPrefixIsFetchedAgain) {
  get();
  const fs::path blob = fs::canonical(get() / "model.safetensors");
  fs::remove(blob);
  testing::write_text(blob.string() + ".incomplete", noise(400'000, 7));
  expect_whole();
  fs::remove(blob);
  testing::write_text(blob.string() + ".incomplete", noise(3'000'000, 7));  // longer than the file
  expect_whole();
}

TEST_F(HubDownload, AWrongSizeIsRefused) {
  options_.attempts = 2;
  hub_.faults({{"wrong_size", true}});
  EXPECT_NE(error(), "no error");
  hub_.faults(nlohmann::json::object());
  expect_whole();
}

TEST_F(HubDownload, AnExpiredAddressIsAskedForAgain) {
  hub_.faults({{"expired", {3}}});
  expect_whole();
  fs::remove_all(hub_.cache());
  hub_.faults({{"expired", {100000}}});
  EXPECT_TRUE(contains(error(), "HTTP status 403"));
}

TEST_F(HubDownload, TheTokenStaysWithTheHub) {
  hub_.faults({{"token", "hf_secret"}});
  EXPECT_TRUE(contains(error(), "is not on " + hub_.endpoint() + ", or it is private"));
  EXPECT_TRUE(contains(error(), "set HF_TOKEN"));
  setenv("HF_TOKEN", "hf_wrong", 1);
  EXPECT_TRUE(contains(error(), "the token in HF_TOKEN may not see it"));
  EXPECT_EQ(error().find("hf_wrong"), std::string::npos);
  setenv("HF_TOKEN", " hf_secret\n", 1);
  expect_whole();
  fs::remove_all(hub_.cache());
  unsetenv("HF_TOKEN");
  testing::write_text(hub_.path("home/token"), "hf_secret\n");
  expect_whole();
  std::size_t on_hub = 0, elsewhere = 0;
  for (const auto& line : hub_.log()) {
    EXPECT_TRUE(line["server"] != "cdn" || line["authorization"].is_null()) << line;
    on_hub += line["server"] == "hub" && line["authorization"] == "Bearer hf_secret";
    elsewhere += line["server"] == "cdn";
  }
  EXPECT_GT(on_hub, 0u);
  EXPECT_GT(elsewhere, 0u);
  setenv("HF_TOKEN", "a\r\nX-Evil: 1", 1);
  EXPECT_TRUE(contains(error(), "HF_TOKEN holds no token"));
  EXPECT_EQ(error().find("Evil"), std::string::npos);
}

TEST_F(HubDownload, GatedNamesThePage) {
  hub_.faults({{"gated", 401}});
  EXPECT_TRUE(contains(
      error(), "model 'org/name' is gated: accept its licence at " + hub_.endpoint() + "/org/name and set HF_TOKEN"));
  setenv("HF_TOKEN", "hf_secret", 1);
  hub_.faults({{"gated", 403}});
  EXPECT_TRUE(contains(error(), "the account of the token in HF_TOKEN has no access yet"));
  EXPECT_EQ(hub_.count("GET", "model.safetensors"), 0u);
}

TEST_F(HubDownload, WhatIsNotThere) {
  EXPECT_TRUE(contains(error_of([&] { resolve_model("org/nothing", options_); }), "model 'org/nothing' is not on"));
  options_.revision = "v9";
  EXPECT_TRUE(contains(error(), "has no revision 'v9'"));
  options_.revision = "main";
  hub_.add("models/org/gguf/config.json", kConfig);
  hub_.add("models/org/gguf/q4.gguf", "x");
  EXPECT_TRUE(contains(error_of([&] { resolve_model("org/gguf", options_); }),
                       "has no safetensors on the hub, but GGUF files"));
  hub_.add("models/org/bert/config.json", R"({"model_type": "bert"})");
  hub_.add("models/org/bert/model.safetensors", "x");
  EXPECT_TRUE(contains(error_of([&] { resolve_model("org/bert", options_); }), "bert"));
  EXPECT_EQ(hub_.count("GET", "bert/model.safetensors"), 0u) << "refused before its weights";
}

TEST_F(HubDownload, PagesOfTheList) {
  hub_.faults({{"page", 2}});
  expect_whole();
  EXPECT_GE(hub_.count("GET", hub_.log().back()["path"].get<std::string>()), 1u);
}

TEST_F(HubDownload, AHostileServer) {
  options_.attempts = 2;
  for (const char* name : {"../../evil", "/etc/evil", "a/../../evil", "a//b", "a\nb", "a\\b"}) {
    hub_.faults({{"evil_name", name}});
    EXPECT_TRUE(contains(error(), "which no download folder takes")) << name;
  }
  hub_.faults({{"big_header", 400'000}});
  EXPECT_NE(error(), "no error");
  hub_.faults({{"big_body", 80}});
  EXPECT_TRUE(contains(error(), "answers with more than"));
  hub_.faults({{"redirect_to", "file:///etc/passwd"}});
  EXPECT_TRUE(contains(error(), "an http or https address or a path wanted"));
  hub_.faults({{"sha", "../../x"}});
  EXPECT_TRUE(contains(error(), "names no commit"));
  EXPECT_FALSE(fs::exists(hub_.path("evil")));
}

TEST_F(HubDownload, OfflineAndUnreachable) {
  setenv("HF_HUB_OFFLINE", "1", 1);
  EXPECT_TRUE(contains(error(), "is not in the local Hugging Face cache"));
  setenv("HF_HUB_OFFLINE", "0", 1);
  const fs::path folder = get();
  setenv("HF_HUB_OFFLINE", "true", 1);
  const std::size_t before = hub_.log().size();
  EXPECT_EQ(get(), folder);
  EXPECT_EQ(hub_.log().size(), before);
  unsetenv("HF_HUB_OFFLINE");
  setenv("HF_ENDPOINT", "http://127.0.0.1:9", 1);
  EXPECT_EQ(get(), folder);  // with a warning
  EXPECT_TRUE(contains(error_of([&] { resolve_model("org/other", options_); }), "tried 6 times"));
  setenv("HF_ENDPOINT", "ftp://x", 1);
  EXPECT_TRUE(contains(error(), "http or https"));
}

TEST_F(HubDownload, StopsAndKeepsWhatThereIs) {
  hub_.faults({{"slow", 200'000}});
  std::atomic<bool> stop = false;
  options_.chunk_bytes = 20'000;
  options_.stopped = [&] { return stop.load(); };
  options_.progress = [&](const HubProgress& at) {
    if (at.total_bytes > 1'000'000 && at.done_bytes > 100'000) stop = true;
  };
  EXPECT_TRUE(contains(error(), "was stopped"));
  EXPECT_EQ(left_behind(), 1);
  hub_.faults(nlohmann::json::object());
  stop = false;
  options_.progress = {};
  expect_whole();
}

TEST_F(HubDownload, OneOfSeveralDownloads) {
  std::vector<std::thread> others;
  std::atomic<int> right = 0;
  for (int i = 0; i < 4; ++i) {
    others.emplace_back([&] {
      EXPECT_EQ(error_of([&] { right += read_text_file(get() / "model.safetensors") == weights_; }), "no error");
    });
  }
  for (std::thread& other : others) other.join();
  EXPECT_EQ(right, 4);
  // Chunks of 100000 bytes: each came once.
  EXPECT_EQ(hub_.count("GET", "signed/models/org/name/model.safetensors"), 13u);
}

TEST_F(HubDownload, ProgressEndsWithEverything) {
  HubProgress last;
  options_.progress = [&](const HubProgress& at) {
    EXPECT_LE(at.done_bytes, at.total_bytes);
    last = at;
  };
  get();
  EXPECT_EQ(last.what, "org/name");
  EXPECT_EQ(last.done_bytes, last.total_bytes);
  EXPECT_EQ(last.total_bytes, std::ssize(weights_));
}

TEST(HubHttps, CertificatesAndNoWayBackToHttp) {
  const testing::TempDir folder;
  const std::string pem = (folder.path() / "both.pem").string();
  const std::string command =
      "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 "
      "-keyout '" +
      pem + "' -out '" + pem + ".crt' >/dev/null 2>&1 && cat '" + pem + ".crt' >>'" + pem + "'";
  if (std::system(command.c_str()) != 0) GTEST_SKIP() << "no openssl here to make a certificate";
  const FakeHub hub(pem);
  hub.set_environment();
  hub.add("models/org/name/config.json", kConfig);
  hub.add("models/org/name/model.safetensors", noise(300'000));
  HubOptions options;
  options.backoff_seconds = 0.02;
  options.chunk_bytes = 100'000;
  const auto error = [&] { return error_of([&] { resolve_model("org/name", options); }); };
  EXPECT_TRUE(contains(error(), "its certificate is not trusted"));
  setenv("SSL_CERT_FILE", (pem + ".crt").c_str(), 1);
  hub.faults({{"redirect_to", "http://127.0.0.1:9/x"}});
  EXPECT_TRUE(contains(error(), "which is not encrypted"));
  hub.faults({{"cut", {10'000, 3}}});
  EXPECT_EQ(error(), "no error");
  EXPECT_TRUE(read_text_file(resolve_model("org/name", options) / "model.safetensors") == noise(300'000));
  unsetenv("SSL_CERT_FILE");
  setenv("HF_HUB_OFFLINE", "1", 1);
}

TEST(HubHttp, Origins) {
  EXPECT_EQ(origin_of("https://Hub.example/x?y"), "https://hub.example:443");
  EXPECT_EQ(origin_of("http://127.0.0.1:80/x"), origin_of("HTTP://127.0.0.1"));
  EXPECT_NE(origin_of("https://hub.example"), origin_of("http://hub.example"));
  EXPECT_NE(origin_of("https://hub.example"), origin_of("https://hub.example:8443"));
  EXPECT_NE(origin_of("https://hub.example"), origin_of("https://hub.example.evil"));
  EXPECT_EQ(origin_of("https://hub.example@evil/"), "");
  for (const char* url : {"file:///etc/passwd", "ftp://x", "x", "", "https://", "/path"})
    EXPECT_EQ(origin_of(url), "") << url;
  EXPECT_EQ(origin_of("http://[::1]/"), "http://[::1]:80");
  EXPECT_EQ(url_quoted("a b/ü#?", true), "a%20b/%C3%BC%23%3F");
  EXPECT_EQ(url_quoted("refs/pr/1", false), "refs%2Fpr%2F1");
}

}  // namespace
}  // namespace llmfp8
