// Opens the parquet module and wraps its C interface. Called by dataset.
#include "data/parquet.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "core/error.h"
#include "core/modules.h"
#include "data/parquet_module/parquet_abi.h"

namespace llmfp8 {

namespace fs = std::filesystem;

namespace {

constexpr const char* kModuleName = "libllmfp8_parquet.so";

struct Module {
  std::string path;  // empty: not available
  std::string problem;
  decltype(&llmfp8_parquet_abi) abi = nullptr;
  decltype(&llmfp8_parquet_arrow_version) arrow_version = nullptr;
  decltype(&llmfp8_parquet_open) open = nullptr;
  decltype(&llmfp8_parquet_close) close = nullptr;
  decltype(&llmfp8_parquet_row_groups) row_groups = nullptr;
  decltype(&llmfp8_parquet_row_group_rows) row_group_rows = nullptr;
  decltype(&llmfp8_parquet_columns) columns = nullptr;
  decltype(&llmfp8_parquet_column_name) column_name = nullptr;
  decltype(&llmfp8_parquet_column_type) column_type = nullptr;
  decltype(&llmfp8_parquet_stream_open) stream_open = nullptr;
  decltype(&llmfp8_parquet_stream_next) stream_next = nullptr;
  decltype(&llmfp8_parquet_stream_skip) stream_skip = nullptr;
  decltype(&llmfp8_parquet_stream_close) stream_close = nullptr;
  decltype(&llmfp8_parquet_free) free = nullptr;
};

template <typename Function>
bool resolve(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

bool resolve_all(void* library, Module& m) {
  return resolve(library, "llmfp8_parquet_abi", m.abi) && m.abi() == LLMFP8_PARQUET_ABI &&
         resolve(library, "llmfp8_parquet_arrow_version", m.arrow_version) &&
         resolve(library, "llmfp8_parquet_open", m.open) && resolve(library, "llmfp8_parquet_close", m.close) &&
         resolve(library, "llmfp8_parquet_row_groups", m.row_groups) &&
         resolve(library, "llmfp8_parquet_row_group_rows", m.row_group_rows) &&
         resolve(library, "llmfp8_parquet_columns", m.columns) &&
         resolve(library, "llmfp8_parquet_column_name", m.column_name) &&
         resolve(library, "llmfp8_parquet_column_type", m.column_type) &&
         resolve(library, "llmfp8_parquet_stream_open", m.stream_open) &&
         resolve(library, "llmfp8_parquet_stream_next", m.stream_next) &&
         resolve(library, "llmfp8_parquet_stream_skip", m.stream_skip) &&
         resolve(library, "llmfp8_parquet_stream_close", m.stream_close) && resolve(library, "llmfp8_parquet_free", m.free);
}

Module open_module() {
  Module module;
  const fs::path path = find_module(kModuleName);
  if (path.empty()) {
    module.problem = fmt::format("the parquet reader {} is not there (it is built where pyarrow is installed: run `make`, or "
                                 "set LLMFP8_LIB_DIR to its folder); .jsonl files need no module", kModuleName);
    return module;
  }
  // Never closed: Arrow keeps threads and static objects.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    module.problem = fmt::format("{} does not load: {}", path.string(), dlerror());
  } else if (!resolve_all(library, module)) {
    module.problem = fmt::format("{} belongs to another version of this program; build it again", path.string());
  } else {
    module.path = path.string();
  }
  return module;
}

const Module& module() {
  static const Module opened = open_module();
  return opened;
}

// The module's text goes here.
class ErrorText {
 public:
  llmfp8_parquet_error target() { return {text_.data(), text_.size()}; }
  // One line.
  std::string line() const {
    std::string text(text_.data());
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
  }

 private:
  std::array<char, 1024> text_{};
};

// Takes the module's text over.
TextColumn cells_of(llmfp8_parquet_text& text) {
  const std::unique_ptr<llmfp8_parquet_text, decltype(&llmfp8_parquet_free)> owner(&text, module().free);
  TextColumn cells(static_cast<std::size_t>(text.rows));
  for (std::size_t i = 0; i < cells.size(); ++i)
    if (text.valid[i] != 0)
      cells[i].emplace(text.data + text.offsets[i], static_cast<std::size_t>(text.offsets[i + 1] - text.offsets[i]));
  return cells;
}

}  // namespace

ParquetSupport parquet_support() {
  if (module().path.empty()) return {false, module().problem};
  return {true, fmt::format("{} (Arrow {})", module().path, module().arrow_version())};
}

struct ParquetFile::Impl {
  std::string name;
  llmfp8_parquet_file* file = nullptr;
  std::vector<std::string> columns, types;
  ~Impl() {
    if (file != nullptr) module().close(file);
  }
  std::int32_t number_of(const std::string& column) const {
    const auto found = std::find(columns.begin(), columns.end(), column);
    CHECK(found != columns.end(), "{}: no column \"{}\"", name, column);
    return static_cast<std::int32_t>(found - columns.begin());
  }
};

ParquetFile::ParquetFile(const fs::path& path) : impl_(std::make_unique<Impl>()) {
  impl_->name = path.string();
  CHECK(fs::is_regular_file(path), "{}: no such file", impl_->name);
  CHECK(!module().path.empty(), "{} cannot be read: {}", impl_->name, module().problem);
  ErrorText error;
  impl_->file = module().open(impl_->name.c_str(), error.target());
  CHECK(impl_->file != nullptr, "{}: not a readable parquet file (truncated or corrupt?): {}", impl_->name, error.line());
  for (std::int32_t i = 0; i < module().columns(impl_->file); ++i) {
    impl_->columns.emplace_back(module().column_name(impl_->file, i));
    impl_->types.emplace_back(module().column_type(impl_->file, i));
  }
}

ParquetFile::ParquetFile(ParquetFile&&) noexcept = default;
ParquetFile& ParquetFile::operator=(ParquetFile&&) noexcept = default;
ParquetFile::~ParquetFile() = default;

std::int32_t ParquetFile::row_groups() const { return module().row_groups(impl_->file); }
const std::vector<std::string>& ParquetFile::columns() const { return impl_->columns; }

std::int64_t ParquetFile::row_group_rows(std::int32_t row_group) const {
  CHECK(row_group >= 0 && row_group < row_groups(), "{}: row group {} of {}", impl_->name, row_group, row_groups());
  const std::int64_t rows = module().row_group_rows(impl_->file, row_group);
  CHECK(rows >= 0 && rows <= std::int64_t{1} << 31, "{}: row group {} claims {} rows", impl_->name, row_group, rows);
  return rows;
}

std::int64_t ParquetFile::rows() const {
  std::int64_t rows = 0;
  for (std::int32_t group = 0; group < row_groups(); ++group) rows += row_group_rows(group);
  return rows;
}

const std::string& ParquetFile::column_type(const std::string& column) const {
  return impl_->types[static_cast<std::size_t>(impl_->number_of(column))];
}

struct ParquetStream::Impl {
  std::string name;
  std::size_t columns;
  llmfp8_parquet_stream* stream = nullptr;
  ~Impl() {
    if (stream != nullptr) module().stream_close(stream);
  }
};

ParquetStream::ParquetStream(const ParquetFile& file, const std::vector<std::string>& columns, std::int32_t first_group)
    : impl_(new Impl{file.impl_->name, columns.size()}) {
  CHECK(first_group >= 0 && first_group <= file.row_groups(), "{}: row group {} of {}", impl_->name, first_group, file.row_groups());
  std::vector<std::int32_t> numbers;
  for (const std::string& column : columns) numbers.push_back(file.impl_->number_of(column));
  ErrorText error;
  impl_->stream = module().stream_open(file.impl_->file, first_group, numbers.data(), static_cast<std::int32_t>(numbers.size()), error.target());
  CHECK(impl_->stream != nullptr, "{}: its columns cannot be read (truncated or corrupt?): {}", impl_->name, error.line());
}

ParquetStream::ParquetStream(ParquetStream&&) noexcept = default;
ParquetStream& ParquetStream::operator=(ParquetStream&&) noexcept = default;
ParquetStream::~ParquetStream() = default;

void ParquetStream::skip(std::int64_t rows) {
  std::int64_t skipped = 0;
  ErrorText error;
  const std::int32_t status = module().stream_skip(impl_->stream, rows, &skipped, error.target());
  CHECK(status == 0, "{}: cannot be read (truncated or corrupt?): {}", impl_->name, error.line());
  CHECK(skipped == rows, "{}: ends {} rows before its footer says", impl_->name, rows - skipped);
}

std::vector<TextColumn> ParquetStream::next(std::int64_t rows) {
  std::vector<llmfp8_parquet_text> texts(impl_->columns);
  ErrorText error;
  const std::int32_t status = module().stream_next(impl_->stream, rows, texts.data(), error.target());
  CHECK(status == 0, "{}: cannot be read (truncated or corrupt?): {}", impl_->name, error.line());
  std::vector<TextColumn> columns;
  for (llmfp8_parquet_text& text : texts) columns.push_back(cells_of(text));
  for (const TextColumn& column : columns)
    CHECK(column.size() == columns.front().size(), "{}: columns of {} and {} rows", impl_->name, columns.front().size(), column.size());
  return columns;
}

}  // namespace llmfp8
