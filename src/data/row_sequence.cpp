#include "data/row_sequence.h"

#include <algorithm>

#include "core/crc32c.h"
#include "core/error.h"

namespace llmfp8 {

RowSequence::RowSequence(std::span<const std::int64_t> rows) {
  listed_.reserve(rows.size());
  for (const std::int64_t row : rows) push_back(row);
}

std::int64_t RowSequence::operator[](std::int64_t i) const {
  CHECK(i >= 0 && i < count_, "row {} of {}", i, count_);
  return order_ ? (*order_)[first_ + i] : listed_[static_cast<std::size_t>(i)];
}

std::vector<std::int64_t> RowSequence::places_below(std::int64_t row) const {
  std::vector<std::int64_t> places;
  if (order_) {
    for (std::int64_t r = 0; r < std::min(row, order_->size()); ++r)
      if (const std::int64_t place = order_->place_of(r) - first_; place >= 0 && place < count_)
        places.push_back(place);
    std::sort(places.begin(), places.end());
  } else {
    for (std::int64_t i = 0; i < count_; ++i)
      if (listed_[static_cast<std::size_t>(i)] < row) places.push_back(i);
  }
  return places;
}

void RowSequence::keep_first(std::int64_t most) {
  if (most >= count_) return;
  count_ = most;
  if (!order_) listed_.resize(static_cast<std::size_t>(most));
}

void RowSequence::push_back(std::int64_t row) {
  CHECK(!order_ && row >= 0 && row <= UINT32_MAX, "row {} in a list of row numbers up to {}", row, UINT32_MAX);
  listed_.push_back(static_cast<std::uint32_t>(row));
  ++count_;
}

std::uint32_t RowSequence::checksum() const {
  if (!order_) return crc32c(listed_.data(), listed_.size() * sizeof(std::uint32_t));
  const std::int64_t what[] = {order_->size(), first_, count_, (*order_)[0]};  // its first row tells seed and stream
  return crc32c(what, sizeof what);
}

std::vector<std::int64_t> RowSequence::list() const {
  CHECK(!order_, "a list of {} rows", count_);
  return {listed_.begin(), listed_.end()};
}

}  // namespace llmfp8
