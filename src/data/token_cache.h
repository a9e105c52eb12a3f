// The tokens of a large data set on the disk, so that they are made once: a folder for each pair of rows and way to encode
// them, of numbered segments. What a killed process has left is gone on with; of two processes that want the same tokens one
// makes them, and the other waits. Called by tokenize_dataset.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "data/token_segment.h"

namespace llmfp8 {

// What is known of a file without reading all of it: of a hub's blob its hash, else size, time of change and a checksum of
// its ends.
std::string file_identity(const std::filesystem::path& file);
// The part of it that a copy of the file shares: "N bytes, ends …".
std::string file_ends(const std::filesystem::path& file);

class TokenCache {
 public:
  // folder: of all caches. key: everything that the tokens depend on, as text; two keys never share a folder.
  TokenCache(const std::filesystem::path& folder, const std::string& key);
  ~TokenCache();
  TokenCache(const TokenCache&) = delete;
  TokenCache& operator=(const TokenCache&) = delete;

  const std::filesystem::path& folder() const { return folder_; }
  // Whether a process has begun to fill it.
  bool exists() const;
  // Makes the folder and keeps other processes from filling it, until this object goes. While another one does,
  // `go_on_waiting` is called a few times a second; it may throw. False where it said no. Throws Error: not writable.
  bool lock(const std::function<bool()>& go_on_waiting);
  // The segment that begins at this row, or null; it is not looked for behind a gap.
  std::unique_ptr<TokenSegment> open(std::int64_t first_row) const;
  // Under the lock. Throws Error: disk full.
  std::unique_ptr<TokenSegment> write(const SegmentBuilder& segment);

 private:
  std::filesystem::path file_of(std::int64_t first_row) const;

  std::filesystem::path folder_;
  std::string key_;
  int lock_ = -1;  // the file's descriptor, once locked
};

}  // namespace llmfp8
