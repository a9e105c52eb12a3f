// Workers fetch ranges into memory, the calling thread appends them in order: what lies on the disk is always a prefix, so
// that a download may end at any time and go on later, and its hash is known with its last byte.
#include "hub/hub_download.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/sha.h"
#include "hub/file_io.h"

namespace llmfp8 {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kReadBytes = 1 << 20;

// The server sends the whole file whatever range is asked for.
class RangesIgnored : public std::exception {};

bool is_hex(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

// nullptr: the etag is no hash.
std::unique_ptr<ShaBlocks> hash_for(const std::string& etag, std::int64_t size_bytes) {
  if (!is_hex(etag)) return nullptr;
  if (etag.size() == 64) return std::make_unique<Sha256>();
  if (etag.size() != 40) return nullptr;
  auto sha = std::make_unique<Sha1>();
  sha->update(fmt::format("blob {}", size_bytes) + '\0');
  return sha;
}

// <blob>.incomplete, appended to.
class PartialFile {
 public:
  PartialFile(const fs::path& blob, const HubFileSource& source)
      : path_(blob.string() + ".incomplete"), source_(source) {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    CHECK(fd_ >= 0, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
    struct stat status = {};
    CHECK(::fstat(fd_, &status) == 0, "{}: {}", path_.string(), std::strerror(errno));
    if (status.st_size > source.size_bytes)
      clear();
    else
      read_back(status.st_size);
  }
  ~PartialFile() { ::close(fd_); }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  std::int64_t size() const { return size_; }

  void append(std::string_view bytes) {
    CHECK(std::ssize(bytes) <= source_.size_bytes - size_, "{}: more than the {} bytes that the hub said",
          path_.string(), source_.size_bytes);
    std::size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t put =
          ::pwrite(fd_, bytes.data() + done, bytes.size() - done, size_ + static_cast<std::int64_t>(done));
      if (put < 0 && errno == EINTR) continue;
      CHECK(put > 0, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
      done += static_cast<std::size_t>(put);
    }
    if (hash_) hash_->update(bytes);
    size_ += std::ssize(bytes);
  }

  void clear() {
    CHECK(::ftruncate(fd_, 0) == 0, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
    size_ = 0;
    hash_ = hash_for(source_.etag, source_.size_bytes);
  }

  // True where the file gets its name; else it has been emptied.
  bool finish(const fs::path& blob) {
    if (hash_ && hash_->hex() != source_.etag) {
      clear();
      return false;
    }
    CHECK(::fsync(fd_) == 0, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
    CHECK(::rename(path_.c_str(), blob.c_str()) == 0, "{}: cannot be renamed: {}", path_.string(),
          std::strerror(errno));
    sync_folder(blob.parent_path());
    return true;
  }

 private:
  void read_back(std::int64_t bytes) {
    hash_ = hash_for(source_.etag, source_.size_bytes);
    std::string piece(kReadBytes, '\0');
    while (size_ < bytes) {
      const ssize_t got = ::pread(fd_, piece.data(), piece.size(), size_);
      if (got < 0 && errno == EINTR) continue;
      CHECK(got > 0, "{}: cannot be read: {}", path_.string(), got == 0 ? "it became shorter" : std::strerror(errno));
      if (hash_) hash_->update({piece.data(), static_cast<std::size_t>(got)});
      size_ += got;
    }
  }

  fs::path path_;
  const HubFileSource& source_;
  int fd_ = -1;
  std::int64_t size_ = 0;
  std::unique_ptr<ShaBlocks> hash_;
};

// Where the bytes lie now. A signed address expires: then the hub is asked for another one.
class Address {
 public:
  explicit Address(const HubFileSource& source)
      : hub_url_(source.hub_url), url_(source.url.empty() ? source.hub_url : source.url) {}
  std::string get() {
    const std::lock_guard lock(mutex_);
    return url_;
  }
  void answered(const std::string& url) {
    const std::lock_guard lock(mutex_);
    url_ = url;
  }
  // False where it was the hub itself that refused.
  bool forget(const std::string& url) {
    const std::lock_guard lock(mutex_);
    if (url == hub_url_) return false;
    if (url_ == url) url_ = hub_url_;
    return true;
  }

 private:
  std::mutex mutex_;
  std::string hub_url_, url_;
};

class Downloader {
 public:
  Downloader(const BlobDownload& download, const HubEnvironment& hub, const HubOptions& options,
             const std::function<void(const HttpResponse&)>& refuse)
      : download_(download),
        hub_(hub),
        options_(options),
        refuse_(refuse),
        address_(download.source),
        file_(download.blob, download.source) {}

  void run() {
    for (int attempt = 0; attempt < 2; ++attempt) {
      report();
      if (!ranges_ignored_ && left() > options_.chunk_bytes) fetch_in_parallel();
      if (left() > 0) fetch_in_order();
      if (file_.finish(download_.blob)) return;
    }
    fail(
        "{}: its bytes do not have the hash {} that the hub gives, twice: what lies there is damaged, or a proxy "
        "changes it",
        download_.what, download_.source.etag);
  }

 private:
  std::int64_t left() const { return download_.source.size_bytes - file_.size(); }
  void report() {
    if (download_.progress) download_.progress(file_.size());
  }

  // Gets [begin, end), which `take` is given in pieces, until it is whole. skipped: bytes that a server without ranges sends before.
  void fetch(HttpSession& session, ByteRange range, bool whole_file,
             const std::function<bool(std::string_view)>& take) {
    Patience patience(options_);
    std::int64_t at = range.begin;
    while (at < range.end) {
      const std::string url = address_.get();
      std::int64_t skip = whole_file ? at : 0;
      bool wanted = true;
      const BodySink sink = [&](const HttpResponse& head, std::string_view piece) {
        if (head.status == 200 && !whole_file && (at > 0 || range.end < download_.source.size_bytes))
          throw RangesIgnored();
        const auto skipped = std::min<std::int64_t>(head.status == 200 ? skip : 0, std::ssize(piece));
        skip -= skipped;
        piece.remove_prefix(static_cast<std::size_t>(skipped));
        CHECK(std::ssize(piece) <= range.end - at, "{}: the server sends more than the {} bytes that it has",
              download_.what, download_.source.size_bytes);
        at += std::ssize(piece);
        if (!piece.empty()) patience.made_progress();
        wanted = take(piece);
        return wanted;
      };
      try {
        HttpRequest request{url, false, {}};
        if (!whole_file) request.range = ByteRange{at, range.end};
        const HttpResponse response = session.get(request, sink);
        if (!wanted) return;
        if (response.status == 200 || response.status == 206) {
          address_.answered(response.url);
          if (at < range.end) throw HubRetry(download_.what + ": the server sends less than it said");
        } else if (address_.forget(url) || response.url != url) {  // another host: its address may have expired
          throw HubRetry(fmt::format("{}: HTTP status {} for its bytes", download_.what, response.status));
        } else {
          refuse_(response);
        }
      } catch (const HubRetry& failure) {
        patience.wait_after(failure);
      }
    }
  }

  // One connection, straight to the disk.
  void fetch_in_order() {
    HttpSession session(hub_, options_);
    const auto take = [&](std::string_view piece) {
      file_.append(piece);
      report();
      return true;
    };
    if (!ranges_ignored_) {
      try {
        return fetch(session, {file_.size(), download_.source.size_bytes}, false, take);
      } catch (const RangesIgnored&) {
        ranges_ignored_ = true;
      }
    }
    fetch(session, {file_.size(), download_.source.size_bytes}, true, take);
  }

  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    std::map<std::int64_t, std::string> done;  // chunk → bytes; fewer than it has where it was given up
    std::int64_t next = 0;                     // to be fetched
    std::int64_t written = 0;                  // chunks on the disk
    bool stop = false;
    std::exception_ptr failure;
  };

  void work(Shared& shared, std::int64_t begin, std::int64_t chunks) {
    std::unique_lock lock(shared.mutex);
    try {
      lock.unlock();
      HttpSession session(hub_, options_);
      lock.lock();
      while (true) {
        // Memory is bounded by how far ahead of the disk a worker may be.
        shared.changed.wait(lock, [&] {
          return shared.stop || shared.next >= chunks || shared.next < shared.written + 2 * options_.connections;
        });
        if (shared.stop || shared.next >= chunks) return;
        const std::int64_t chunk = shared.next++;
        lock.unlock();
        std::string bytes;
        std::exception_ptr failure;
        const std::int64_t from = begin + chunk * options_.chunk_bytes;
        try {
          const ByteRange range{from, std::min(from + options_.chunk_bytes, download_.source.size_bytes)};
          fetch(session, range, false, [&](std::string_view piece) {
            bytes += piece;
            received_ += std::ssize(piece);
            return !stop_workers_;
          });
        } catch (...) {
          failure = std::current_exception();
        }
        lock.lock();
        shared.done.emplace(chunk, std::move(bytes));
        shared.changed.notify_all();
        if (failure) std::rethrow_exception(failure);
      }
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      if (!shared.failure) shared.failure = std::current_exception();
      shared.stop = stop_workers_ = true;
      shared.changed.notify_all();
    }
  }

  // Appends what is next; the lock is free meanwhile.
  void append_ready(Shared& shared, std::unique_lock<std::mutex>& lock) {
    while (!shared.done.empty() && shared.done.begin()->first == shared.written) {
      const std::string bytes = std::move(shared.done.begin()->second);
      const std::int64_t wanted = std::min(options_.chunk_bytes, left());
      shared.done.erase(shared.done.begin());
      lock.unlock();
      file_.append(bytes);
      lock.lock();
      if (std::ssize(bytes) < wanted) {  // given up: what follows cannot be used
        shared.done.clear();
        return;
      }
      ++shared.written;
      shared.changed.notify_all();
    }
  }

  void fetch_in_parallel() {
    const std::int64_t begin = file_.size(), chunks = (left() + options_.chunk_bytes - 1) / options_.chunk_bytes;
    Shared shared;
    stop_workers_ = false;
    received_ = 0;
    std::vector<std::thread> workers;
    for (std::int64_t i = 0; i < std::min<std::int64_t>(options_.connections, chunks); ++i) {
      workers.emplace_back([&, chunks, begin] { work(shared, begin, chunks); });
    }
    std::unique_lock lock(shared.mutex);
    try {
      while (shared.written < chunks && !shared.stop) {
        shared.changed.wait_for(lock, std::chrono::milliseconds(100));
        append_ready(shared, lock);
        lock.unlock();
        if (download_.progress) download_.progress(begin + received_);
        if (options_.stopped && options_.stopped()) stop_workers_ = true;
        lock.lock();
        if (stop_workers_) shared.stop = true;
      }
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      if (!shared.failure) shared.failure = std::current_exception();
    }
    shared.stop = true;
    if (shared.written < chunks) stop_workers_ = true;
    shared.changed.notify_all();
    lock.unlock();
    for (std::thread& worker : workers) worker.join();
    lock.lock();
    append_ready(shared, lock);
    if (!shared.failure && file_.size() < download_.source.size_bytes)
      throw HubStopped("the download was stopped; what there is of it is kept");
    if (!shared.failure) return;
    try {
      std::rethrow_exception(shared.failure);
    } catch (const RangesIgnored&) {
      ranges_ignored_ = true;
    }
  }

  const BlobDownload& download_;
  const HubEnvironment& hub_;
  const HubOptions& options_;
  const std::function<void(const HttpResponse&)>& refuse_;
  Address address_;
  PartialFile file_;
  bool ranges_ignored_ = false;
  std::atomic<bool> stop_workers_ = false;
  std::atomic<std::int64_t> received_ = 0;
};

}  // namespace

void download_blob(const BlobDownload& download, const HubEnvironment& hub, const HubOptions& options,
                   const std::function<void(const HttpResponse&)>& refuse) {
  std::error_code error;
  fs::create_directories(download.blob.parent_path(), error);
  CHECK(!error, "{}: cannot be made: {}", download.blob.parent_path().string(), error.message());
  Downloader(download, hub, options, refuse).run();
}

}  // namespace llmfp8
