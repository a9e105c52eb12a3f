#include "data/token_segment.h"

#include <algorithm>
#include <cstring>

#include "core/batch.h"
#include "core/crc32c.h"
#include "core/error.h"
#include "hub/file_io.h"

namespace llmfp8 {
namespace fs = std::filesystem;
namespace {

constexpr char kMagic[8] = {'l', 'f', '8', 't', 'o', 'k', 'e', 'n'};
constexpr std::uint32_t kVersion = 1;

struct Header {
  char magic[8] = {};
  std::uint32_t version = 0;
  std::int32_t largest_id = -1;
  std::int64_t first_row = 0, rows = 0, tokens = 0;
  std::uint32_t records_crc = 0;
  std::uint32_t unused[4] = {};
  std::uint32_t header_crc = 0;  // of everything before it
};
static_assert(sizeof(Header) == 64);

std::uint32_t crc_of(const Header& header) { return crc32c(&header, offsetof(Header, header_crc)); }
std::size_t bits_bytes(std::size_t tokens) { return (tokens + 7) / 8; }

class MemorySegment : public TokenSegment {
 public:
  MemorySegment(std::int64_t first_row, std::int32_t largest_id, std::vector<RowRecord> records, std::vector<std::int32_t> ids,
                std::vector<std::uint8_t> learnt)
      : own_records_(std::move(records)), own_ids_(std::move(ids)), own_learnt_(std::move(learnt)) {
    first_row_ = first_row;
    largest_id_ = largest_id;
    records_ = own_records_;
    ids_ = own_ids_;
    learnt_ = own_learnt_;
  }
  std::string name() const override { return "the rows in memory"; }

 private:
  std::vector<RowRecord> own_records_;
  std::vector<std::int32_t> own_ids_;
  std::vector<std::uint8_t> own_learnt_;
};

class FileSegment : public TokenSegment {
 public:
  explicit FileSegment(const fs::path& file) : file_(file), mapped_(file) {}
  std::string name() const override { return file_.string(); }
  void release(const RowRecord& record) const override {
    mapped_.release(std::as_bytes(std::span(&record, 1)));
    mapped_.release(std::as_bytes(ids(record)));
    mapped_.release(std::as_bytes(learnt_.subspan(record.first / 8, bits_bytes(record.first % 8 + record.length))));
  }
  void release_records() const override { mapped_.release(std::as_bytes(records_)); }

  // Whether the file is what it says it is; the tokens themselves are not read.
  bool open() {
    const ByteSpan bytes = mapped_.bytes();
    Header header;
    if (bytes.size() < sizeof header) return false;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0 || header.version != kVersion || header.header_crc != crc_of(header)) return false;
    constexpr std::int64_t kMost = std::int64_t{1} << 32;
    if (header.first_row < 0 || header.rows < 0 || header.rows > kMost || header.tokens < 0 || header.tokens > kMost) return false;
    const auto rows = static_cast<std::size_t>(header.rows), tokens = static_cast<std::size_t>(header.tokens);
    const std::size_t records_bytes = rows * sizeof(RowRecord), ids_bytes = tokens * sizeof(std::int32_t);
    if (bytes.size() != sizeof header + records_bytes + ids_bytes + bits_bytes(tokens)) return false;
    const std::byte* at = bytes.data() + sizeof header;
    if (crc32c(at, records_bytes) != header.records_crc) return false;
    records_ = {reinterpret_cast<const RowRecord*>(at), rows};
    ids_ = {reinterpret_cast<const std::int32_t*>(at + records_bytes), tokens};
    learnt_ = {reinterpret_cast<const std::uint8_t*>(at + records_bytes + ids_bytes), bits_bytes(tokens)};
    first_row_ = header.first_row;
    largest_id_ = header.largest_id;
    const bool is_sound = std::all_of(records_.begin(), records_.end(), [&](const RowRecord& r) {
      return r.first <= tokens && r.length <= tokens - r.first && r.fault < kRowFaults;
    });
    release_records();
    return is_sound;
  }

 private:
  fs::path file_;
  MappedFile mapped_;
};

}  // namespace

std::uint32_t checksum(std::span<const std::int32_t> ids, std::span<const std::int32_t> labels) {
  const std::uint64_t length = ids.size();
  const std::uint32_t crc = crc32c(ids.data(), ids.size_bytes(), crc32c(&length, sizeof length));
  return crc32c(labels.data(), labels.size_bytes(), crc);
}

std::vector<std::int32_t> TokenSegment::labels(const RowRecord& record) const {
  std::vector<std::int32_t> labels(record.length, kIgnoreLabel);
  for (std::size_t t = 0; t + 1 < labels.size(); ++t) {
    const std::size_t token = record.first + t;
    if ((learnt_[token / 8] >> (token % 8) & 1u) != 0) labels[t] = ids_[token + 1];
  }
  return labels;
}

void SegmentBuilder::add(const TokenizedRow& row) {
  const std::size_t length = row.ids.size();
  CHECK(length > 0 && row.labels.size() == length, "row {}: {} ids and {} labels", next_row(), length, row.labels.size());
  CHECK(row.labels.back() == kIgnoreLabel, "row {}: its last label is {}, but nothing follows the last token", next_row(), row.labels.back());
  CHECK(ids_.size() + length <= UINT32_MAX, "row {}: {} tokens behind {} others", next_row(), length, ids_.size());
  RowRecord record;
  record.first = static_cast<std::uint32_t>(ids_.size());
  record.length = static_cast<std::uint32_t>(length);
  record.untruncated = static_cast<std::uint32_t>(std::clamp<std::int64_t>(row.untruncated_length, record.length, UINT32_MAX));
  record.checksum = checksum(row.ids, row.labels);
  ids_.insert(ids_.end(), row.ids.begin(), row.ids.end());
  learnt_.resize(bits_bytes(ids_.size()), 0);
  for (std::size_t t = 0; t < length; ++t) {
    CHECK(row.ids[t] >= 0, "row {}: id {}", next_row(), row.ids[t]);
    largest_id_ = std::max(largest_id_, row.ids[t]);
    if (row.labels[t] == kIgnoreLabel) continue;
    CHECK(row.labels[t] == row.ids[t + 1], "row {}: label {} before token {}", next_row(), row.labels[t], row.ids[t + 1]);
    const std::size_t token = record.first + t;
    learnt_[token / 8] = static_cast<std::uint8_t>(learnt_[token / 8] | 1u << (token % 8));
    ++record.supervised;
  }
  records_.push_back(record);
}

void SegmentBuilder::add_faulty(RowFault fault) {
  RowRecord record;
  record.first = static_cast<std::uint32_t>(ids_.size());
  record.fault = static_cast<std::uint32_t>(fault);
  records_.push_back(record);
}

std::unique_ptr<TokenSegment> SegmentBuilder::take() {
  const std::int64_t first = first_row_;
  first_row_ = next_row();
  return std::make_unique<MemorySegment>(first, std::exchange(largest_id_, -1), std::exchange(records_, {}), std::exchange(ids_, {}),
                                         std::exchange(learnt_, {}));
}

void SegmentBuilder::write(const fs::path& file) const {
  Header header;
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.largest_id = largest_id_;
  header.first_row = first_row_;
  header.rows = static_cast<std::int64_t>(records_.size());
  header.tokens = tokens();
  const std::size_t records_bytes = records_.size() * sizeof(RowRecord);
  header.records_crc = crc32c(records_.data(), records_bytes);
  header.header_crc = crc_of(header);
  std::string content;
  content.reserve(sizeof header + records_bytes + ids_.size() * sizeof(std::int32_t) + learnt_.size());
  const auto append = [&](const void* data, std::size_t bytes) { content.append(static_cast<const char*>(data), bytes); };
  append(&header, sizeof header);
  append(records_.data(), records_bytes);
  append(ids_.data(), ids_.size() * sizeof(std::int32_t));
  append(learnt_.data(), learnt_.size());
  write_file_atomically(file, content);
}

std::unique_ptr<TokenSegment> open_segment(const fs::path& file) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored) || fs::file_size(file, ignored) == 0) return nullptr;
  auto segment = std::make_unique<FileSegment>(file);
  return segment->open() ? std::move(segment) : nullptr;
}

}  // namespace llmfp8
