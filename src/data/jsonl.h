// JSON Lines: an index of the lines of a file, and the columns of one line. Called by dataset; parse_jsonl_row also by
// the fuzzer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace llmfp8 {

inline constexpr std::int64_t kMaxJsonLineBytes = std::int64_t{64} << 20;

// Column name → text. Strings as they are, null left out, anything else as JSON text.
using RowColumns = std::map<std::string, std::string, std::less<>>;

// One line. Throws Error naming `file` and `line_number`: not JSON, not an object, longer than kMaxJsonLineBytes.
RowColumns parse_jsonl_row(std::string_view line, const std::string& file, std::int64_t line_number);

// Memory-mapped; blank lines are no rows, a final newline is optional, "\r\n" ends a line too.
class JsonlFile {
 public:
  // Throws Error: cannot be opened, a line longer than kMaxJsonLineBytes.
  explicit JsonlFile(const std::filesystem::path& path);
  // The same on bytes in memory, which outlive this object.
  JsonlFile(std::string_view bytes, const std::string& name);
  JsonlFile(JsonlFile&&) noexcept;
  JsonlFile& operator=(JsonlFile&&) noexcept;
  ~JsonlFile();

  std::int64_t rows() const { return static_cast<std::int64_t>(lines_.size()); }
  RowColumns row(std::int64_t index) const;
  std::string_view line(std::int64_t index) const;
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

}  // namespace llmfp8
