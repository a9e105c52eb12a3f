// Some millions of tokens of a data set's rows in one piece: in memory, or a file that is mapped. Made by tokenize_dataset,
// read through token_store.
//
// The file: a header of 64 bytes, a record for each row, the ids, and a bit for each token: whether its position learns, which
// is to predict the token behind it. All little-endian.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "data/dataset.h"

namespace llmfp8 {

// One document. labels[t] is the token that position t has to predict (already shifted), or kIgnoreLabel; the last one
// always is kIgnoreLabel.
struct TokenizedRow {
  std::vector<std::int32_t> ids;     // [length]
  std::vector<std::int32_t> labels;  // [length]
  bool truncated = false;
  std::int64_t untruncated_length = 0;
};

// Of the ids and the labels behind them: what resuming compares, and what damage on the disk would change.
std::uint32_t checksum(std::span<const std::int32_t> ids, std::span<const std::int32_t> labels);

// A row of a segment. Rows of no use have a fault and no tokens.
struct RowRecord {
  std::uint32_t first = 0;        // token of the segment
  std::uint32_t length = 0;       // tokens
  std::uint32_t supervised = 0;   // of them
  std::uint32_t untruncated = 0;  // tokens before --max_seq_length cut some off
  std::uint32_t checksum = 0;
  std::uint32_t fault = 0;        // RowFault
};
static_assert(sizeof(RowRecord) == 24);

class TokenSegment {
 public:
  virtual ~TokenSegment() = default;

  std::int64_t first_row() const { return first_row_; }  // of the data set
  std::int64_t rows() const { return static_cast<std::int64_t>(records_.size()); }
  const RowRecord& record(std::int64_t row) const { return records_[static_cast<std::size_t>(row)]; }  // row: of the segment
  std::span<const std::int32_t> ids(const RowRecord& record) const { return ids_.subspan(record.first, record.length); }
  std::vector<std::int32_t> labels(const RowRecord& record) const;
  std::int64_t tokens() const { return static_cast<std::int64_t>(ids_.size()); }
  std::int32_t largest_id() const { return largest_id_; }
  // What was read of a file's row, or of all its records, no longer counts as this process's memory.
  virtual void release(const RowRecord&) const {}
  virtual void release_records() const {}
  virtual std::string name() const = 0;  // for messages

 protected:
  std::int64_t first_row_ = 0;
  std::span<const RowRecord> records_;
  std::span<const std::int32_t> ids_;
  std::span<const std::uint8_t> learnt_;  // a bit a token, the lowest one first
  std::int32_t largest_id_ = -1;
};

class SegmentBuilder {
 public:
  explicit SegmentBuilder(std::int64_t first_row) : first_row_(first_row) {}

  // The next row of the data set. Throws Error: no tokens, ids and labels that do not go together.
  void add(const TokenizedRow& row);
  void add_faulty(RowFault fault);

  std::int64_t first_row() const { return first_row_; }
  std::int64_t next_row() const { return first_row_ + static_cast<std::int64_t>(records_.size()); }
  std::int64_t tokens() const { return static_cast<std::int64_t>(ids_.size()); }
  // All of it, as a segment in memory; the builder is empty then.
  std::unique_ptr<TokenSegment> take();
  // The file appears whole or not at all. Throws Error: not writable, disk full.
  void write(const std::filesystem::path& file) const;

 private:
  std::int64_t first_row_;
  std::int32_t largest_id_ = -1;
  std::vector<RowRecord> records_;
  std::vector<std::int32_t> ids_;
  std::vector<std::uint8_t> learnt_;
};

// Null where the file is not there, was cut, or is not one of this version: it will be made again. What its tokens are is
// looked at when they are read, by their rows' checksums.
std::unique_ptr<TokenSegment> open_segment(const std::filesystem::path& file);

}  // namespace llmfp8
