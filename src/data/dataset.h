// A split of a data set: its files found, its columns understood, its rows read as conversations or plain text. Called by
// the trainer through tokenize_dataset, and by the answer evaluation.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/chat_template.h"

namespace llmfp8 {

// What a row's columns are, in the order in which they are looked for.
enum class RowFormat {
  math,               // problem, generated_solution
  messages,           // messages: list of {role, content}, with what more a model's own chat template takes; tools
  prompt_completion,  // prompt, completion: text that follows text, or two lists of messages
  question_answer,    // question, answer
  text,               // --dataset_text_field
};

// Why a row is left out.
enum class RowFault { none, null, empty, not_utf8, bad_messages };
inline constexpr std::size_t kRowFaults = 5;
std::string_view name_of(RowFault fault);

struct DatasetRow {
  std::int64_t index = 0;  // in the split
  RowFault fault = RowFault::none;
  // A conversation (math, messages, question_answer, prompt_completion of messages), or
  std::vector<ChatMessage> messages;
  ChatExtras extras;  // tools, where messages have that column
  // plain text: prompt (may be empty) followed by text.
  std::string prompt, text;
  // Where the columns are there.
  std::string expected_answer, problem_source;
};

// A row as it comes from a file; Dataset::parse takes it apart.
struct RawRow {
  using Cells = std::map<std::string, std::optional<std::string>, std::less<>>;  // by column
  std::int64_t index = 0;
  std::optional<Cells> cells{};  // of the columns that the format needs, where they had to be decoded with other rows'
  struct Line {
    std::string text;
    std::int64_t number = 0;
  };
  std::optional<Line> line{};  // of a compressed file of JSON Lines
};

struct DatasetOptions {
  std::string text_field = "text";
  std::int64_t num_of_samples = 0;  // the first so many rows; 0: all
  std::string config;               // a configuration named in the README's front matter; empty: "default" or the only one
  // System text of the formats math and question_answer.
  std::string system_text = kMathSystemText;
};

struct DatasetFiles;

class Dataset {
 public:
  std::int64_t rows() const;
  RowFormat format() const;
  const std::vector<std::string>& columns() const;
  const std::vector<std::filesystem::path>& files() const;
  const std::string& split_name() const;

  // The rows [begin, end); rows that are of no use have a fault. Reads forward best: a file is gone through once as
  // long as the calls go up. Thread-safe; one call at a time reads.
  std::vector<DatasetRow> read(std::int64_t begin, std::int64_t end) const;
  // Any rows, in the order given, read once forward: read() from behind to before starts a compressed file anew.
  std::vector<DatasetRow> read_rows(std::span<const std::int64_t> rows) const;

  // What read() gives, in two parts, of which the second one may run on many threads. Thread-safe.
  DatasetRow parse(RawRow&& row) const;
  // Whatever the rows that read() gives depend on beside the files' bytes, as text.
  std::string reading() const;

  Dataset(Dataset&&) noexcept;
  Dataset& operator=(Dataset&&) noexcept;
  ~Dataset();

 private:
  friend class DatasetStream;
  friend Dataset open_dataset(const DatasetFiles&, const DatasetOptions&);
  struct Impl;
  explicit Dataset(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// All rows from one on, forward, in bounded memory.
class DatasetStream {
 public:
  // dataset outlives the stream; it may be read otherwise meanwhile.
  DatasetStream(const Dataset& dataset, std::int64_t first_row);
  ~DatasetStream();
  // The next rows, at most `count`, fewer where they are long; none at the end.
  std::vector<RawRow> next(std::int64_t count);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The files of a split, found and on this machine.
struct DatasetFiles {
  std::string origin;  // for messages: a path or a hub name
  std::string split;
  std::vector<std::filesystem::path> files;
};

// Throws Error: no known columns (names those found), no rows.
Dataset open_dataset(const DatasetFiles& found, const DatasetOptions& options);

// path: a folder in the hub's layout (README.md with data_files, or data/<split>-00000-of-0000N.parquet, or such files at
// the top), or one file that data_file_name knows, all of whose rows are the split whatever its name.
// Throws Error: no such path, a split that is not there (names those that are), a missing shard, no known columns (names
// those found), no rows.
Dataset open_dataset(const std::filesystem::path& path, const std::string& split_name, const DatasetOptions& options);

// The part of it that looks for the files.
DatasetFiles find_dataset_files(const std::filesystem::path& path, const std::string& split_name, const std::string& config);

// The splits that a folder or file has, sorted.
std::vector<std::string> list_splits(const std::filesystem::path& path, const std::string& config = "");

bool is_valid_utf8(std::string_view text);

}  // namespace llmfp8
