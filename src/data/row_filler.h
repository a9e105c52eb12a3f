// Rows of a large data set encoded while they are trained on. One thread goes through the data set and fills the table; it gives
// way to whoever computes. Another one makes the rows that are wanted before their turn, some batches ahead. Who reads a row
// waits for that row alone. Made by tokenize_dataset, read through token_store.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "data/table_builder.h"

namespace llmfp8 {

class RowFiller {
 public:
  // dataset and encoder outlive the filler; builder was begun.
  RowFiller(const Dataset& dataset, const RowEncoder& encoder, std::unique_ptr<TableBuilder> builder);
  // Stops the threads. What was not written yet is made again by the next run.
  ~RowFiller();
  RowFiller(const RowFiller&) = delete;
  RowFiller& operator=(const RowFiller&) = delete;

  // The same tokens whoever makes them. Thread-safe. Throws what either thread met.
  RowTokens read(std::int64_t row);
  // The rows that will be read next, in this order: at most kMostAhead count.
  void expect(std::vector<std::int64_t> rows);
  bool is_done() const;  // whether all rows are in the table

  static constexpr std::int64_t kMostAhead = 16384;

 private:
  void fill(TableBuilder& builder);
  void make_early();
  std::vector<std::int64_t> choose() const;
  bool is_there(std::int64_t row) const { return row < table_->rows() || early_.contains(row); }
  void fail();

  const Dataset& dataset_;
  const RowEncoder& encoder_;
  const std::shared_ptr<const TokenTable> table_;

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable wanted_, arrived_;
  std::vector<std::int64_t> asked_;     // waited for
  std::vector<std::int64_t> expected_;  // by expect()
  std::unordered_map<std::int64_t, RowTokens> early_;  // until they are read, or the table has them
  std::int64_t ahead_ = 64;             // rows of expected_ that are made at a time
  bool stops_ = false, is_done_ = false;
  std::exception_ptr error_;

  std::thread filling_, making_;
};

}  // namespace llmfp8
