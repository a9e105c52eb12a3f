// refs/main holds a commit, snapshots/<commit> links to blobs/<etag>, .locks/<repository>/<etag>.lock guards one download.
#include "hub/hub_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "core/error.h"
#include "hub/file_io.h"

namespace llmfp8 {
namespace fs = std::filesystem;
namespace {

std::string folder_name(const HubRepo& repo) {
  std::string name = (repo.kind == RepoKind::model ? "models--" : "datasets--") + repo.name;
  name.replace(name.find('/'), 1, "--");
  return name;
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  CHECK(!error, "{}: cannot be made: {}", folder.string(), error.message());
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

bool is_plain(const std::string& hash) {
  return !hash.empty() && std::all_of(hash.begin(), hash.end(), [](unsigned char c) { return std::isalnum(c); });
}

}  // namespace

RepoCache::RepoCache(fs::path cache, const HubRepo& repo)
    : cache_(std::move(cache)), folder_(cache_ / folder_name(repo)), noun_(repo.noun()) {}

fs::path RepoCache::lock(const std::string& etag) const {
  return cache_ / ".locks" / folder_.filename() / (etag + ".lock");
}

std::optional<fs::path> RepoCache::find_snapshot(const std::string& revision) const {
  std::error_code ignored;
  const fs::path snapshots = folder_ / "snapshots";
  if (!fs::is_directory(snapshots, ignored)) return std::nullopt;
  if (is_plain(revision) && fs::is_directory(snapshots / revision, ignored)) return snapshots / revision;
  const fs::path ref = folder_ / "refs" / revision;
  if (is_safe_repo_path(revision) && fs::is_regular_file(ref, ignored)) {
    const std::string hash = trimmed(read_text_file(ref, 4096));
    CHECK(is_plain(hash), "'{}' holds '{}', a commit hash wanted", ref.string(), hash.substr(0, 80));
    const fs::path found = snapshots / hash;
    CHECK(fs::is_directory(found, ignored), "{} '{}' is not completely in the cache: '{}' is missing", noun_,
          folder_.filename().string(), found.string());
    return found;
  }
  if (revision != "main") return std::nullopt;
  std::vector<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(snapshots, ignored)) {
    if (entry.is_directory(ignored)) found.push_back(entry.path());
  }
  if (found.empty()) return std::nullopt;
  CHECK(found.size() == 1, "'{}' holds {} snapshots and no refs/main: give the folder of one of them",
        snapshots.string(), found.size());
  return found[0];
}

void RepoCache::write_ref(const std::string& revision, const std::string& commit) const {
  if (revision == commit || !is_safe_repo_path(revision)) return;
  const fs::path ref = folder_ / "refs" / revision;
  std::error_code ignored;
  const auto is_there = [&] { return fs::is_regular_file(ref, ignored) && read_text_file(ref, 4096) == commit; };
  if (is_there()) return;
  const CacheLock lock(this->lock("refs"), [] {});
  if (is_there()) return;
  make_folder(ref.parent_path());
  write_file_atomically(ref, commit);
}

void RepoCache::link(const std::string& commit, const std::string& path, const std::string& etag) const {
  const fs::path pointer = snapshot(commit) / path;
  const fs::path target = blob(etag).lexically_relative(pointer.parent_path());
  std::error_code error;
  if (fs::is_symlink(pointer, error) && fs::read_symlink(pointer, error) == target) return;
  make_folder(pointer.parent_path());
  const fs::path temporary = pointer.string() + ".tmp." + std::to_string(::getpid());
  fs::remove(temporary, error);
  fs::create_symlink(target, temporary, error);
  CHECK(!error, "{}: no link can be made there: {}", pointer.string(), error.message());
  fs::rename(temporary, pointer, error);
  CHECK(!error, "{}: cannot be written: {}", pointer.string(), error.message());
}

CacheLock::CacheLock(const fs::path& file, const std::function<void()>& waiting) {
  make_folder(file.parent_path());
  while (true) {
    fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0664);
    CHECK(fd_ >= 0, "{}: cannot be opened: {}", file.string(), std::strerror(errno));
    while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      // A file system without locks: the rename of a finished file keeps the cache whole anyway.
      if (errno != EWOULDBLOCK && errno != EINTR) return;
      try {
        waiting();
      } catch (...) {
        ::close(fd_);
        throw;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    struct stat held = {}, named = {};
    const bool same = ::fstat(fd_, &held) == 0 && ::stat(file.c_str(), &named) == 0 && held.st_ino == named.st_ino;
    if (same) return;
    ::close(fd_);  // its last holder removed it: a lock that nobody else finds
  }
}

CacheLock::~CacheLock() {
  if (fd_ >= 0) ::close(fd_);
}

std::vector<fs::path> cache_folders(const std::string& cache_dir, const HubEnvironment& hub) {
  std::vector<fs::path> folders;
  if (!cache_dir.empty()) folders.emplace_back(cache_dir);
  if (!hub.cache.empty()) folders.push_back(hub.cache);
  return folders;
}

std::vector<std::string> spellings(const std::string& name) {
  const std::string org = "meta-llama/";
  const std::string plain = org + "Llama-3.1-";
  const std::string meta = org + "Meta-Llama-3.1-";
  if (name.starts_with(plain)) return {name, meta + name.substr(plain.size())};
  if (name.starts_with(meta)) return {name, plain + name.substr(meta.size())};
  return {name};
}

}  // namespace llmfp8
