// The rows of a data set encoded into a table, in their order: a thread reads the next rows while all cores encode those before.
// Large ones go through the cache on the disk. Called by tokenize_dataset; behind its first rows also by row_filler.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "core/error.h"
#include "data/encode_rows.h"
#include "data/token_cache.h"
#include "data/token_table.h"

namespace llmfp8 {

struct TokenizeOptions {
  // Where tokens are kept (a folder for each data set and way to encode it is made in it); empty: in memory alone.
  std::filesystem::path cache;
  // Of a segment. A data set of fewer tokens is quickly made again: it stays in memory, and is all there before anything begins.
  std::int64_t segment_tokens = std::int64_t{16} << 20;
  // Whether a larger one may be used while most of its rows are still to be encoded (see token_store.h).
  enum class Rows { before, while_used };
  Rows rows = Rows::before;
  std::string why_before = {};  // said where a large one is not
  // Called now and then from the calling thread, also while another process makes the same tokens; may throw.
  std::function<void(std::int64_t done, std::int64_t total)> progress;
};

class TableBuilder {
 public:
  // Both outlive the builder.
  TableBuilder(const Dataset& dataset, const RowEncoder& encoder, const TokenizeOptions& options);
  ~TableBuilder();

  const std::shared_ptr<TokenTable>& table() const { return table_; }
  bool is_all() const { return table_->rows() == dataset_.rows(); }
  // Whether the rows that are there make a data set that does not stay in memory: so do all rows, then.
  bool is_large() const { return table_->tokens() >= options_.segment_tokens; }

  // Until is_all() or is_large().
  void begin();
  // Until is_all(). cores, progress: as long as it takes.
  void finish(Cores cores, std::function<void()> progress);
  void finish() { finish(Cores::pool, progress_); }

 private:
  class ReadAhead;
  void fill(const std::function<bool()>& is_enough);
  bool take_written();
  bool lock(const std::function<bool()>& is_enough);
  void do_without_cache(const Error& error);
  void close_segment(const std::function<bool()>& is_enough);
  void check_disk();

  const Dataset& dataset_;
  const RowEncoder& encoder_;
  TokenizeOptions options_;
  Cores cores_ = Cores::pool;
  std::function<void()> progress_;
  std::unique_ptr<TokenCache> cache_;  // null: in memory
  std::shared_ptr<TokenTable> table_ = std::make_shared<TokenTable>();
  SegmentBuilder builder_{0};  // of the rows behind the table's
  std::unique_ptr<ReadAhead> ahead_;
  bool is_new_ = false, is_locked_ = false, has_said_ = false;
};

}  // namespace llmfp8
