// JSON Lines: an index of the lines of a file, the lines of a compressed one in turn, and the columns of one line.
// Called by dataset; parse_jsonl_row also by the fuzzer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/decompress.h"

namespace llmfp8 {

inline constexpr std::int64_t kMaxJsonLineBytes = std::int64_t{64} << 20;

// Column name → text. Strings as they are, null left out, anything else as JSON text.
using RowColumns = std::map<std::string, std::string, std::less<>>;

// One line. Throws Error naming `file` and `line_number`: not JSON, not an object, longer than kMaxJsonLineBytes.
RowColumns parse_jsonl_row(std::string_view line, const std::string& file, std::int64_t line_number);

// Memory-mapped; blank lines are no rows, a final newline is optional, "\r\n" ends a line too.
class JsonlFile {
 public:
  // Throws Error: cannot be opened, a line longer than kMaxJsonLineBytes, a first row that is a JSON array (as in a .json
  // file of one array).
  explicit JsonlFile(const std::filesystem::path& path);
  // The same on bytes in memory, which outlive this object.
  JsonlFile(std::string_view bytes, const std::string& name);
  JsonlFile(JsonlFile&&) noexcept;
  JsonlFile& operator=(JsonlFile&&) noexcept;
  ~JsonlFile();

  std::int64_t rows() const { return static_cast<std::int64_t>(lines_.size()); }
  RowColumns row(std::int64_t index) const;
  std::string_view line(std::int64_t index) const;
  std::int64_t line_number(std::int64_t index) const { return lines_[static_cast<std::size_t>(index)].number; }
  const std::string& name() const { return name_; }

 private:
  struct Line {
    std::int64_t offset, bytes, number;  // number counts from 1
  };
  void index_lines();

  struct Mapping;
  std::unique_ptr<Mapping> mapping_;
  std::string name_;
  std::string_view bytes_;
  std::vector<Line> lines_;
};

struct JsonlLine {
  std::string_view text;
  std::int64_t number = 0;  // counts from 1, blank lines too
};

// The rows of a .gz or .zst file from the first one on, by the same rules. Memory: one line and a piece of the file.
class JsonlStream {
 public:
  // Throws Error: as DecompressedFile.
  explicit JsonlStream(const std::filesystem::path& path);

  // Valid until the next call; none at the end. Throws Error: as JsonlFile, cut off, damaged.
  std::optional<JsonlLine> next();

 private:
  std::string_view pending() const { return std::string_view(buffer_).substr(begin_, end_ - begin_); }
  void fill();

  DecompressedFile file_;
  std::string name_;
  std::string buffer_;  // [begin_, end_) is not yet given
  std::size_t begin_ = 0, end_ = 0;
  std::int64_t number_ = 0, rows_ = 0;  // lines and rows given
  bool is_at_end_ = false;
};

// All of the file is decompressed for it, so what is wrong with it is known then.
std::int64_t count_rows(JsonlStream&& lines);

}  // namespace llmfp8
