// The tokenised rows of a data set, and the part of them that is trained on or held out, in its order, with what is worth
// knowing about it. Filled by tokenize_dataset, read by batch_loader.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/token_segment.h"

namespace llmfp8 {

// Lengths at the quantiles 0, 50, 90, 99 and 100 %, before truncation.
struct LengthQuantiles {
  std::int64_t min = 0, median = 0, p90 = 0, p99 = 0, max = 0;
};

// Every row of a data set, by its number there. Immutable once filled; shared by the parts.
class TokenTable {
 public:
  // The segment that goes on where the last one ends.
  void append(std::unique_ptr<TokenSegment> segment);

  std::int64_t rows() const { return segments_.empty() ? 0 : segments_.back()->first_row() + segments_.back()->rows(); }
  struct Place {
    const TokenSegment& segment;
    const RowRecord& record;
  };
  // Throws Error beyond rows().
  Place locate(std::int64_t row) const;
  std::int32_t largest_id() const;

 private:
  std::vector<std::unique_ptr<TokenSegment>> segments_;
};

class TokenStore {
 public:
  TokenStore() = default;
  // The rows of `order` (numbers of the data set) that are of use, in this order. Throws Error beyond the table.
  TokenStore(std::shared_ptr<const TokenTable> table, std::span<const std::int64_t> order);

  std::int64_t rows() const { return static_cast<std::int64_t>(source_rows_.size()); }
  std::span<const std::int32_t> ids(std::int64_t row) const;  // [length(row)]
  std::vector<std::int32_t> labels(std::int64_t row) const;   // [length(row)]
  struct Row {
    std::span<const std::int32_t> ids;
    std::vector<std::int32_t> labels;
  };
  // Both, for training: throws Error that names the file where they are not as they were written.
  Row read(std::int64_t row) const;
  std::int64_t length(std::int64_t row) const { return lengths_[index(row)]; }
  std::int64_t supervised(std::int64_t row) const { return record(row).supervised; }
  std::uint32_t row_checksum(std::int64_t row) const { return record(row).checksum; }
  std::int64_t source_row(std::int64_t row) const { return source_rows_[index(row)]; }

  std::int64_t total_tokens() const { return total_tokens_; }
  std::int64_t total_supervised() const { return total_supervised_; }
  std::int64_t longest() const { return longest_; }
  std::int32_t largest_id() const { return table_ ? table_->largest_id() : -1; }  // of the whole data set
  std::int64_t truncated_rows() const { return truncated_rows_; }
  std::int64_t truncated_tokens() const { return truncated_tokens_; }  // cut off
  std::int64_t unsupervised_rows() const { return unsupervised_rows_; }  // rows without a single label
  LengthQuantiles length_quantiles() const;
  double supervised_share() const;  // of all tokens
  // For the user: "5400 rows, 712345 tokens (98.1 % supervised), length min/median/90 %/99 %/max …, 12 truncated …".
  std::string summary() const;

 private:
  std::size_t index(std::int64_t row) const;
  TokenTable::Place locate(std::int64_t row) const { return table_->locate(source_row(row)); }
  const RowRecord& record(std::int64_t row) const { return locate(row).record; }

  std::shared_ptr<const TokenTable> table_;
  std::vector<std::int64_t> source_rows_;
  std::vector<std::uint32_t> lengths_;  // asked for again and again, in any order
  std::int64_t total_tokens_ = 0, total_supervised_ = 0, longest_ = 0, truncated_rows_ = 0, truncated_tokens_ = 0, unsupervised_rows_ = 0;
};

// Rows in memory, as they come; row i is row i of the data set.
TokenStore store_in_memory(std::span<const TokenizedRow> rows);

}  // namespace llmfp8
