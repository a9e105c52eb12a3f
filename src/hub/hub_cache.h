// The cache of Python's huggingface_hub, byte for byte its layout, so that both share what was downloaded:
// models--org--name/{blobs,refs,snapshots} and .locks. Called by hub_repository and hub_download.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "hub/hub_api.h"

namespace llmfp8 {

class RepoCache {
 public:
  RepoCache(std::filesystem::path cache, const HubRepo& repo);

  std::filesystem::path folder() const { return folder_; }
  std::filesystem::path snapshot(const std::string& commit) const { return folder_ / "snapshots" / commit; }
  std::filesystem::path blob(const std::string& etag) const { return folder_ / "blobs" / etag; }
  std::filesystem::path lock(const std::string& etag) const;

  // The snapshot of a revision (a branch, a tag, a commit), or the only one where no ref names it. Throws Error: a broken ref, a
  // ref whose snapshot is missing, several snapshots without one.
  std::optional<std::filesystem::path> find_snapshot(const std::string& revision) const;
  void write_ref(const std::string& revision, const std::string& commit) const;
  // snapshots/commit/path becomes a relative link to the blob.
  void link(const std::string& commit, const std::string& path, const std::string& etag) const;

 private:
  std::filesystem::path cache_, folder_;
  std::string noun_;
};

// A lock that other processes, Python's among them, take too. Gone with the object or the process.
class CacheLock {
 public:
  // Waits while another holds it; calls `waiting` meanwhile, which may throw.
  CacheLock(const std::filesystem::path& file, const std::function<void()>& waiting);
  ~CacheLock();
  CacheLock(const CacheLock&) = delete;
  CacheLock& operator=(const CacheLock&) = delete;

 private:
  int fd_ = -1;
};

// Where to look, in order: cache_dir if it is not empty, then the hub's own.
std::vector<std::filesystem::path> cache_folders(const std::string& cache_dir, const HubEnvironment& hub);
// The hub answers to both spellings of Llama 3.1.
std::vector<std::string> spellings(const std::string& name);

}  // namespace llmfp8
