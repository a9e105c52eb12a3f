// Files for the readers of hub/: a read-only mapping, a bounded text read, an atomic write, JSON with a depth limit.
// Called by every reader and writer of this folder, and by whoever writes a small file into an export.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace llmfp8 {

using ByteSpan = std::span<const std::byte>;

// A file mapped read-only. Writing through bytes() faults.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  ByteSpan bytes() const { return {static_cast<const std::byte*>(data_), size_}; }
  // The pages around `part` of bytes() no longer count as this process's memory; reading them brings them back.
  void release(ByteSpan part) const;

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

// Throws Error if the file cannot be read or is larger than max_bytes.
std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{64} << 20);

// The file appears whole (temporary name, fsync, rename) or not at all.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

// Throws Error where fewer bytes are free on the disk of `folder`, which exists, than `what` ("the model") needs. Where the
// system does not say, writing will.
void check_space(const std::filesystem::path& folder, std::size_t bytes, std::string_view what);

// The names in the folder reach the disk. A folder that cannot be synced is no reason to lose what lies in it: no
// error.
void sync_folder(const std::filesystem::path& folder);

// Asks the system to read the file from the disk next time; what it does not know how to do, it does not do.
void forget_cached(const std::filesystem::path& file);

// A JSON object. Throws Error that names origin: broken JSON, not an object, nested deeper than 32.
nlohmann::json parse_json_object(std::string_view text, const std::string& origin);

}  // namespace llmfp8
