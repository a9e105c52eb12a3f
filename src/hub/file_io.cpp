// Mapping, reading and writing of whole files, and bounded JSON parsing.
#include "hub/file_io.h"

#include <cerrno>
#include <cstring>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace llmfp8 {
namespace {

constexpr int kMaxJsonDepth = 32;

// Closes the descriptor whatever is thrown.
struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

std::string system_error() { return std::strerror(errno); }

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  CHECK(file.fd >= 0, "cannot open '{}': {}", path.string(), system_error());
  struct stat status = {};
  CHECK(::fstat(file.fd, &status) == 0, "cannot read '{}': {}", path.string(), system_error());
  CHECK(S_ISREG(status.st_mode), "'{}' is not a regular file", path.string());
  CHECK(status.st_size > 0, "'{}' is empty", path.string());
  size_ = static_cast<std::size_t>(status.st_size);
  data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  CHECK(data_ != MAP_FAILED, "cannot map '{}': {}", path.string(), system_error());
}

MappedFile::~MappedFile() { ::munmap(data_, size_); }

void MappedFile::release(ByteSpan part) const {
  if (part.empty()) return;
  // What one page fault brings: the system maps the pages around it too, where it has them.
  constexpr std::size_t kAround = std::size_t{64} << 10;
  const auto begin = reinterpret_cast<std::uintptr_t>(data_), at = reinterpret_cast<std::uintptr_t>(part.data());
  const std::uintptr_t first = std::max(begin, at / kAround * kAround);
  const std::uintptr_t end = std::min(begin + size_, (at + part.size() + kAround - 1) / kAround * kAround);
  ::madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
}

std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  CHECK(file.fd >= 0, "cannot open '{}': {}", path.string(), system_error());
  struct stat status = {};
  CHECK(::fstat(file.fd, &status) == 0, "cannot read '{}': {}", path.string(), system_error());
  CHECK(S_ISREG(status.st_mode), "'{}' is not a regular file", path.string());
  const auto size = static_cast<std::size_t>(status.st_size);
  CHECK(size <= max_bytes, "'{}' has {} bytes, at most {} wanted", path.string(), size, max_bytes);
  std::string text(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = ::read(file.fd, text.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    CHECK(got > 0, "cannot read '{}': {}", path.string(), got == 0 ? "the file became shorter" : system_error());
    done += static_cast<std::size_t>(got);
  }
  return text;
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  const std::filesystem::path temporary = path.string() + ".tmp." + std::to_string(::getpid());
  try {
    const Descriptor file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
    CHECK(file.fd >= 0, "cannot write '{}': {}", path.string(), system_error());
    std::size_t done = 0;
    while (done < content.size()) {
      const ssize_t put = ::write(file.fd, content.data() + done, content.size() - done);
      if (put < 0 && errno == EINTR) continue;
      CHECK(put > 0, "cannot write '{}': {}", path.string(), system_error());
      done += static_cast<std::size_t>(put);
    }
    CHECK(::fsync(file.fd) == 0, "cannot write '{}': {}", path.string(), system_error());
    CHECK(::rename(temporary.c_str(), path.c_str()) == 0, "cannot write '{}': {}", path.string(), system_error());
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

void check_space(const std::filesystem::path& folder, std::size_t bytes, std::string_view what) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  CHECK(error || space.available >= bytes, "{}: {:.2f} GB free on the disk, {} needs {:.2f} GB", folder.string(),
        static_cast<double>(space.available) / 1e9, what, static_cast<double>(bytes) / 1e9);
}

void sync_folder(const std::filesystem::path& folder) {
  const Descriptor opened{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (opened.fd >= 0) ::fsync(opened.fd);
}

void forget_cached(const std::filesystem::path& file) {
  const Descriptor opened{::open(file.c_str(), O_RDONLY | O_CLOEXEC)};
  if (opened.fd >= 0) ::posix_fadvise(opened.fd, 0, 0, POSIX_FADV_DONTNEED);
}

nlohmann::json parse_json_object(std::string_view text, const std::string& origin) {
  const auto limit_depth = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    CHECK(depth <= kMaxJsonDepth, "'{}': JSON nested deeper than {}", origin, kMaxJsonDepth);
    return true;
  };
  try {
    nlohmann::json value = nlohmann::json::parse(text.begin(), text.end(), limit_depth);
    CHECK(value.is_object(), "'{}': a JSON object wanted, {} found", origin, value.type_name());
    return value;
  } catch (const nlohmann::json::exception& error) {
    fail("'{}' is not valid JSON: {}", origin, error.what());
  }
}

}  // namespace llmfp8
