// JSON Lines through nlohmann's parser. Called by dataset.
#include "data/jsonl.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace llmfp8 {

namespace {

constexpr int kMaxNesting = 64;

// nlohmann's parser recurses when it destroys deep values; a row has no use for depth.
void check_nesting(std::string_view line, const std::string& file, std::int64_t line_number) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted) {
      if (c == '\\') ++i;
      else if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      CHECK(++depth <= kMaxNesting, "{} line {}: JSON nested deeper than {} levels", file, line_number, kMaxNesting);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
}

bool blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

// A .json file of one array is common, and what the parser says of its first line would not tell.
void check_no_array(std::string_view first_row, const std::string& file, std::int64_t line_number) {
  CHECK(first_row[first_row.find_first_not_of(" \t\r")] != '[',
        "{} line {}: a JSON array; JSON Lines are wanted, one object a line (jq -c '.[]' makes them of an array)", file,
        line_number);
}

}  // namespace

RowColumns parse_jsonl_row(std::string_view line, const std::string& file, std::int64_t line_number) {
  CHECK(static_cast<std::int64_t>(line.size()) <= kMaxJsonLineBytes, "{} line {}: {} bytes; a line may have {}", file,
        line_number, line.size(), kMaxJsonLineBytes);
  check_nesting(line, file, line_number);
  nlohmann::ordered_json value;  // nested values keep their keys' order
  try {
    value = nlohmann::ordered_json::parse(line);
  } catch (const nlohmann::json::parse_error& error) {
    fail("{} line {}: not valid JSON at byte {}; every line must be one JSON object", file, line_number, error.byte);
  } catch (const nlohmann::json::exception&) {
    fail("{} line {}: a number out of range", file, line_number);
  }
  CHECK(value.is_object(), "{} line {}: a JSON {}; every line must be one JSON object", file, line_number, value.type_name());
  RowColumns columns;
  for (auto& [key, cell] : value.items()) {
    if (cell.is_null()) continue;
    columns.emplace(key, cell.is_string() ? std::move(cell.get_ref<std::string&>()) : cell.dump());
  }
  return columns;
}

struct JsonlFile::Mapping {
  void* data = nullptr;
  std::size_t bytes = 0;
  ~Mapping() {
    if (data != nullptr) munmap(data, bytes);
  }
};

JsonlFile::JsonlFile(const std::filesystem::path& path) : mapping_(std::make_unique<Mapping>()), name_(path.string()) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  CHECK(file >= 0, "{}: cannot be opened: {}", name_, std::strerror(errno));
  struct stat status {};
  const bool regular = fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  if (regular && status.st_size > 0) {
    void* data = mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
    if (data != MAP_FAILED) {
      mapping_->data = data;
      mapping_->bytes = static_cast<std::size_t>(status.st_size);
    }
  }
  close(file);
  CHECK(regular, "{}: not a regular file", name_);
  CHECK(status.st_size == 0 || mapping_->data != nullptr, "{}: cannot be read ({} bytes)", name_, status.st_size);
  bytes_ = std::string_view(static_cast<const char*>(mapping_->data), mapping_->bytes);
  index_lines();
}

JsonlFile::JsonlFile(std::string_view bytes, const std::string& name) : name_(name), bytes_(bytes) { index_lines(); }
JsonlFile::JsonlFile(JsonlFile&&) noexcept = default;
JsonlFile& JsonlFile::operator=(JsonlFile&&) noexcept = default;
JsonlFile::~JsonlFile() = default;

void JsonlFile::index_lines() {
  if (bytes_.starts_with(kByteOrderMark)) bytes_.remove_prefix(kByteOrderMark.size());
  std::int64_t number = 0;
  for (std::size_t start = 0; start < bytes_.size();) {
    std::size_t end = bytes_.find('\n', start);
    if (end == std::string_view::npos) end = bytes_.size();
    ++number;
    const std::size_t length = end - start;
    CHECK(static_cast<std::int64_t>(length) <= kMaxJsonLineBytes, "{} line {}: {} bytes; a line may have {}", name_, number,
          length, kMaxJsonLineBytes);
    if (!blank(bytes_.substr(start, length)))
      lines_.push_back(Line{static_cast<std::int64_t>(start), static_cast<std::int64_t>(length), number});
    start = end + 1;
  }
  if (rows() > 0) check_no_array(line(0), name_, lines_.front().number);
}

std::string_view JsonlFile::line(std::int64_t index) const {
  CHECK(index >= 0 && index < rows(), "{}: row {} of {}", name_, index, rows());
  const Line& line = lines_[static_cast<std::size_t>(index)];
  return bytes_.substr(static_cast<std::size_t>(line.offset), static_cast<std::size_t>(line.bytes));
}

RowColumns JsonlFile::row(std::int64_t index) const {
  const std::string_view text = line(index);
  return parse_jsonl_row(text, name_, lines_[static_cast<std::size_t>(index)].number);
}

JsonlStream::JsonlStream(const std::filesystem::path& path) : file_(path), name_(path.string()) {
  fill();
  if (pending().starts_with(kByteOrderMark)) begin_ += kByteOrderMark.size();
}

void JsonlStream::fill() {
  constexpr std::size_t kFirstBytes = std::size_t{256} << 10, kMostBytes = kMaxJsonLineBytes + kFirstBytes;
  buffer_.erase(0, begin_);
  end_ -= begin_;
  begin_ = 0;
  if (end_ * 2 >= buffer_.size()) buffer_.resize(std::max(kFirstBytes, std::min(kMostBytes, buffer_.size() * 2)));
  try {
    const std::size_t got = file_.read(buffer_.data() + end_, buffer_.size() - end_);
    end_ += got;
    is_at_end_ = got == 0;
  } catch (const Error& error) {
    fail("{} (in or after line {})", error.what(), number_ + 1);
  }
}

std::optional<JsonlLine> JsonlStream::next() {
  while (true) {
    std::size_t length = pending().find('\n'), looked_at = 0;
    while (length == std::string_view::npos && !is_at_end_) {
      looked_at = pending().size();
      CHECK(static_cast<std::int64_t>(looked_at) <= kMaxJsonLineBytes,
            "{} line {}: more than {} bytes; a line may have {}", name_, number_ + 1, looked_at - 1, kMaxJsonLineBytes);
      fill();
      length = pending().find('\n', looked_at);
    }
    if (length == std::string_view::npos) length = pending().size();
    if (length == 0 && begin_ == end_) return std::nullopt;
    ++number_;
    CHECK(static_cast<std::int64_t>(length) <= kMaxJsonLineBytes, "{} line {}: {} bytes; a line may have {}", name_,
          number_, length, kMaxJsonLineBytes);
    const std::string_view line = pending().substr(0, length);
    begin_ = std::min(end_, begin_ + length + 1);
    if (blank(line)) continue;
    if (rows_++ == 0) check_no_array(line, name_, number_);
    return JsonlLine{line, number_};
  }
}

std::int64_t count_rows(JsonlStream&& lines) {
  std::int64_t rows = 0;
  while (lines.next()) ++rows;
  return rows;
}

}  // namespace llmfp8
