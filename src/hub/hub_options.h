// What a download from the hub is told: where, which revision, how patient, who watches. Filled by train/downloads and tests.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace llmfp8 {

struct HubProgress {
  std::string what;  // "org/name"
  std::int64_t done_bytes = 0;
  std::int64_t total_bytes = 0;  // what lies in the cache already is no part of either
};

// What a hub name came to.
struct HubOrigin {
  std::string repository;  // "org/name"
  std::string revision;    // that was asked for: "main"
  std::string commit;      // that it stands for
};

// Empty values: what the environment says, as Python's huggingface_hub reads it.
struct HubOptions {
  std::string cache_dir;                                  // --weights_cache_dir
  std::string revision = "main";                          // a branch, a tag or a commit
  int connections = 8;                                    // of one large file
  double backoff_seconds = 1.0;                           // before the first retry; doubles
  int attempts = 6;                                       // of a request that makes no progress
  double stall_seconds = 0;                               // without a byte; 0: HF_HUB_DOWNLOAD_TIMEOUT, else 30
  std::int64_t chunk_bytes = 8 << 20;                     // of a ranged request
  std::function<void(const HubProgress&)> progress = {};  // from the calling thread
  std::function<void(const HubOrigin&)> found = {};        // once it is known which commit is used, from the hub or the cache
  std::function<bool()> stopped = {};  // asked often, by any thread; true: give up, keep what there is
};

// HF_ENDPOINT, HF_TOKEN … as they are now.
struct HubEnvironment {
  std::string endpoint;      // "https://huggingface.co", without a slash at its end
  std::string token;         // empty: none. Never printed.
  std::string token_origin;  // "HF_TOKEN" or the file it lies in, for messages
  bool offline = false;      // HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE
  double stall_seconds = 30;
  std::filesystem::path cache;  // HF_HUB_CACHE, HF_HOME/hub, …; empty where there is no HOME either

  // Throws Error: an endpoint that is no http(s) address, a token with control characters.
  static HubEnvironment read();
};

}  // namespace llmfp8
