#include "hub/hub_repository.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <set>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "hub/checkpoint_source.h"
#include "hub/curl_library.h"
#include "hub/file_io.h"
#include "hub/hf_config.h"
#include "hub/hub_cache.h"
#include "hub/hub_download.h"

namespace llmfp8 {
namespace fs = std::filesystem;
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

const char* flag_of(RepoKind kind) { return kind == RepoKind::model ? "--model_name" : "--dataset_name"; }

// "org/name@revision", as hf:// addresses write it: before and behind the @; nothing behind it without one.
std::pair<std::string, std::optional<std::string>> split_revision(const std::string& name) {
  const std::size_t at = name.find('@');
  if (at == std::string::npos) return {name, std::nullopt};
  return {name.substr(0, at), name.substr(at + 1)};
}

// What lies below a snapshot, as the hub would list it; links that lead nowhere are not there.
std::vector<HubFile> files_in(const fs::path& folder) {
  std::vector<HubFile> files;
  std::error_code ignored;
  for (const auto& entry : fs::recursive_directory_iterator(folder, ignored)) {
    if (!entry.is_regular_file(ignored)) continue;
    files.push_back({entry.path().lexically_relative(folder).generic_string(),
                     static_cast<std::int64_t>(entry.file_size(ignored))});
  }
  std::sort(files.begin(), files.end(), [](const HubFile& a, const HubFile& b) { return a.path < b.path; });
  return files;
}

// The first snapshot of that revision in the folders that are looked at, and the folder it was found in.
std::optional<std::pair<fs::path, fs::path>> find_cached(const HubRepo& repo, const HubOptions& options,
                                                         const HubEnvironment& hub) {
  for (const fs::path& cache : cache_folders(options.cache_dir, hub)) {
    for (const std::string& spelling : spellings(repo.name)) {
      const std::optional<fs::path> found = RepoCache(cache, {repo.kind, spelling}).find_snapshot(options.revision);
      if (found) return std::pair(cache, *found);
    }
  }
  return std::nullopt;
}

std::vector<std::string> shards_of(const fs::path& index) {
  const nlohmann::json json = parse_json_object(read_text_file(index), index.string());
  CHECK(json.contains("weight_map") && json["weight_map"].is_object(), "'{}': no object \"weight_map\"",
        index.string());
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : json["weight_map"].items()) {
    CHECK(shard.is_string() && is_safe_repo_path(shard.get<std::string>()),
          "'{}': \"weight_map\" gives tensor '{}' no file of the folder", index.string(), tensor);
    shards.insert(shard.get<std::string>());
  }
  return {shards.begin(), shards.end()};
}

void fetch_weights(HubSnapshot& snapshot, const std::string& name) {
  if (snapshot.has(kSingle)) return snapshot.fetch({kSingle});
  if (snapshot.has(kIndex)) {
    snapshot.fetch({kIndex});
    return snapshot.fetch(shards_of(snapshot.folder() / kIndex));
  }
  if (!snapshot.is_on_hub()) return;  // opening the folder says what it wants
  const auto gguf = std::find_if(snapshot.files().begin(), snapshot.files().end(),
                                 [](const HubFile& file) { return file.path.ends_with(".gguf"); });
  fail("model '{}' has no safetensors on the hub{}", name,
       gguf == snapshot.files().end()
           ? ""
           : ", but GGUF files: download one of them, " + gguf->path + " for example, and give its path");
}

}  // namespace

std::string describe_downloads() {
  try {
    const HubEnvironment hub = HubEnvironment::read();
    const std::string version = CurlLibrary::get().version();  // "libcurl/7.88.1 OpenSSL/3.0.19 zlib/…"
    const std::string token = hub.token.empty() ? "no token" : "token from " + hub.token_origin;
    return fmt::format("{}, {}, into {}, {}", hub.offline ? "forbidden by HF_HUB_OFFLINE" : "from " + hub.endpoint,
                       token, hub.cache.string(), version.substr(0, version.find(' ', version.find(' ') + 1)));
  } catch (const Error& error) {
    return fmt::format("no: {}", error.what());
  }
}

const std::vector<std::string>& file_kinds(RepoKind kind) {
  static const std::vector<std::string> of_models = {".gguf"};
  static const std::vector<std::string> of_datasets = {".parquet", ".jsonl",   ".jsonl.gz", ".jsonl.zst",
                                                       ".json",    ".json.gz", ".json.zst"};
  return kind == RepoKind::model ? of_models : of_datasets;
}

std::optional<fs::path> find_local(RepoKind kind, const std::string& name) {
  const char* flag = flag_of(kind);
  CHECK(!name.empty() && name.find('\0') == std::string::npos, "{} is empty", flag);
  std::error_code ignored;
  const fs::path path(name);
  if (fs::is_directory(path, ignored)) return path;
  std::string file = path.filename().string();
  std::transform(file.begin(), file.end(), file.begin(), [](unsigned char c) { return std::tolower(c); });
  const std::vector<std::string>& kinds = file_kinds(kind);
  const bool named_file = std::any_of(kinds.begin(), kinds.end(), [&](const std::string& end) {
    return file.size() > end.size() && file.ends_with(end);
  });
  if (fs::exists(path, ignored)) {
    if (!named_file)
      fail_usage("{} '{}' is a file; a folder or a {} file wanted", flag, name, fmt::join(kinds, " or "));
    return path;
  }
  if (named_file) fail("{} '{}' does not exist", flag, name);
  const auto [repo, revision] = split_revision(name);
  if (!is_hub_name(repo) || (revision && !is_safe_repo_path(*revision))) {
    fail_usage("{} '{}' is neither a folder, nor a {} file, nor a hub name like org/name or org/name@revision", flag, name,
               fmt::join(kinds, " or "));
  }
  return std::nullopt;
}

HubSnapshot HubSnapshot::open(const HubRepo& repo, const HubOptions& options) {
  const auto [name, revision] = split_revision(repo.name);
  HubOptions chosen = options;
  if (revision) chosen.revision = *revision;
  HubSnapshot snapshot = find({repo.kind, name}, chosen);
  if (options.found) options.found({name, chosen.revision, snapshot.commit_});
  return snapshot;
}

HubSnapshot HubSnapshot::find(const HubRepo& repo, const HubOptions& options) {
  HubSnapshot snapshot;
  snapshot.repo_ = repo;
  snapshot.options_ = options;
  snapshot.environment_ = HubEnvironment::read();
  const HubEnvironment& hub = snapshot.environment_;
  const std::vector<fs::path> folders = cache_folders(options.cache_dir, hub);
  CHECK(!folders.empty(), "no folder for downloads: set HF_HOME, or give --weights_cache_dir");
  std::string looked;
  for (const fs::path& folder : folders) looked += (looked.empty() ? "'" : ", '") + folder.string() + "'";

  const auto use_cache = [&]() -> bool {
    const auto found = find_cached(repo, options, hub);
    if (!found) return false;
    snapshot.cache_ = found->first;
    snapshot.folder_ = found->second;
    snapshot.commit_ = found->second.filename().string();
    snapshot.files_ = files_in(found->second);
    return true;
  };
  if (hub.offline) {
    if (!use_cache()) {
      fail(
          "{} '{}' is not in the local Hugging Face cache (looked in {}), and HF_HUB_OFFLINE forbids to download it; a "
          "folder can be given with {}",
          repo.noun(), repo.name, looked, flag_of(repo.kind));
    }
    return snapshot;
  }
  HubOptions patience = options;
  try {
    if (find_cached(repo, options, hub)) patience.attempts = std::min(options.attempts, 2);
  } catch (const Error&) {  // a broken cache is mended by a download
  }
  try {
    HubApi api(hub, patience);
    snapshot.commit_ = api.commit(repo);
    snapshot.files_ = api.files(repo, snapshot.commit_);
    snapshot.online_ = true;
  } catch (const HubStopped&) {
    throw;
  } catch (const Error& error) {
    // A gated or removed repository, a hub that cannot be reached: what is here already was somebody's to use.
    bool cached = false;
    try {
      cached = use_cache();
    } catch (const Error&) {  // what the hub said matters more than a broken cache
    }
    if (!cached) throw;
    log::warning("{}; taking '{}' as it lies in the cache", error.what(), repo.name);
    return snapshot;
  }
  snapshot.cache_ = folders.front();
  for (const fs::path& folder : folders) {  // a commit that lies in the second place is not downloaded again
    for (const std::string& spelling : spellings(repo.name)) {
      if (!fs::is_directory(RepoCache(folder, {repo.kind, spelling}).snapshot(snapshot.commit_))) continue;
      snapshot.cache_ = folder;
      snapshot.repo_.name = spelling;
      snapshot.folder_ = RepoCache(folder, snapshot.repo_).snapshot(snapshot.commit_);
      return snapshot;
    }
  }
  snapshot.folder_ = RepoCache(snapshot.cache_, snapshot.repo_).snapshot(snapshot.commit_);
  return snapshot;
}

bool HubSnapshot::has(const std::string& path) const {
  return std::any_of(files_.begin(), files_.end(), [&](const HubFile& file) { return file.path == path; });
}

void HubSnapshot::fetch(const std::vector<std::string>& paths) {
  std::error_code ignored;
  std::vector<std::string> missing;
  fetched_bytes_ = wanted_bytes_ = 0;
  for (const std::string& path : paths) {
    if (fs::is_regular_file(folder_ / path, ignored)) continue;
    CHECK(online_, "{} '{}' is not completely in the cache: '{}' is missing{}", repo_.noun(), repo_.name,
          (folder_ / path).string(), environment_.offline ? ", and HF_HUB_OFFLINE forbids to download it" : "");
    const auto found =
        std::find_if(files_.begin(), files_.end(), [&](const HubFile& file) { return file.path == path; });
    CHECK(found != files_.end(), "{} '{}' has no file '{}' on the hub", repo_.noun(), repo_.name, path);
    wanted_bytes_ += found->size_bytes;
    missing.push_back(path);
  }
  const RepoCache cache(cache_, repo_);
  if (!missing.empty()) {
    fs::create_directories(cache.folder() / "blobs", ignored);
    CHECK(fs::is_directory(cache.folder() / "blobs", ignored), "{}: no folder can be made there",
          cache.folder().string());
    check_space(cache.folder(), static_cast<std::size_t>(wanted_bytes_),
                fmt::format("{} '{}'", repo_.noun(), repo_.name));
    HubApi api(environment_, options_);
    for (const std::string& path : missing) fetch_one(api, path);
  }
  if (online_) cache.write_ref(options_.revision, commit_);
}

void HubSnapshot::fetch_one(HubApi& api, const std::string& path) {
  const RepoCache cache(cache_, repo_);
  BlobDownload download;
  download.source = api.source(repo_, commit_, path);
  download.what = fmt::format("{} '{}': {}", repo_.noun(), repo_.name, path);
  download.blob = cache.blob(download.source.etag);
  const auto listed =
      std::find_if(files_.begin(), files_.end(), [&](const HubFile& file) { return file.path == path; });
  CHECK(listed->size_bytes == download.source.size_bytes, "{}: {} bytes in the hub's list, {} where it lies",
        download.what, listed->size_bytes, download.source.size_bytes);
  const auto report = [&](std::int64_t bytes) {
    if (options_.progress) options_.progress({repo_.name, fetched_bytes_ + bytes, wanted_bytes_});
  };
  download.progress = report;
  {
    const CacheLock lock(cache.lock(download.source.etag), [&] {
      api.session().check_stopped();
      report(0);
    });
    std::error_code absent;
    const std::uintmax_t size = fs::file_size(download.blob, absent);
    if (absent || static_cast<std::int64_t>(size) != download.source.size_bytes) {
      download_blob(download, environment_, options_,
                    [&](const HttpResponse& response) { api.refuse(response, repo_, path); });
    }
    cache.link(commit_, path, download.source.etag);
  }
  fetched_bytes_ += download.source.size_bytes;
  report(0);
}

fs::path resolve_model(const std::string& name, const HubOptions& options, ModelParts parts) {
  if (const std::optional<fs::path> local = find_local(RepoKind::model, name)) return *local;
  HubSnapshot snapshot = HubSnapshot::open({RepoKind::model, name}, options);
  std::vector<std::string> small;
  for (const char* file : kCompanionFiles) {
    if (snapshot.has(file)) small.push_back(file);
  }
  if (snapshot.has(kLicenseFile)) small.push_back(kLicenseFile);
  if (snapshot.is_on_hub())
    CHECK(snapshot.has("config.json"), "model '{}' has no config.json on the hub: not a model that transformers loads",
          name);
  snapshot.fetch(small);
  if (parts == ModelParts::without_weights) return snapshot.folder();
  if (snapshot.is_on_hub()) read_hf_config(snapshot.folder());  // throws where the model is not supported
  fetch_weights(snapshot, name);
  return snapshot.folder();
}

}  // namespace llmfp8
