#include "data/token_cache.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/crc32c.h"
#include "core/error.h"
#include "core/hash.h"
#include "hub/file_io.h"

namespace llmfp8 {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kEndBytes = std::size_t{1} << 20;
constexpr auto kWait = std::chrono::milliseconds(100);

bool is_sha256(const std::string& name) {
  return name.size() == 64 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::string content_of(const fs::path& file) {
  std::error_code ignored;
  return fs::is_regular_file(file, ignored) ? read_text_file(file) : "";
}

}  // namespace

std::string file_ends(const fs::path& file) {
  std::error_code error;
  const auto size = static_cast<std::size_t>(fs::file_size(file, error));
  CHECK(!error, "{}: {}", file.string(), error.message());
  std::ifstream in(file, std::ios::binary);
  std::uint32_t crc = 0;
  std::vector<char> part(std::min(size, kEndBytes));
  for (const std::size_t at : {std::size_t{0}, size - part.size()}) {
    in.seekg(static_cast<std::streamoff>(at));
    in.read(part.data(), static_cast<std::streamsize>(part.size()));
    CHECK(in || part.empty(), "{}: cannot be read", file.string());
    crc = crc32c(part.data(), part.size(), crc);
  }
  return fmt::format("{} bytes, ends {:08x}", size, crc);
}

std::string file_identity(const fs::path& file) {
  std::error_code error;
  // A snapshot's file is a link to the blob that is named by its hash.
  const fs::path real = fs::canonical(file, error);
  CHECK(!error, "{}: {}", file.string(), error.message());
  if (real.parent_path().filename() == "blobs" && is_sha256(real.filename().string())) return "sha256 " + real.filename().string();
  struct stat status{};
  CHECK(::stat(real.c_str(), &status) == 0, "{}: {}", file.string(), std::strerror(errno));
  return fmt::format("{}, changed at {}.{:09}", file_ends(real), status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
}

// A key whose short name is taken by another one gets the next.
TokenCache::TokenCache(const fs::path& folder, const std::string& key) : key_(key) {
  const std::uint64_t hash = fnv1a(key);
  for (int i = 0; i == 0 || (exists() && content_of(folder_ / "key.json") != key_); ++i)
    folder_ = folder / (fmt::format("{:016x}", hash) + (i == 0 ? "" : fmt::format("-{}", i)));
}

TokenCache::~TokenCache() {
  if (lock_ >= 0) ::close(lock_);  // which unlocks
}

bool TokenCache::exists() const {
  std::error_code ignored;
  return fs::exists(folder_ / "key.json", ignored);
}

bool TokenCache::lock(const std::function<bool()>& go_on_waiting) {
  if (lock_ >= 0) return true;
  std::error_code error;
  fs::create_directories(folder_, error);
  CHECK(!error, "{}: {}", folder_.string(), error.message());
  const fs::path file = folder_ / "lock";
  struct Descriptor {
    int fd;
    ~Descriptor() {
      if (fd >= 0) ::close(fd);
    }
  } opened{::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)};
  CHECK(opened.fd >= 0, "{}: {}", file.string(), std::strerror(errno));
  while (::flock(opened.fd, LOCK_EX | LOCK_NB) != 0) {
    CHECK(errno == EWOULDBLOCK || errno == EINTR, "{}: cannot be locked ({})", file.string(), std::strerror(errno));
    if (!go_on_waiting()) return false;
    std::this_thread::sleep_for(kWait);
  }
  lock_ = std::exchange(opened.fd, -1);
  // Pieces of files that a killed process was at.
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, error)) {
    std::error_code ignored;
    if (entry.path().filename().string().find(".tmp.") != std::string::npos) fs::remove(entry.path(), ignored);
  }
  if (content_of(folder_ / "key.json") != key_) write_file_atomically(folder_ / "key.json", key_);
  return true;
}

fs::path TokenCache::file_of(std::int64_t first_row) const { return folder_ / fmt::format("rows-{:012}.tokens", first_row); }

std::unique_ptr<TokenSegment> TokenCache::open(std::int64_t first_row) const {
  std::unique_ptr<TokenSegment> segment = open_segment(file_of(first_row));
  return segment && segment->first_row() == first_row && segment->rows() > 0 ? std::move(segment) : nullptr;
}

std::unique_ptr<TokenSegment> TokenCache::write(const SegmentBuilder& segment) {
  CHECK(lock_ >= 0, "{}: written without its lock", folder_.string());
  const fs::path file = file_of(segment.first_row());
  segment.write(file);
  std::unique_ptr<TokenSegment> written = open_segment(file);
  CHECK(written != nullptr, "{}: does not read back", file.string());
  return written;
}

}  // namespace llmfp8
