#include "data/token_table.h"

#include <algorithm>
#include <mutex>
#include <numeric>

#include "core/error.h"

namespace llmfp8 {

void TokenTable::append(std::unique_ptr<TokenSegment> segment) {
  const std::int64_t end = rows();
  CHECK(segment->first_row() == end, "{} begins at row {}, {} wanted", segment->name(), segment->first_row(), end);
  const std::unique_lock lock(mutex_);
  segments_.push_back(std::move(segment));
}

std::int64_t TokenTable::rows() const {
  const std::shared_lock lock(mutex_);
  return segments_.empty() ? 0 : segments_.back()->first_row() + segments_.back()->rows();
}

std::int64_t TokenTable::tokens() const {
  const std::shared_lock lock(mutex_);
  std::int64_t tokens = 0;
  for (const auto& segment : segments_) tokens += segment->tokens();
  return tokens;
}

TokenTable::Place TokenTable::locate(std::int64_t row) const {
  const std::int64_t end = rows();
  CHECK(row >= 0 && row < end, "row {} of {}", row, end);
  const std::shared_lock lock(mutex_);
  const auto after =
      std::upper_bound(segments_.begin(), segments_.end(), row,
                       [](std::int64_t value, const auto& segment) { return value < segment->first_row(); });
  const TokenSegment& segment = **std::prev(after);
  return {segment, segment.record(row - segment.first_row())};
}

RowTokens TokenTable::read(std::int64_t row) const {
  const auto [segment, record] = locate(row);
  const std::span<const std::int32_t> ids = segment.ids(record);
  RowTokens tokens{{ids.begin(), ids.end()}, segment.labels(record)};
  CHECK(
      record.length == 0 || checksum(tokens.ids, tokens.labels) == record.checksum,
      "{}: the tokens of row {} are not as they were written (a damaged disk?); remove the file, and it is made again",
      segment.name(), row);
  segment.release(record);
  return tokens;
}

std::int32_t TokenTable::largest_id() const {
  const std::shared_lock lock(mutex_);
  std::int32_t largest = -1;
  for (const auto& segment : segments_) largest = std::max(largest, segment->largest_id());
  return largest;
}

std::array<std::int64_t, kRowFaults> TokenTable::rows_by_fault() const {
  const std::shared_lock lock(mutex_);
  std::array<std::int64_t, kRowFaults> rows{};
  for (const auto& segment : segments_) {
    for (std::int64_t row = 0; row < segment->rows(); ++row) ++rows[segment->record(row).fault];
    segment->release_records();
  }
  return rows;
}

void TokenTable::release_records() const {
  const std::shared_lock lock(mutex_);
  for (const auto& segment : segments_) segment->release_records();
}

std::string fault_summary(const std::array<std::int64_t, kRowFaults>& rows_by_fault) {
  const std::int64_t dropped = std::accumulate(rows_by_fault.begin() + 1, rows_by_fault.end(), std::int64_t{0});
  if (dropped == 0) return "";
  std::vector<std::string> kinds;
  for (std::size_t fault = 1; fault < kRowFaults; ++fault)
    if (rows_by_fault[fault] > 0)
      kinds.push_back(fmt::format("{} {}", rows_by_fault[fault], name_of(static_cast<RowFault>(fault))));
  return fmt::format("{} row{} left out: {}", dropped, dropped == 1 ? "" : "s", fmt::join(kinds, ", "));
}

}  // namespace llmfp8
