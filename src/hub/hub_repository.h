// From what a user types after --model_name or --dataset_name to files on this machine, downloaded where they are not here yet.
// Called by train/downloads; datasets by way of data/dataset_source.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "hub/hub_api.h"
#include "hub/hub_options.h"

namespace llmfp8 {

// For the user: what downloads go through, or why there are none.
std::string describe_downloads();

enum class ModelParts { all, without_weights };

// A folder in HF layout, a .gguf file, or a hub name "org/name" or "org/name@revision" (a branch, tag or commit); the path of the folder or file. Cached in options.cache_dir where
// that is not empty, else where huggingface_hub caches. Only what this engine reads is downloaded, config.json first: a model
// that is gated or not supported is refused before its weights, as is one that the disk has no room for.
// Offline, and where the hub cannot be reached, what the cache holds is used, in the latter case with a line that says so.
// Throws Error of one line; a usage error if the name is neither a path nor of the form org/name; HubStopped.
std::filesystem::path resolve_model(const std::string& name, const HubOptions& options = {},
                                    ModelParts parts = ModelParts::all);

// How names of files end that are a model or a data set (or a part of one) by themselves.
const std::vector<std::string>& file_kinds(RepoKind kind);

// The path that `name` is, or nothing where it is a hub name; as above a usage error where it is neither.
std::optional<std::filesystem::path> find_local(RepoKind kind, const std::string& name);

// A repository's files, of which some are wanted: on the hub, or, offline, in the cache.
class HubSnapshot {
 public:
  // repo.name: as typed, so with @revision where that is wanted.
  static HubSnapshot open(const HubRepo& repo, const HubOptions& options);

  const std::vector<HubFile>& files() const { return files_; }  // of the hub; in the cache, those that lie there
  bool is_on_hub() const { return online_; }
  const std::filesystem::path& folder() const { return folder_; }
  bool has(const std::string& path) const;
  // All of them lie in folder() afterwards; those that do already cost a look. Checks the disk first.
  void fetch(const std::vector<std::string>& paths);

 private:
  HubSnapshot() = default;
  static HubSnapshot find(const HubRepo& repo, const HubOptions& options);
  void fetch_one(HubApi& api, const std::string& path);

  HubRepo repo_;
  HubOptions options_;
  HubEnvironment environment_;
  std::filesystem::path cache_, folder_;
  std::string commit_;
  std::vector<HubFile> files_;
  bool online_ = false;
  std::int64_t fetched_bytes_ = 0, wanted_bytes_ = 0;  // of the fetch() that runs
};

}  // namespace llmfp8
