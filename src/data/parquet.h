// Parquet files through the module libllmfp8_parquet.so, which is opened on first use: the program itself needs no Arrow.
// Called by dataset.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace llmfp8 {

// Whether the module can be opened, and if not why (one line, for `doctor` and errors).
struct ParquetSupport {
  bool available = false;
  std::string detail;  // the module's path and Arrow's version, or what is missing and how to get it
};
ParquetSupport parquet_support();

// The cells of one column of some rows; null cells are empty optionals. Nested values and numbers are JSON text.
using TextColumn = std::vector<std::optional<std::string>>;

class ParquetFile {
 public:
  // Throws Error: no module, no such file, not parquet or truncated.
  explicit ParquetFile(const std::filesystem::path& path);
  ParquetFile(ParquetFile&&) noexcept;
  ParquetFile& operator=(ParquetFile&&) noexcept;
  ~ParquetFile();

  std::int64_t rows() const;
  std::int32_t row_groups() const;
  std::int64_t row_group_rows(std::int32_t row_group) const;
  const std::vector<std::string>& columns() const;
  const std::string& column_type(const std::string& column) const;  // Arrow's spelling, for example "string"

 private:
  friend class ParquetStream;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Some columns of a file from a row group on, in bounded memory whatever the row groups' size.
class ParquetStream {
 public:
  // file outlives the stream. Throws Error: no such column.
  ParquetStream(const ParquetFile& file, const std::vector<std::string>& columns, std::int32_t first_group = 0);
  ParquetStream(ParquetStream&&) noexcept;
  ParquetStream& operator=(ParquetStream&&) noexcept;
  ~ParquetStream();

  // The next rows, at most so many (fewer at the end), of each column. Throws Error: corrupt data.
  std::vector<TextColumn> next(std::int64_t rows);
  // Passes over so many rows without making text of them. Throws Error: corrupt data, fewer rows.
  void skip(std::int64_t rows);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmfp8
