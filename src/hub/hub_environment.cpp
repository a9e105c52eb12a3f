// The variables and the token file of huggingface_hub, by its rules.
#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "core/error.h"
#include "hub/file_io.h"
#include "hub/hub_options.h"

namespace llmfp8 {
namespace fs = std::filesystem;
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string trimmed(std::string text) {
  const auto blank = [](unsigned char c) { return std::isspace(c) != 0; };
  while (!text.empty() && blank(static_cast<unsigned char>(text.back()))) text.pop_back();
  text.erase(text.begin(), std::find_if_not(text.begin(), text.end(), blank));
  return text;
}

bool is_true(std::string value) {
  std::transform(value.begin(), value.end(), value.begin(), [](unsigned char c) { return std::toupper(c); });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

fs::path expanded(const std::string& path) {
  if (path == "~" || path.starts_with("~/")) return fs::path(environment("HOME") + path.substr(1));
  return path;
}

// HF_HOME, else XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface.
fs::path hub_home() {
  if (const std::string home = environment("HF_HOME"); !home.empty()) return expanded(home);
  if (const std::string cache = environment("XDG_CACHE_HOME"); !cache.empty()) return expanded(cache) / "huggingface";
  if (const std::string user = environment("HOME"); !user.empty()) return fs::path(user) / ".cache" / "huggingface";
  return {};
}

void read_token(HubEnvironment& hub) {
  for (const char* name : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}) {
    hub.token = trimmed(environment(name));
    hub.token_origin = name;
    if (!hub.token.empty()) return;
  }
  hub.token_origin.clear();
  if (is_true(environment("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return;
  const std::string given = environment("HF_TOKEN_PATH");
  const fs::path file = given.empty() ? hub_home() / "token" : expanded(given);
  std::error_code ignored;
  if (file == "token" || !fs::is_regular_file(file, ignored)) return;
  hub.token = trimmed(read_text_file(file, 64 << 10));
  hub.token_origin = file.string();
}

}  // namespace

HubEnvironment HubEnvironment::read() {
  HubEnvironment hub;
  hub.endpoint = environment("HF_ENDPOINT");
  if (hub.endpoint.empty()) hub.endpoint = "https://huggingface.co";
  while (hub.endpoint.ends_with('/')) hub.endpoint.pop_back();
  const bool plain =
      std::all_of(hub.endpoint.begin(), hub.endpoint.end(), [](unsigned char c) { return c > 0x20 && c < 0x7F; });
  if (!plain || (!hub.endpoint.starts_with("https://") && !hub.endpoint.starts_with("http://")) ||
      hub.endpoint.find('@') != std::string::npos)
    fail("HF_ENDPOINT: an address like https://huggingface.co wanted (http or https, no user name in it)");
  read_token(hub);
  // It goes into a header: a line break would begin another one.
  const bool printable =
      std::all_of(hub.token.begin(), hub.token.end(), [](unsigned char c) { return c > 0x20 && c < 0x7F; });
  CHECK(printable && hub.token.size() <= 4096, "{} holds no token: visible ASCII characters wanted", hub.token_origin);
  hub.offline = is_true(environment("HF_HUB_OFFLINE")) || is_true(environment("TRANSFORMERS_OFFLINE"));
  if (const std::string given = environment("HF_HUB_DOWNLOAD_TIMEOUT"); !given.empty()) {
    char* end = nullptr;
    hub.stall_seconds = std::strtod(given.c_str(), &end);
    CHECK(*end == '\0' && hub.stall_seconds >= 1 && hub.stall_seconds <= 86400,
          "HF_HUB_DOWNLOAD_TIMEOUT is '{}', seconds wanted, 1 to 86400", given);
  }
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const std::string cache = environment(name); hub.cache.empty() && !cache.empty()) hub.cache = expanded(cache);
  }
  if (const fs::path home = hub_home(); hub.cache.empty() && !home.empty()) hub.cache = home / "hub";
  return hub;
}

}  // namespace llmfp8
