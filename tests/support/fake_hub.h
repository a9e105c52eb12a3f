// tests/hub/fake_hub.py as a child process: a hub of files in a temporary folder, whose faults a test switches on. Used by
// tests/hub, tests/data and tests/e2e.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "support/golden.h"

namespace llmfp8::testing {

class FakeHub {
 public:
  // certificate: a PEM file with certificate and key, for https; empty: http.
  explicit FakeHub(const std::string& certificate = "");
  ~FakeHub();
  FakeHub(const FakeHub&) = delete;
  FakeHub& operator=(const FakeHub&) = delete;

  const std::string& endpoint() const { return endpoint_; }
  std::filesystem::path cache() const { return folder_.path() / "cache"; }
  std::filesystem::path path(const std::string& name) const { return folder_.path() / name; }
  // file: "models/org/name/config.json", "datasets/org/name/README.md".
  void add(const std::string& file, std::string_view text) const;
  // See FAULTS in fake_hub.py; an empty object ends them.
  void faults(const nlohmann::json& faults) const;
  std::vector<nlohmann::json> log() const;  // a line a request
  // Requests whose path ends so.
  std::size_t count(const std::string& method, const std::string& path_end) const;
  // HF_ENDPOINT and a cache of its own; without a token and HF_HUB_OFFLINE. A value "" is to be removed.
  std::map<std::string, std::string> environment() const;
  void set_environment() const;  // of this process

 private:
  TempDir folder_;
  std::string endpoint_;
  int process_ = -1, stdin_ = -1;
};

// Bytes that no two chunks share.
std::string noise(std::size_t bytes, unsigned seed = 1);

}  // namespace llmfp8::testing
