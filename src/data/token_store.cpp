// Flat storage of tokenised rows. Called by tokenize_dataset and batch_loader.
#include "data/token_store.h"

#include <algorithm>
#include <unordered_map>

#include "core/batch.h"
#include "core/error.h"

namespace llmfp8 {

void TokenStore::add(const TokenizedRow& row, std::int64_t source_row) {
  const auto length = static_cast<std::int64_t>(row.ids.size());
  CHECK(length > 0 && row.labels.size() == row.ids.size(), "row {}: {} ids and {} labels", source_row, length,
        row.labels.size());
  CHECK(row.labels.back() == kIgnoreLabel, "row {}: its last label is {}, but nothing follows the last token", source_row,
        row.labels.back());
  starts_.push_back(total_tokens());
  lengths_.push_back(static_cast<std::int32_t>(length));
  ids_.insert(ids_.end(), row.ids.begin(), row.ids.end());
  labels_.insert(labels_.end(), row.labels.begin(), row.labels.end());
  const auto ignored = std::count(row.labels.begin(), row.labels.end(), kIgnoreLabel);
  supervised_.push_back(static_cast<std::int32_t>(length - ignored));
  source_rows_.push_back(source_row);
  untruncated_lengths_.push_back(std::max(length, row.untruncated_length));
  total_supervised_ += supervised_.back();
  unsupervised_rows_ += supervised_.back() == 0;
  longest_ = std::max(longest_, length);
  truncated_rows_ += row.truncated;
  truncated_tokens_ += untruncated_lengths_.back() - length;
}

std::size_t TokenStore::index(std::int64_t row) const {
  CHECK(row >= 0 && row < rows(), "row {} of a store of {} rows", row, rows());
  return static_cast<std::size_t>(row);
}

std::span<const std::int32_t> TokenStore::ids(std::int64_t row) const {
  return {ids_.data() + starts_[index(row)], static_cast<std::size_t>(length(row))};
}

std::span<const std::int32_t> TokenStore::labels(std::int64_t row) const {
  return {labels_.data() + starts_[index(row)], static_cast<std::size_t>(length(row))};
}

void TokenStore::arrange(std::span<const std::int64_t> source_order) {
  std::unordered_map<std::int64_t, std::size_t> at;
  for (std::size_t i = 0; i < source_rows_.size(); ++i) at.emplace(source_rows_[i], i);
  std::vector<std::size_t> from;
  for (const std::int64_t source : source_order)
    if (const auto found = at.find(source); found != at.end()) from.push_back(found->second);
  CHECK(from.size() == source_rows_.size(), "an order that holds {} of {} rows", from.size(), source_rows_.size());
  const auto permute = [&](auto& values) {
    auto old = values;
    for (std::size_t i = 0; i < from.size(); ++i) values[i] = old[from[i]];
  };
  permute(starts_);
  permute(lengths_);
  permute(supervised_);
  permute(source_rows_);
  permute(untruncated_lengths_);
}

double TokenStore::supervised_share() const {
  return total_tokens() == 0 ? 0 : static_cast<double>(total_supervised_) / static_cast<double>(total_tokens());
}

std::string TokenStore::summary() const {
  const LengthQuantiles q = length_quantiles();
  const std::string truncated = truncated_rows_ == 0 ? "none truncated"
                                                     : fmt::format("{} truncated ({} tokens cut off)", truncated_rows_, truncated_tokens_);
  return fmt::format("{} rows, {} tokens ({:.1f} % supervised); row lengths min {}, median {}, 90 % {}, 99 % {}, max {}; {}", rows(),
                     total_tokens(), 100 * supervised_share(), q.min, q.median, q.p90, q.p99, q.max, truncated);
}

LengthQuantiles TokenStore::length_quantiles() const {
  if (rows() == 0) return {};
  std::vector<std::int64_t> sorted = untruncated_lengths_;
  std::sort(sorted.begin(), sorted.end());
  const auto at = [&](double q) { return sorted[static_cast<std::size_t>(q * static_cast<double>(sorted.size() - 1))]; };
  return {sorted.front(), at(0.5), at(0.9), at(0.99), sorted.back()};
}

}  // namespace llmfp8
