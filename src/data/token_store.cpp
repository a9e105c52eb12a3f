// What is asked of a part is answered from its rows' records. Called by tokenize_dataset and batch_loader.
#include "data/token_store.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace llmfp8 {

void TokenTable::append(std::unique_ptr<TokenSegment> segment) {
  CHECK(segment->first_row() == rows(), "{} begins at row {}, {} wanted", segment->name(), segment->first_row(), rows());
  segments_.push_back(std::move(segment));
}

TokenTable::Place TokenTable::locate(std::int64_t row) const {
  CHECK(row >= 0 && row < rows(), "row {} of {}", row, rows());
  const auto after = std::upper_bound(segments_.begin(), segments_.end(), row,
                                      [](std::int64_t value, const auto& segment) { return value < segment->first_row(); });
  const TokenSegment& segment = **std::prev(after);
  return {segment, segment.record(row - segment.first_row())};
}

std::int32_t TokenTable::largest_id() const {
  std::int32_t largest = -1;
  for (const auto& segment : segments_) largest = std::max(largest, segment->largest_id());
  return largest;
}

TokenStore::TokenStore(std::shared_ptr<const TokenTable> table, std::span<const std::int64_t> order) : table_(std::move(table)) {
  source_rows_.reserve(order.size());
  for (const std::int64_t source : order) {
    const RowRecord& r = table_->locate(source).record;
    if (r.length == 0) continue;
    source_rows_.push_back(source);
    lengths_.push_back(r.length);
    total_tokens_ += r.length;
    total_supervised_ += r.supervised;
    unsupervised_rows_ += r.supervised == 0;
    longest_ = std::max<std::int64_t>(longest_, r.length);
    truncated_rows_ += r.untruncated > r.length;
    truncated_tokens_ += r.untruncated - r.length;
  }
}

std::size_t TokenStore::index(std::int64_t row) const {
  CHECK(row >= 0 && row < rows(), "row {} of a store of {} rows", row, rows());
  return static_cast<std::size_t>(row);
}

std::span<const std::int32_t> TokenStore::ids(std::int64_t row) const {
  const TokenTable::Place place = locate(row);
  return place.segment.ids(place.record);
}

std::vector<std::int32_t> TokenStore::labels(std::int64_t row) const {
  const TokenTable::Place place = locate(row);
  return place.segment.labels(place.record);
}

TokenStore::Row TokenStore::read(std::int64_t row) const {
  const TokenTable::Place place = locate(row);
  Row read{place.segment.ids(place.record), place.segment.labels(place.record)};
  CHECK(checksum(read.ids, read.labels) == place.record.checksum,
        "{}: the tokens of row {} are not as they were written (a damaged disk?); remove the file, and it is made again",
        place.segment.name(), source_row(row));
  return read;
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
  std::vector<std::uint32_t> lengths;
  lengths.reserve(source_rows_.size());
  for (std::int64_t row = 0; row < rows(); ++row) lengths.push_back(record(row).untruncated);
  const auto at = [&](double q) -> std::int64_t {
    const auto n = static_cast<std::ptrdiff_t>(q * static_cast<double>(lengths.size() - 1));
    std::nth_element(lengths.begin(), lengths.begin() + n, lengths.end());
    return lengths[static_cast<std::size_t>(n)];
  };
  return {at(0), at(0.5), at(0.9), at(0.99), at(1)};
}

TokenStore store_in_memory(std::span<const TokenizedRow> rows) {
  SegmentBuilder builder(0);
  for (const TokenizedRow& row : rows) builder.add(row);
  auto table = std::make_shared<TokenTable>();
  table->append(builder.take());
  std::vector<std::int64_t> order(rows.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  return TokenStore(std::move(table), order);
}

}  // namespace llmfp8
