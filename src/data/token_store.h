// The part of a data set's rows that is trained on or held out, in its order, with what is worth knowing about it. Made by
// tokenize_dataset, read by batch_loader.
//
// A data set that stays in memory is all there: its rows of no use are left out of the store. Of a large one, whose tokens are kept
// on the disk, the first rows are known, as many as make a segment; all others are only read. They may still be encoded at that
// time, so nothing depends on them but themselves: the store has a place for every row, and one of no use reads as no tokens. That
// holds too where all tokens were found on the disk: a run is a function of the data set, not of what was encoded when.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/row_sequence.h"
#include "data/token_table.h"

namespace llmfp8 {

class RowFiller;

// Lengths at the quantiles 0, 50, 90, 99 and 100 %, before truncation.
struct LengthQuantiles {
  std::int64_t min = 0, median = 0, p90 = 0, p99 = 0, max = 0;
};

// What there is of a large data set.
struct LargeRows {
  std::int64_t known = 0;             // its first rows
  std::uint32_t files_checksum = 0;   // for what is not known
  std::shared_ptr<RowFiller> filler;  // null: the table is full
};

class TokenStore {
 public:
  TokenStore() = default;
  // The rows of `order` (numbers of the data set) that are of use, in this order. Throws Error beyond the table.
  TokenStore(std::shared_ptr<const TokenTable> table, const RowSequence& order);
  // All rows of `order`.
  TokenStore(std::shared_ptr<const TokenTable> table, RowSequence order, LargeRows large);

  std::int64_t rows() const { return source_rows_.size(); }
  // Copies of a row. Waits where it is still to be encoded. Throws Error that names the file where the tokens are not as they were
  // written, or the row that has an id outside the vocabulary.
  RowTokens read(std::int64_t row) const;
  std::vector<std::int32_t> ids(std::int64_t row) const { return read(row).ids; }
  std::vector<std::int32_t> labels(std::int64_t row) const { return read(row).labels; }
  std::int64_t supervised(std::int64_t row) const;
  std::int64_t source_row(std::int64_t row) const { return source_rows_[row]; }
  // The rows that will be read next, in this order.
  void expect(std::span<const std::int64_t> rows) const;
  bool is_filling() const;
  // read() refuses this id and above.
  void limit_ids(std::int64_t vocab_size) { vocab_size_ = vocab_size; }

  // Everything below is about the known rows of use.
  bool knows_all() const { return !large_; }
  std::int64_t known_rows() const { return static_cast<std::int64_t>(lengths_.size()); }
  std::int64_t known_row(std::int64_t i) const { return large_ ? known_[static_cast<std::size_t>(i)] : i; }  // of the store
  std::span<const std::uint32_t> known_lengths() const { return lengths_; }
  std::int64_t length(std::int64_t row) const;  // where all are known
  std::int64_t total_tokens() const { return total_tokens_; }
  std::int64_t total_supervised() const { return total_supervised_; }
  std::int64_t longest() const { return longest_; }
  std::int32_t largest_id() const { return table_ ? table_->largest_id() : -1; }  // of all rows of the data set that were encoded
  std::int64_t truncated_rows() const { return truncated_rows_; }
  std::int64_t truncated_tokens() const { return truncated_tokens_; }  // cut off
  std::int64_t unsupervised_rows() const { return unsupervised_rows_; }  // rows without a single label
  LengthQuantiles length_quantiles() const;
  double supervised_share() const;  // of all tokens
  // Changes with any row, its place or the order. Of a large data set: with any row's number, the known rows' tokens, and size, head
  // and end of the files.
  std::uint32_t checksum() const { return checksum_; }
  // For the user: "5400 rows, 712345 tokens (98.1 % supervised), length min/median/90 %/99 %/max …, 12 truncated …".
  std::string summary() const;

 private:
  void add_known(const RowRecord& record);

  std::shared_ptr<const TokenTable> table_;
  std::optional<LargeRows> large_;
  RowSequence source_rows_;              // [rows]
  std::vector<std::int64_t> known_;      // [known_rows], of a large one: rows of the store
  std::vector<std::uint32_t> lengths_;   // [known_rows]
  std::int64_t vocab_size_ = INT64_MAX;
  std::uint32_t checksum_ = 0;
  std::int64_t total_tokens_ = 0, total_supervised_ = 0, longest_ = 0, truncated_rows_ = 0, truncated_tokens_ = 0, unsupervised_rows_ = 0;
};

// Rows in memory, as they come; row i is row i of the data set.
TokenStore store_in_memory(std::span<const TokenizedRow> rows);

}  // namespace llmfp8
