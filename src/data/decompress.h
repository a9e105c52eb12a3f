// A gzip or Zstandard file as one stream of bytes, in bounded memory. Called by jsonl.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace llmfp8 {

enum class Compression { none, gzip, zstd };
// By the end of the name: .gz, .zst.
Compression compression_of(const std::filesystem::path& path);

// Members of gzip and frames of Zstandard may follow each other, and zeros a member of gzip. Checksums and lengths that the
// file carries are compared.
class DecompressedFile {
 public:
  // path: .gz or .zst. Throws Error: cannot be opened, not a regular file, nothing in it.
  explicit DecompressedFile(const std::filesystem::path& path);
  DecompressedFile(const DecompressedFile&) = delete;
  DecompressedFile& operator=(const DecompressedFile&) = delete;
  ~DecompressedFile();

  // Fills `out` as far as there is something left; 0 is the end. Throws Error naming the byte of the file at which it is
  // cut off or damaged.
  std::size_t read(char* out, std::size_t bytes);

  class Decoder;

 private:
  void refill();

  std::string name_;
  int file_ = -1;
  std::unique_ptr<char[]> input_;    // what was read of the file last
  std::size_t at_ = 0, filled_ = 0;  // of input_
  std::int64_t behind_ = 0;          // bytes of the file before input_
  bool is_at_end_ = false;           // nothing is left behind input_
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace llmfp8
