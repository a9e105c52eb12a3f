// The tokenised rows of one part (training or held out), flat in memory, with what is worth knowing about them.
// Filled by tokenize_dataset, read by batch_loader.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace llmfp8 {

// One document. labels[t] is the token that position t has to predict (already shifted), or kIgnoreLabel; the last one
// always is kIgnoreLabel.
struct TokenizedRow {
  std::vector<std::int32_t> ids;     // [length]
  std::vector<std::int32_t> labels;  // [length]
  bool truncated = false;
  std::int64_t untruncated_length = 0;
};

// Lengths at the quantiles 0, 50, 90, 99 and 100 %, before truncation.
struct LengthQuantiles {
  std::int64_t min = 0, median = 0, p90 = 0, p99 = 0, max = 0;
};

class TokenStore {
 public:
  // source_row: the row's number in the data set.
  void add(const TokenizedRow& row, std::int64_t source_row);

  // Puts the rows in the order in which their source rows come in `source_order`; every row must be in it.
  void arrange(std::span<const std::int64_t> source_order);

  std::int64_t rows() const { return static_cast<std::int64_t>(source_rows_.size()); }
  std::span<const std::int32_t> ids(std::int64_t row) const;     // [length(row)]
  std::span<const std::int32_t> labels(std::int64_t row) const;  // [length(row)]
  std::int64_t length(std::int64_t row) const { return lengths_[index(row)]; }
  std::int64_t supervised(std::int64_t row) const { return supervised_[index(row)]; }
  std::int64_t source_row(std::int64_t row) const { return source_rows_[index(row)]; }

  std::int64_t total_tokens() const { return static_cast<std::int64_t>(ids_.size()); }
  std::int64_t total_supervised() const { return total_supervised_; }
  std::int64_t longest() const { return longest_; }
  std::int64_t truncated_rows() const { return truncated_rows_; }
  std::int64_t truncated_tokens() const { return truncated_tokens_; }  // cut off
  std::int64_t unsupervised_rows() const { return unsupervised_rows_; }  // rows without a single label
  LengthQuantiles length_quantiles() const;
  double supervised_share() const;  // of all tokens
  // For the user: "5400 rows, 712345 tokens (98.1 % supervised), length min/median/90 %/99 %/max …, 12 truncated …".
  std::string summary() const;

 private:
  std::size_t index(std::int64_t row) const;

  std::vector<std::int32_t> ids_;
  std::vector<std::int32_t> labels_;
  std::vector<std::int64_t> starts_;
  std::vector<std::int32_t> lengths_;
  std::vector<std::int32_t> supervised_;
  std::vector<std::int64_t> source_rows_;
  std::vector<std::int64_t> untruncated_lengths_;
  std::int64_t total_supervised_ = 0, longest_ = 0, truncated_rows_ = 0, truncated_tokens_ = 0, unsupervised_rows_ = 0;
};

}  // namespace llmfp8
