// libllmfp8_parquet.so: parquet columns as text, through Arrow. No exception and no Arrow type crosses the C interface.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <arrow/util/config.h>
#include <nlohmann/json.hpp>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/schema.h>
#include <parquet/file_reader.h>

#include "data/parquet_module/parquet_abi.h"

struct llmfp8_parquet_file {
  std::unique_ptr<parquet::arrow::FileReader> reader;
  std::vector<std::string> names, types;
};

struct llmfp8_parquet_stream {
  std::unique_ptr<arrow::RecordBatchReader> reader;
  std::vector<int> places;  // in a batch, of each column asked for
  std::shared_ptr<arrow::RecordBatch> batch;
  int64_t used = 0;  // rows of the batch

  // Whether a row is left, in `batch` behind `used`.
  bool fill();
};

namespace {

constexpr int64_t kPageBufferBytes = int64_t{1} << 20;
constexpr int64_t kBatchRows = 4096;  // decoded at once

struct TextOwner {
  std::string data;
  std::vector<int64_t> offsets;
  std::vector<uint8_t> valid;
};

void set_error(llmfp8_parquet_error error, const std::string& text) {
  if (error.text != nullptr && error.bytes > 0) std::snprintf(error.text, error.bytes, "%s", text.c_str());
}

void check(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

template <typename T>
T value_or_throw(arrow::Result<T> result) {
  check(result.status());
  return std::move(result).ValueUnsafe();
}

// Build into an out-pointer is deprecated where Build returns a Result, and the only form before that.
template <typename Builder>
std::unique_ptr<parquet::arrow::FileReader> build(Builder& builder) {
  if constexpr (requires { builder.Build(); }) {
    return value_or_throw(builder.Build());
  } else {
    std::unique_ptr<parquet::arrow::FileReader> reader;
    check(builder.Build(&reader));
    return reader;
  }
}

void add_leaves(const parquet::arrow::SchemaField& field, std::vector<int>& leaves) {
  if (field.is_leaf()) leaves.push_back(field.column_index);
  for (const auto& child : field.children) add_leaves(child, leaves);
}

nlohmann::ordered_json to_json(const arrow::Array& array, int64_t row);

nlohmann::ordered_json struct_to_json(const arrow::StructArray& array, int64_t row) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (int field = 0; field < array.num_fields(); ++field)
    object[array.struct_type()->field(field)->name()] = to_json(*array.field(field), row);
  return object;
}

template <typename List>
nlohmann::ordered_json list_to_json(const List& array, int64_t row) {
  nlohmann::ordered_json items = nlohmann::ordered_json::array();
  for (int64_t i = array.value_offset(row); i < array.value_offset(row + 1); ++i) items.push_back(to_json(*array.values(), i));
  return items;
}

nlohmann::ordered_json to_json(const arrow::Array& array, int64_t row) {
  if (array.IsNull(row)) return nullptr;
  switch (array.type_id()) {
    case arrow::Type::STRING: return std::string(static_cast<const arrow::StringArray&>(array).GetView(row));
    case arrow::Type::LARGE_STRING: return std::string(static_cast<const arrow::LargeStringArray&>(array).GetView(row));
    case arrow::Type::STRUCT: return struct_to_json(static_cast<const arrow::StructArray&>(array), row);
    case arrow::Type::LIST: return list_to_json(static_cast<const arrow::ListArray&>(array), row);
    case arrow::Type::LARGE_LIST: return list_to_json(static_cast<const arrow::LargeListArray&>(array), row);
    case arrow::Type::BOOL: return static_cast<const arrow::BooleanArray&>(array).Value(row);
    case arrow::Type::INT32: return static_cast<const arrow::Int32Array&>(array).Value(row);
    case arrow::Type::INT64: return static_cast<const arrow::Int64Array&>(array).Value(row);
    default: return value_or_throw(array.GetScalar(row))->ToString();
  }
}

// A nested string that is not UTF-8 makes the cell a byte that is not UTF-8 either: the caller counts and drops it.
std::string to_text(const nlohmann::ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  try {
    return value.dump();
  } catch (const nlohmann::json::type_error&) {
    return "\xff";
  }
}

template <typename Strings>
void append_strings(const Strings& array, TextOwner& text) {
  for (int64_t row = 0; row < array.length(); ++row) {
    text.valid.push_back(array.IsValid(row));
    if (array.IsValid(row)) text.data.append(array.GetView(row));
    text.offsets.push_back(static_cast<int64_t>(text.data.size()));
  }
}

void append_values(const arrow::Array& array, TextOwner& text) {
  for (int64_t row = 0; row < array.length(); ++row) {
    text.valid.push_back(array.IsValid(row));
    if (array.IsValid(row)) {
      text.data += to_text(to_json(array, row));
    }
    text.offsets.push_back(static_cast<int64_t>(text.data.size()));
  }
}

// Arrow's large and plain strings, and dictionaries of them, without going through JSON.
void append_chunk(const std::shared_ptr<arrow::Array>& chunk, TextOwner& text) {
  switch (chunk->type_id()) {
    case arrow::Type::STRING: append_strings(static_cast<const arrow::StringArray&>(*chunk), text); return;
    case arrow::Type::LARGE_STRING: append_strings(static_cast<const arrow::LargeStringArray&>(*chunk), text); return;
    case arrow::Type::DICTIONARY: {
      const auto& dictionary = static_cast<const arrow::DictionaryArray&>(*chunk);
      for (int64_t row = 0; row < dictionary.length(); ++row) {
        text.valid.push_back(dictionary.IsValid(row));
        if (dictionary.IsValid(row)) {
          text.data += to_text(to_json(*dictionary.dictionary(), dictionary.GetValueIndex(row)));
        }
        text.offsets.push_back(static_cast<int64_t>(text.data.size()));
      }
      return;
    }
    default: append_values(*chunk, text);
  }
}

llmfp8_parquet_text to_abi(std::unique_ptr<TextOwner> text) {
  llmfp8_parquet_text abi{text->data.data(), text->offsets.data(), text->valid.data(), static_cast<int64_t>(text->valid.size()), nullptr};
  abi.owner = text.release();
  return abi;
}

}  // namespace

bool llmfp8_parquet_stream::fill() {
  while (batch == nullptr || used == batch->num_rows()) {
    batch = value_or_throw(reader->Next());
    used = 0;
    if (batch == nullptr) return false;
  }
  return true;
}

extern "C" {

int32_t llmfp8_parquet_abi(void) { return LLMFP8_PARQUET_ABI; }

const char* llmfp8_parquet_arrow_version(void) { return ARROW_VERSION_STRING; }

llmfp8_parquet_file* llmfp8_parquet_open(const char* path, llmfp8_parquet_error error) {
  try {
    auto file = std::make_unique<llmfp8_parquet_file>();
    parquet::arrow::FileReaderBuilder builder;
    // Pages as they are needed, not a whole column of a row group, which may be the whole file.
    parquet::ReaderProperties properties = parquet::default_reader_properties();
    properties.enable_buffered_stream();
    properties.set_buffer_size(kPageBufferBytes);
    check(builder.Open(value_or_throw(arrow::io::ReadableFile::Open(path)), properties));
    parquet::ArrowReaderProperties decoding = parquet::default_arrow_reader_properties();
    decoding.set_pre_buffer(false);  // whole columns of every row group, else
    decoding.set_batch_size(kBatchRows);
    builder.properties(decoding);
    file->reader = build(builder);
    // The caller reads columns in parallel to nothing else; Arrow's own thread pool would compete with OpenMP's team.
    file->reader->set_use_threads(false);
    std::shared_ptr<arrow::Schema> schema;
    check(file->reader->GetSchema(&schema));
    for (const auto& field : schema->fields()) {
      file->names.push_back(field->name());
      file->types.push_back(field->type()->ToString());
    }
    return file.release();
  } catch (const std::exception& failure) {
    set_error(error, failure.what());
    return nullptr;
  }
}

void llmfp8_parquet_close(llmfp8_parquet_file* file) { delete file; }

int32_t llmfp8_parquet_row_groups(const llmfp8_parquet_file* file) { return file->reader->num_row_groups(); }

int64_t llmfp8_parquet_row_group_rows(const llmfp8_parquet_file* file, int32_t row_group) {
  return file->reader->parquet_reader()->metadata()->RowGroup(row_group)->num_rows();
}

int32_t llmfp8_parquet_columns(const llmfp8_parquet_file* file) { return static_cast<int32_t>(file->names.size()); }

const char* llmfp8_parquet_column_name(const llmfp8_parquet_file* file, int32_t column) {
  return file->names[static_cast<size_t>(column)].c_str();
}

const char* llmfp8_parquet_column_type(const llmfp8_parquet_file* file, int32_t column) {
  return file->types[static_cast<size_t>(column)].c_str();
}

llmfp8_parquet_stream* llmfp8_parquet_stream_open(llmfp8_parquet_file* file, int32_t first_group, const int32_t* columns,
                                                  int32_t count, llmfp8_parquet_error error) {
  try {
    auto stream = std::make_unique<llmfp8_parquet_stream>();
    std::vector<int> groups, wanted(columns, columns + count), leaves;
    for (int32_t group = first_group; group < file->reader->num_row_groups(); ++group) groups.push_back(group);
    // A batch has the columns in the file's order.
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    for (const int column : wanted) add_leaves(file->reader->manifest().schema_fields.at(static_cast<size_t>(column)), leaves);
    for (int32_t i = 0; i < count; ++i)
      stream->places.push_back(static_cast<int>(std::lower_bound(wanted.begin(), wanted.end(), columns[i]) - wanted.begin()));
    stream->reader = value_or_throw(file->reader->GetRecordBatchReader(groups, leaves));
    return stream.release();
  } catch (const std::exception& failure) {
    set_error(error, failure.what());
    return nullptr;
  }
}

int32_t llmfp8_parquet_stream_next(llmfp8_parquet_stream* stream, int64_t rows, llmfp8_parquet_text* out,
                                   llmfp8_parquet_error error) {
  try {
    std::vector<std::unique_ptr<TextOwner>> texts;
    for (size_t i = 0; i < stream->places.size(); ++i) {
      texts.push_back(std::make_unique<TextOwner>());
      texts.back()->offsets.push_back(0);
    }
    while (rows > 0 && stream->fill()) {
      const int64_t taken = std::min(rows, stream->batch->num_rows() - stream->used);
      for (size_t i = 0; i < texts.size(); ++i) {
        const std::shared_ptr<arrow::Array> part = stream->batch->column(stream->places[i])->Slice(stream->used, taken);
        check(part->ValidateFull());
        append_chunk(part, *texts[i]);
      }
      stream->used += taken;
      rows -= taken;
    }
    for (size_t i = 0; i < texts.size(); ++i) out[i] = to_abi(std::move(texts[i]));
    return 0;
  } catch (const std::exception& failure) {
    set_error(error, failure.what());
    return 1;
  }
}

int32_t llmfp8_parquet_stream_skip(llmfp8_parquet_stream* stream, int64_t rows, int64_t* skipped, llmfp8_parquet_error error) {
  try {
    *skipped = 0;
    while (*skipped < rows && stream->fill()) {
      const int64_t taken = std::min(rows - *skipped, stream->batch->num_rows() - stream->used);
      stream->used += taken;
      *skipped += taken;
    }
    return 0;
  } catch (const std::exception& failure) {
    set_error(error, failure.what());
    return 1;
  }
}

void llmfp8_parquet_stream_close(llmfp8_parquet_stream* stream) { delete stream; }

void llmfp8_parquet_free(llmfp8_parquet_text* text) {
  delete static_cast<TextOwner*>(text->owner);
  *text = llmfp8_parquet_text{};
}

}  // extern "C"
