// What is asked of a part is answered from its rows' records. Called by tokenize_dataset and batch_loader.
#include "data/token_store.h"

#include <algorithm>
#include <numeric>

#include "core/batch.h"
#include "core/crc32c.h"
#include "core/error.h"
#include "data/row_filler.h"

namespace llmfp8 {

TokenStore::TokenStore(std::shared_ptr<const TokenTable> table, const RowSequence& order) : table_(std::move(table)) {
  for (std::int64_t i = 0; i < order.size(); ++i) {
    const RowRecord& record = table_->locate(order[i]).record;
    if (record.length == 0) continue;
    source_rows_.push_back(order[i]);
    add_known(record);
  }
  table_->release_records();
}

TokenStore::TokenStore(std::shared_ptr<const TokenTable> table, RowSequence order, LargeRows large)
    : table_(std::move(table)), large_(std::move(large)), source_rows_(std::move(order)) {
  for (const std::int64_t row : source_rows_.places_below(large_->known)) {
    const RowRecord& record = table_->locate(source_rows_[row]).record;
    if (record.length == 0) continue;
    known_.push_back(row);
    add_known(record);
  }
  table_->release_records();
  const std::uint32_t others[] = {source_rows_.checksum(), large_->files_checksum};
  checksum_ = crc32c(others, sizeof others, checksum_);
}

void TokenStore::add_known(const RowRecord& r) {
  lengths_.push_back(r.length);
  checksum_ = crc32c(&r.checksum, sizeof r.checksum, checksum_);
  total_tokens_ += r.length;
  total_supervised_ += r.supervised;
  unsupervised_rows_ += r.supervised == 0;
  longest_ = std::max<std::int64_t>(longest_, r.length);
  truncated_rows_ += r.untruncated > r.length;
  truncated_tokens_ += r.untruncated - r.length;
}

RowTokens TokenStore::read(std::int64_t row) const {
  const std::int64_t source = source_row(row);
  RowTokens tokens = large_ && large_->filler ? large_->filler->read(source) : table_->read(source);
  for (const std::int32_t id : tokens.ids)
    CHECK(id < vocab_size_, "row {} of the data set has the token {}, but the embedding has {} rows", source, id, vocab_size_);
  return tokens;
}

std::int64_t TokenStore::supervised(std::int64_t row) const {
  const std::vector<std::int32_t> of_row = labels(row);
  return std::ssize(of_row) - std::count(of_row.begin(), of_row.end(), kIgnoreLabel);
}

std::int64_t TokenStore::length(std::int64_t row) const {
  CHECK(knows_all(), "not every row's length is known");
  CHECK(row >= 0 && row < rows(), "row {} of a store of {} rows", row, rows());
  return lengths_[static_cast<std::size_t>(row)];
}

bool TokenStore::is_filling() const { return large_ && large_->filler && !large_->filler->is_done(); }

void TokenStore::expect(std::span<const std::int64_t> rows) const {
  if (!is_filling()) return;
  std::vector<std::int64_t> sources(rows.size());
  std::transform(rows.begin(), rows.end(), sources.begin(), [&](std::int64_t row) { return source_row(row); });
  large_->filler->expect(std::move(sources));
}

double TokenStore::supervised_share() const {
  return total_tokens() == 0 ? 0 : static_cast<double>(total_supervised_) / static_cast<double>(total_tokens());
}

std::string TokenStore::summary() const {
  const LengthQuantiles q = length_quantiles();
  const std::string truncated = truncated_rows_ == 0 ? "none truncated"
                                                     : fmt::format("{} truncated ({} tokens cut off)", truncated_rows_, truncated_tokens_);
  std::string rows_known = fmt::format("{} rows,", rows());
  if (large_) rows_known = fmt::format("{} rows; known are {} of them, of the data set's first {}:", rows(), known_rows(), large_->known);
  return fmt::format("{} {} tokens ({:.1f} % supervised); row lengths min {}, median {}, 90 % {}, 99 % {}, max {}; {}", rows_known,
                     total_tokens(), 100 * supervised_share(), q.min, q.median, q.p90, q.p99, q.max, truncated);
}

LengthQuantiles TokenStore::length_quantiles() const {
  if (known_rows() == 0) return {};
  std::vector<std::uint32_t> lengths;
  lengths.reserve(lengths_.size());
  for (std::int64_t i = 0; i < known_rows(); ++i) lengths.push_back(table_->locate(source_row(known_row(i))).record.untruncated);
  table_->release_records();
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
