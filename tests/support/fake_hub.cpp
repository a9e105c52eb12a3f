#include "support/fake_hub.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <random>
#include <stdexcept>

namespace llmfp8::testing {
namespace fs = std::filesystem;

FakeHub::FakeHub(const std::string& certificate) {
  const fs::path root = folder_.path() / "root", script = source_dir() / "tests" / "hub" / "fake_hub.py";
  fs::create_directories(root);
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) throw std::runtime_error("no pipe for the fake hub");
  process_ = fork();
  if (process_ == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    execlp("python3", "python3", script.c_str(), root.c_str(), certificate.empty() ? nullptr : certificate.c_str(),
           nullptr);
    _exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  stdin_ = in[1];
  char c = 0;
  while (::read(out[0], &c, 1) == 1 && c != '\n') endpoint_ += c;
  ::close(out[0]);
  if (endpoint_.empty()) throw std::runtime_error("the fake hub does not start");
}

FakeHub::~FakeHub() {
  ::close(stdin_);  // it ends with its standard input
  int status = 0;
  waitpid(process_, &status, 0);
}

void FakeHub::add(const std::string& file, std::string_view text) const {
  const fs::path path = folder_.path() / "root" / file;
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

void FakeHub::faults(const nlohmann::json& faults) const {
  add("faults.json.new", faults.dump());
  fs::rename(folder_.path() / "root" / "faults.json.new", folder_.path() / "root" / "faults.json");
}

std::vector<nlohmann::json> FakeHub::log() const {
  const fs::path file = folder_.path() / "root" / "log.jsonl";
  return fs::exists(file) ? read_jsonl(file) : std::vector<nlohmann::json>();
}

std::size_t FakeHub::count(const std::string& method, const std::string& path_end) const {
  const auto lines = log();
  return static_cast<std::size_t>(std::count_if(lines.begin(), lines.end(), [&](const nlohmann::json& line) {
    return line["method"] == method && line["path"].get<std::string>().ends_with(path_end);
  }));
}

std::map<std::string, std::string> FakeHub::environment() const {
  return {{"HF_ENDPOINT", endpoint_},         {"HF_HUB_CACHE", cache().string()},
          {"HF_HOME", path("home").string()}, {"HF_HUB_OFFLINE", ""},
          {"TRANSFORMERS_OFFLINE", ""},       {"HF_TOKEN", ""},
          {"HUGGING_FACE_HUB_TOKEN", ""},     {"HF_TOKEN_PATH", ""},
          {"HF_HUB_DOWNLOAD_TIMEOUT", ""},    {"SSL_CERT_FILE", ""},
          {"REQUESTS_CA_BUNDLE", ""},         {"CURL_CA_BUNDLE", ""},
          {"no_proxy", "127.0.0.1"},          {"NO_PROXY", "127.0.0.1"}};
}

void FakeHub::set_environment() const {
  for (const auto& [name, value] : environment()) {
    if (value.empty())
      unsetenv(name.c_str());
    else
      setenv(name.c_str(), value.c_str(), 1);
  }
}

std::string noise(std::size_t bytes, unsigned seed) {
  std::mt19937 random(seed);
  std::string text(bytes, '\0');
  std::generate(text.begin(), text.end(), [&] { return static_cast<char>(random()); });
  return text;
}

}  // namespace llmfp8::testing
