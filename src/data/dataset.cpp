// Rows from parquet and JSONL files. Called by the trainer and the answer evaluation.
#include "data/dataset.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>
#include <variant>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/dataset_files.h"
#include "data/jsonl.h"
#include "data/parquet.h"
#include "text/utf8.h"

namespace llmfp8 {

namespace fs = std::filesystem;

namespace {

// JSON rows whose keys decide which columns a file of JSON Lines has.
constexpr std::int64_t kRowsForColumns = 100;
// Of compressed lines that wait to be encoded.
constexpr std::int64_t kMostLineBytes = std::int64_t{128} << 20;

struct CompressedJsonl {};  // read anew by a JsonlStream: it has no place to jump to

struct Source {
  fs::path path;
  std::variant<JsonlFile, ParquetFile, CompressedJsonl> file;
  std::int64_t first_row = 0, rows = 0;
  std::vector<std::int64_t> group_starts{};  // of a parquet file: the first row of each row group

  // Of a row of the file.
  std::int32_t group_of(std::int64_t row_in_file) const {
    return static_cast<std::int32_t>(std::upper_bound(group_starts.begin(), group_starts.end(), row_in_file) - group_starts.begin()) - 1;
  }
};

using Cells = RawRow::Cells;

std::vector<std::string> columns_of(RowFormat format, const std::string& text_field) {
  switch (format) {
    case RowFormat::math: return {"problem", "generated_solution"};
    case RowFormat::messages: return {"messages"};
    case RowFormat::prompt_completion: return {"prompt", "completion"};
    case RowFormat::question_answer: return {"question", "answer"};
    case RowFormat::text: return {text_field};
  }
  fail("unknown row format");
}

bool has(const std::vector<std::string>& columns, const std::string& name) {
  return std::find(columns.begin(), columns.end(), name) != columns.end();
}

RowFormat detect_format(const std::vector<std::string>& columns, const std::string& text_field, const std::string& where) {
  for (const RowFormat format : {RowFormat::math, RowFormat::messages, RowFormat::prompt_completion,
                                 RowFormat::question_answer, RowFormat::text}) {
    const auto wanted = columns_of(format, text_field);
    if (std::all_of(wanted.begin(), wanted.end(), [&](const std::string& name) { return has(columns, name); })) return format;
  }
  fail("{}: no usable columns: found {}; wanted problem + generated_solution, messages, prompt + completion, question + "
       "answer, or the column named by --dataset_text_field (\"{}\")",
       where, columns.empty() ? "none" : fmt::format("{}", fmt::join(columns, ", ")), text_field);
}

Source open_source(const fs::path& path) {
  const std::string suffix = data_file_name(path).suffix;
  CHECK(!suffix.empty(), "{}: a data set is a folder or a file {}", path.string(), kDataFiles);
  if (suffix == ".parquet") {
    ParquetFile file(path);
    std::vector<std::int64_t> starts;
    std::int64_t rows = 0;
    for (std::int32_t group = 0; group < file.row_groups(); rows += file.row_group_rows(group++)) starts.push_back(rows);
    return Source{path, std::move(file), 0, rows, std::move(starts)};
  }
  if (compression_of(path) != Compression::none)
    return Source{path, CompressedJsonl(), 0, count_rows(JsonlStream(path))};
  JsonlFile file(path);
  const std::int64_t rows = file.rows();
  return Source{path, std::move(file), 0, rows};
}

std::vector<std::string> columns_of(const Source& source) {
  if (const auto* parquet = std::get_if<ParquetFile>(&source.file)) return parquet->columns();
  std::vector<std::string> columns;
  const auto add = [&](std::string_view line, std::int64_t number) {
    if (!is_valid_utf8(line)) return;
    for (const auto& [name, text] : parse_jsonl_row(line, source.path.string(), number))
      if (!has(columns, name)) columns.push_back(name);
  };
  const std::int64_t rows = std::min(source.rows, kRowsForColumns);
  if (const auto* jsonl = std::get_if<JsonlFile>(&source.file)) {
    for (std::int64_t i = 0; i < rows; ++i) add(jsonl->line(i), jsonl->line_number(i));
    return columns;
  }
  JsonlStream lines(source.path);
  for (std::int64_t i = 0; i < rows; ++i)
    if (const auto line = lines.next()) add(line->text, line->number);
  return columns;
}

// The row behind the one given last.
JsonlLine next_line(JsonlStream& lines, const Source& source, std::int64_t row) {
  const std::optional<JsonlLine> line = lines.next();
  CHECK(line.has_value(), "{}: ends at row {}, it had {} rows when it was opened", source.path.string(), row,
        source.rows);
  return *line;
}

RowFault fault_of(const std::optional<std::string>& cell) {
  if (!cell.has_value()) return RowFault::null;
  if (!is_valid_utf8(*cell)) return RowFault::not_utf8;
  return cell->find_first_not_of(" \t\r\n\v\f") == std::string::npos ? RowFault::empty : RowFault::none;
}

// A JSON list of {role, …}; empty if it is anything else. Whether a template can write them is not looked at here.
std::vector<ChatMessage> parse_messages(const std::string& json) {
  const nlohmann::ordered_json list = nlohmann::ordered_json::parse(json, nullptr, false);
  if (!list.is_array()) return {};
  std::vector<ChatMessage> messages;
  for (const auto& item : list) {
    std::optional<ChatMessage> message = message_of(item);
    if (!message) return {};
    messages.push_back(std::move(*message));
  }
  return messages;
}

void fill_conversation(DatasetRow& row, const std::string& system, std::string user, std::string assistant) {
  if (!system.empty()) row.messages.push_back({"system", system});
  row.messages.push_back({"user", std::move(user)});
  row.messages.push_back({"assistant", std::move(assistant)});
}

// Of a conversation: a list of what the model may call, or nothing. False where it is something else.
bool take_tools(const Cells& cells, ChatExtras& extras) {
  const auto found = cells.find("tools");
  if (found == cells.end() || !found->second || found->second->empty()) return true;
  const nlohmann::ordered_json tools = nlohmann::ordered_json::parse(*found->second, nullptr, false);
  if (tools.is_null() || (tools.is_array() && tools.empty())) return true;
  if (tools.is_array()) extras.tools = *found->second;
  return tools.is_array();
}

void fill_row(DatasetRow& row, RowFormat format, const std::vector<std::string>& names, Cells& cells,
              const std::string& system_text) {
  for (const std::string& name : names) {
    row.fault = fault_of(cells[name]);
    if (row.fault != RowFault::none) return;
  }
  const auto take = [&](std::size_t i) -> std::string& { return *cells[names[i]]; };
  switch (format) {
    case RowFormat::math:
    case RowFormat::question_answer: fill_conversation(row, system_text, std::move(take(0)), std::move(take(1))); return;
    case RowFormat::text: row.text = std::move(take(0)); return;
    case RowFormat::messages:
      row.messages = parse_messages(take(0));
      if (row.messages.empty() || !take_tools(cells, row.extras)) row.fault = RowFault::bad_messages;
      return;
    case RowFormat::prompt_completion: {
      std::vector<ChatMessage> prompt = parse_messages(take(0)), completion = parse_messages(take(1));
      if (!prompt.empty() && !completion.empty()) {
        row.messages = std::move(prompt);
        std::move(completion.begin(), completion.end(), std::back_inserter(row.messages));
        return;
      }
      row.prompt = std::move(take(0));
      row.text = std::move(take(1));
      return;
    }
  }
}

}  // namespace

std::string_view name_of(RowFault fault) {
  switch (fault) {
    case RowFault::none: return "usable";
    case RowFault::null: return "without a value";
    case RowFault::empty: return "empty";
    case RowFault::not_utf8: return "not UTF-8";
    case RowFault::bad_messages: return "not a list of {role, content} with the roles system, user, assistant";
  }
  return "";
}

bool is_valid_utf8(std::string_view text) { return !first_invalid_utf8(text).has_value(); }

struct Dataset::Impl {
  std::vector<Source> sources;
  std::vector<fs::path> files;
  std::string split_name;
  std::vector<std::string> columns;
  std::vector<std::string> needed, optional;  // columns of the text, and kept beside it where there
  DatasetOptions options;
  RowFormat format = RowFormat::text;
  std::int64_t rows = 0;

  // Of read(), for it goes forward through files that have no index: one reader at a time.
  mutable std::mutex reading;

  // The parquet file read last, and its row that comes next.
  struct ParquetPlace {
    const Source* source = nullptr;
    std::optional<ParquetStream> stream;
    std::vector<std::string> columns;
    std::int64_t row = 0;
  };
  mutable ParquetPlace parquet_place;

  // The compressed file read last, and its row that comes next.
  struct Place {
    const Source* source = nullptr;
    std::unique_ptr<JsonlStream> lines;
    std::int64_t row = 0;
  };
  mutable Place place;

  RawRow::Line line_of(const Source& source, std::int64_t row_in_file) const {
    if (place.source != &source || row_in_file < place.row)
      place = {&source, std::make_unique<JsonlStream>(source.path), 0};
    for (; place.row < row_in_file; ++place.row) next_line(*place.lines, source, place.row);
    const JsonlLine line = next_line(*place.lines, source, place.row++);
    return {std::string(line.text), line.number};
  }

  const Source& source_of(std::int64_t row) const {
    const auto after = std::upper_bound(sources.begin(), sources.end(), row,
                                        [](std::int64_t value, const Source& source) { return value < source.first_row; });
    return *std::prev(after);
  }

  // The columns to read of a file, which may lack the optional ones.
  std::vector<std::string> columns_read(const ParquetFile& file) const {
    std::vector<std::string> names = needed;
    for (const std::string& name : optional)
      if (has(file.columns(), name)) names.push_back(name);
    return names;
  }

  // Between two rows of a row group everything is decoded; from one group to another one jumps.
  Cells cells_of(const Source& source, std::int64_t row_in_file) const {
    ParquetPlace& at = parquet_place;
    const std::int32_t group = source.group_of(row_in_file);
    const std::int64_t group_start = source.group_starts[static_cast<std::size_t>(group)];
    if (at.source != &source || row_in_file < at.row || at.row < group_start) {
      const auto& file = std::get<ParquetFile>(source.file);
      at = {};  // a row that cannot be read leaves no place behind
      std::vector<std::string> columns = columns_read(file);
      ParquetStream stream(file, columns, group);
      at = {&source, std::move(stream), std::move(columns), group_start};
    }
    Cells cells;
    try {
      at.stream->skip(row_in_file - at.row);
      std::vector<TextColumn> row = at.stream->next(1);
      CHECK(!row.front().empty(), "{}: ends at row {}, its footer says {} rows", source.path.string(), row_in_file, source.rows);
      for (std::size_t c = 0; c < at.columns.size(); ++c) cells.emplace(at.columns[c], std::move(row[c].front()));
    } catch (const Error&) {
      at = {};
      throw;
    }
    at.row = row_in_file + 1;
    return cells;
  }

  // Of JSON Lines; false where the line is not UTF-8.
  bool parse_line(const RawRow& raw, Cells& cells) const {
    const Source& source = source_of(raw.index);
    JsonlLine line;
    if (raw.line) {
      line = {raw.line->text, raw.line->number};
    } else {
      const auto& jsonl = std::get<JsonlFile>(source.file);
      line = {jsonl.line(raw.index - source.first_row), jsonl.line_number(raw.index - source.first_row)};
    }
    if (!is_valid_utf8(line.text)) return false;
    for (auto& [name, text] : parse_jsonl_row(line.text, source.path.string(), line.number))
      cells[name] = std::move(text);
    return true;
  }
};

Dataset::Dataset(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Dataset::Dataset(Dataset&&) noexcept = default;
Dataset& Dataset::operator=(Dataset&&) noexcept = default;
Dataset::~Dataset() = default;

std::int64_t Dataset::rows() const { return impl_->rows; }
RowFormat Dataset::format() const { return impl_->format; }
const std::vector<std::string>& Dataset::columns() const { return impl_->columns; }
const std::vector<fs::path>& Dataset::files() const { return impl_->files; }
const std::string& Dataset::split_name() const { return impl_->split_name; }

std::vector<DatasetRow> Dataset::read(std::int64_t begin, std::int64_t end) const {
  CHECK(begin >= 0 && begin <= end && end <= rows(), "rows {} to {} of {}", begin, end, rows());
  const std::lock_guard lock(impl_->reading);
  std::vector<DatasetRow> result;
  result.reserve(static_cast<std::size_t>(end - begin));
  for (std::int64_t index = begin; index < end; ++index) {
    RawRow row{index};
    const Source& source = impl_->source_of(index);
    if (std::holds_alternative<CompressedJsonl>(source.file))
      row.line = impl_->line_of(source, index - source.first_row);
    if (std::holds_alternative<ParquetFile>(source.file)) row.cells = impl_->cells_of(source, index - source.first_row);
    result.push_back(parse(std::move(row)));
  }
  return result;
}

std::vector<DatasetRow> Dataset::read_rows(std::span<const std::int64_t> rows) const {
  std::vector<std::size_t> forward(rows.size());
  std::iota(forward.begin(), forward.end(), std::size_t{0});
  std::stable_sort(forward.begin(), forward.end(), [&](std::size_t a, std::size_t b) { return rows[a] < rows[b]; });
  std::vector<DatasetRow> result(rows.size());
  for (const std::size_t i : forward) result[i] = std::move(read(rows[i], rows[i] + 1).front());
  return result;
}

DatasetRow Dataset::parse(RawRow&& raw) const {
  DatasetRow row;
  row.index = raw.index;
  Cells cells;
  if (raw.cells) {
    cells = std::move(*raw.cells);
  } else if (!impl_->parse_line(raw, cells)) {
    row.fault = RowFault::not_utf8;
    return row;
  }
  const auto keep = [&](const char* name, std::string& out) {
    const auto found = cells.find(name);
    if (found != cells.end() && found->second && is_valid_utf8(*found->second)) out = *found->second;
  };
  keep("expected_answer", row.expected_answer);
  keep("problem_source", row.problem_source);
  fill_row(row, impl_->format, impl_->needed, cells, impl_->options.system_text);
  return row;
}

std::string Dataset::reading() const {
  return fmt::format("rows 0 to {}, columns {}, system text {}", rows(), fmt::join(impl_->needed, " + "), impl_->options.system_text);
}

struct DatasetStream::Impl {
  const Dataset::Impl& dataset;
  std::int64_t row;
  // Of the file that `row` lies in.
  const Source* source = nullptr;
  std::optional<ParquetFile> file;  // opened anew: other readers of it do not matter
  std::optional<ParquetStream> parquet;
  std::vector<std::string> columns;
  std::unique_ptr<JsonlStream> lines;

  void open(const Source& wanted) {
    if (source == &wanted) return;
    source = &wanted;
    parquet.reset();
    lines.reset();
    if (std::holds_alternative<CompressedJsonl>(wanted.file)) {
      lines = std::make_unique<JsonlStream>(wanted.path);
      for (std::int64_t i = 0; i < row - wanted.first_row; ++i) next_line(*lines, wanted, i);
    }
    if (!std::holds_alternative<ParquetFile>(wanted.file)) return;
    file.emplace(wanted.path);
    columns = dataset.columns_read(*file);
    const std::int32_t group = wanted.group_of(row - wanted.first_row);
    parquet.emplace(*file, columns, group);
    parquet->skip(row - wanted.first_row - wanted.group_starts[static_cast<std::size_t>(group)]);
  }

  // How many were taken: fewer than `count` where their lines are long.
  std::int64_t take(std::int64_t count, std::vector<RawRow>& rows) {
    if (lines != nullptr) {
      std::int64_t taken = 0;
      for (std::int64_t bytes = 0; taken < count && bytes < kMostLineBytes; ++taken, ++row) {
        const JsonlLine line = next_line(*lines, *source, row - source->first_row);
        bytes += std::ssize(line.text);
        rows.push_back({row, {}, RawRow::Line{std::string(line.text), line.number}});
      }
      return taken;
    }
    if (!parquet) {
      for (std::int64_t i = 0; i < count; ++i) rows.push_back({row++});
      return count;
    }
    std::vector<TextColumn> cells = parquet->next(count);
    CHECK(std::ssize(cells.front()) == count, "{}: ends at row {}, its footer says {} rows", source->path.string(),
          row - source->first_row + std::ssize(cells.front()), source->rows);
    for (std::size_t i = 0; i < cells.front().size(); ++i) {
      RawRow& raw = rows.emplace_back(row++, Cells());
      for (std::size_t c = 0; c < columns.size(); ++c) raw.cells->emplace(columns[c], std::move(cells[c][i]));
    }
    return count;
  }
};

DatasetStream::DatasetStream(const Dataset& dataset, std::int64_t first_row)
    : impl_(new Impl{*dataset.impl_, first_row, nullptr, {}, {}, {}, nullptr}) {}
DatasetStream::~DatasetStream() = default;

std::vector<RawRow> DatasetStream::next(std::int64_t count) {
  std::vector<RawRow> rows;
  while (std::ssize(rows) < count && impl_->row < impl_->dataset.rows) {
    const Source& source = impl_->dataset.source_of(impl_->row);
    impl_->open(source);
    const std::int64_t end = std::min(source.first_row + source.rows, impl_->dataset.rows);
    const std::int64_t wanted = std::min(count - std::ssize(rows), end - impl_->row);
    if (impl_->take(wanted, rows) < wanted) break;
  }
  return rows;
}

std::vector<std::string> list_splits(const fs::path& path, const std::string& config) {
  if (!fs::is_directory(path)) return {data_file_name(path).stem};
  std::vector<std::string> names;
  for (const auto& [split, files] : split_files(list_folder(path), config)) names.push_back(split);
  return names;
}

DatasetFiles find_dataset_files(const fs::path& path, const std::string& split_name, const std::string& config) {
  CHECK(fs::exists(path), "dataset {}: no such file or folder", path.string());
  DatasetFiles found{path.string(), split_name, {path}};
  if (!fs::is_directory(path)) return found;
  found.files.clear();
  for (const std::string& file : files_of_split(list_folder(path), config, split_name)) found.files.push_back(path / file);
  return found;
}

Dataset open_dataset(const fs::path& path, const std::string& split_name, const DatasetOptions& options) {
  return open_dataset(find_dataset_files(path, split_name, options.config), options);
}

Dataset open_dataset(const DatasetFiles& found, const DatasetOptions& options) {
  CHECK(options.num_of_samples >= 0, "num_of_samples is {}; it must not be negative", options.num_of_samples);
  auto impl = std::make_unique<Dataset::Impl>();
  impl->options = options;
  impl->split_name = found.split;
  impl->files = found.files;
  for (const fs::path& file : impl->files) {
    Source source = open_source(file);
    source.first_row = impl->rows;
    impl->rows += source.rows;
    if (source.rows > 0) impl->sources.push_back(std::move(source));
  }
  CHECK(impl->rows > 0, "dataset {}: split \"{}\" has no rows", found.origin, found.split);
  impl->columns = columns_of(impl->sources.front());
  impl->format = detect_format(impl->columns, options.text_field, impl->sources.front().path.string());
  impl->needed = columns_of(impl->format, options.text_field);
  for (const char* name : {"expected_answer", "problem_source"})
    if (!has(impl->needed, name)) impl->optional.push_back(name);
  if (impl->format == RowFormat::messages) impl->optional.push_back("tools");
  if (options.num_of_samples > 0) impl->rows = std::min(impl->rows, options.num_of_samples);
  return Dataset(std::move(impl));
}

}  // namespace llmfp8
