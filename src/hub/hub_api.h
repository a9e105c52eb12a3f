// What the hub says of a repository: its commit, its files, where a file's bytes lie. Called by hub_repository and hub_download.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hub/hub_http.h"
#include "hub/hub_options.h"

namespace llmfp8 {

enum class RepoKind { model, dataset };

struct HubRepo {
  RepoKind kind = RepoKind::model;
  std::string name;  // "org/name", checked by is_hub_name

  std::string noun() const { return kind == RepoKind::model ? "model" : "dataset"; }
  std::string api_path() const { return (kind == RepoKind::model ? "/api/models/" : "/api/datasets/") + name; }
  std::string page_path() const { return (kind == RepoKind::model ? "/" : "/datasets/") + name; }
};

struct HubFile {
  std::string path;  // relative, '/' between its parts; is_safe_repo_path
  std::int64_t size_bytes = 0;
};

struct HubFileSource {
  std::string hub_url;  // on the hub itself
  std::string url;      // where the bytes lie, as far as it is known
  std::string etag;     // the blob's name: sha256 of a large file, git's SHA-1 of a small one, or something else
  std::int64_t size_bytes = 0;
};

class HubApi {
 public:
  HubApi(const HubEnvironment& hub, const HubOptions& options);

  // Of options.revision. Throws Error: no such repository or revision, gated (names the page), no access.
  std::string commit(const HubRepo& repo);
  // Throws Error where a name would leave a folder.
  std::vector<HubFile> files(const HubRepo& repo, const std::string& commit);
  HubFileSource source(const HubRepo& repo, const std::string& commit, const std::string& path);

  // Of an answer that is no success: one line that says what the user can do.
  [[noreturn]] void refuse(const HttpResponse& response, const HubRepo& repo, const std::string& what) const;

  const HubEnvironment& environment() const { return hub_; }
  HttpSession& session() { return session_; }

 private:
  // Retried; followed; refused where it is no 200.
  HttpResponse get(const HttpRequest& request, const HubRepo& repo, const std::string& what);

  HubEnvironment hub_;
  HubOptions options_;
  HttpSession session_;
};

// org/name of letters, digits, '.', '_' and '-', without "..": what the hub allows, and nothing that leaves the cache.
bool is_hub_name(const std::string& name);
// A relative path whose parts are no "", "." or "..", without control characters or backslashes.
bool is_safe_repo_path(const std::string& path);

}  // namespace llmfp8
