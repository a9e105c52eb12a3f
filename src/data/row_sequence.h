// Row numbers in some order: a list, or, of more rows than one should hold, a keyed permutation. Made by split, read by token_store
// and batch_loader.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

#include "data/keyed_permutation.h"

namespace llmfp8 {

class RowSequence {
 public:
  RowSequence() = default;
  RowSequence(std::span<const std::int64_t> rows);
  RowSequence(const std::vector<std::int64_t>& rows) : RowSequence(std::span(rows)) {}
  RowSequence(std::initializer_list<std::int64_t> rows) : RowSequence(std::span(rows.begin(), rows.size())) {}
  // The places [first, first + count) of the permutation.
  RowSequence(const KeyedPermutation& order, std::int64_t first, std::int64_t count) : order_(order), first_(first), count_(count) {}

  std::int64_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  bool is_listed() const { return !order_; }
  std::int64_t operator[](std::int64_t i) const;
  // Of the rows whose number is below `row`; ascending.
  std::vector<std::int64_t> places_below(std::int64_t row) const;
  void keep_first(std::int64_t most);
  void push_back(std::int64_t row);  // to a list
  std::uint32_t checksum() const;    // of which row stands where
  std::vector<std::int64_t> list() const;

 private:
  std::vector<std::uint32_t> listed_;
  std::optional<KeyedPermutation> order_;
  std::int64_t first_ = 0, count_ = 0;
};

}  // namespace llmfp8
