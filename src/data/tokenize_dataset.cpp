#include "data/tokenize_dataset.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "core/crc32c.h"
#include "core/error.h"
#include "core/log.h"
#include "data/encode_rows.h"
#include "data/row_filler.h"
#include "data/token_cache.h"

namespace llmfp8 {

namespace {

constexpr double kFewSupervised = 0.02;

// Of what a large data set is, beyond the rows that are known: the files' sizes, heads and ends, wherever they lie.
std::uint32_t checksum_of_files(const Dataset& dataset) {
  std::string all = fmt::format("{} rows\n", dataset.rows());
  for (const auto& file : dataset.files()) all += file_ends(file) + "\n";
  return crc32c(all.data(), all.size());
}

// The first rows that make a segment, however the segments are cut.
std::int64_t rows_of_first_tokens(const TokenTable& table, std::int64_t tokens) {
  std::int64_t row = 0;
  for (std::int64_t sum = 0; row < table.rows() && sum < tokens; ++row) sum += table.locate(row).record.length;
  return row;
}

// A few rows of many: those alone. The others' records stay empty.
std::shared_ptr<const TokenTable> encode_alone(const Dataset& dataset, const RowEncoder& encoder, std::vector<std::int64_t> wanted,
                                               const TokenizeOptions& options) {
  std::sort(wanted.begin(), wanted.end());
  SegmentBuilder builder(0);
  constexpr std::size_t kChunk = 1024;
  for (std::size_t begin = 0; begin < wanted.size(); begin += kChunk) {
    const std::size_t end = std::min(wanted.size(), begin + kChunk);
    std::vector<DatasetRow> rows;
    for (std::size_t i = begin; i < end; ++i) rows.push_back(dataset.read(wanted[i], wanted[i] + 1).front());
    const auto encode = [&](std::size_t i) { return encode_row(encoder, rows[i]); };
    const std::vector<EncodedRow> encoded = encode_rows(std::ssize(rows), encode);
    for (std::size_t i = begin; i < end; ++i) {
      while (builder.next_row() < wanted[i]) builder.add_faulty(RowFault::none);
      add_row(builder, encoded[i - begin]);
    }
    if (options.progress) options.progress(static_cast<std::int64_t>(end), std::ssize(wanted));
  }
  auto table = std::make_shared<TokenTable>();
  table->append(builder.take());
  return table;
}

struct EncodedRows {
  std::shared_ptr<const TokenTable> table;
  std::optional<LargeRows> large;
};

EncodedRows encode(const Dataset& dataset, const SplitRows& split, const RowEncoder& encoder, const TokenizeOptions& options) {
  // An evaluation looks at few rows of many, and only once.
  if (split.train.empty() && split.test.size() < dataset.rows() / 4) return {encode_alone(dataset, encoder, split.test.list(), options), {}};
  auto builder = std::make_unique<TableBuilder>(dataset, encoder, options);
  const std::shared_ptr<const TokenTable> table = builder->table();
  builder->begin();
  if (!builder->is_large() || options.rows == TokenizeOptions::Rows::before) {
    if (!builder->is_all() && !options.why_before.empty()) log::info("all {} rows are tokenised first: {}", dataset.rows(), options.why_before);
    builder->finish();
    return {table, {}};
  }
  LargeRows large{rows_of_first_tokens(*table, options.segment_tokens), checksum_of_files(dataset), nullptr};
  if (builder->is_all()) {
    builder->finish();
  } else {
    large.filler = std::make_shared<RowFiller>(dataset, encoder, std::move(builder));
  }
  return {table, large};
}

void check_split(const SplitRows& split, std::int64_t rows) {
  std::vector<bool> named(static_cast<std::size_t>(rows));
  for (const RowSequence* part : {&split.train, &split.test}) {
    for (std::int64_t i = 0; part->is_listed() && i < part->size(); ++i) {
      const std::int64_t row = (*part)[i];
      CHECK(row >= 0 && row < rows, "the split names row {} of {}", row, rows);
      CHECK(!named[static_cast<std::size_t>(row)], "the split names row {} twice", row);
      named[static_cast<std::size_t>(row)] = true;
    }
  }
}

}  // namespace

std::int64_t TokenizedDataset::dropped() const {
  return std::accumulate(rows_by_fault.begin() + 1, rows_by_fault.end(), std::int64_t{0});
}

TokenizedDataset tokenize_dataset(const Dataset& dataset, const SplitRows& split, const RowEncoder& encoder,
                                  const TokenizeOptions& options) {
  check_split(split, dataset.rows());
  const EncodedRows rows = encode(dataset, split, encoder, options);
  const auto part_of = [&](const RowSequence& order) {
    return rows.large ? TokenStore(rows.table, order, *rows.large) : TokenStore(rows.table, order);
  };
  TokenizedDataset result{part_of(split.train), part_of(split.test), {}};
  const auto count = [&](std::int64_t row) { ++result.rows_by_fault[rows.table->locate(row).record.fault]; };
  for (const RowSequence* part : {&split.train, &split.test})
    for (std::int64_t i = 0; !rows.large && i < part->size(); ++i) count((*part)[i]);
  for (std::int64_t row = 0; rows.large && row < rows.large->known; ++row) count(row);
  rows.table->release_records();
  const std::string where = dataset.files().front().string();
  CHECK(result.train.known_rows() > 0 || split.train.empty(), "{}: no usable row to train on; {}", where, fault_summary(result.rows_by_fault));
  CHECK(result.held_out.known_rows() > 0 || split.test.empty() || !result.held_out.knows_all(), "{}: no usable row held out; {}", where,
        fault_summary(result.rows_by_fault));
  CHECK(result.train.total_supervised() > 0 || split.train.empty(),
        "{}: not one token of the training rows is supervised (max_seq_length {} cuts every answer off?)", where,
        encoder.options().max_seq_length);
  if (!split.train.empty() && result.train.supervised_share() < kFewSupervised)
    log::warning("only {:.2f} % of the training tokens are supervised; look at --loss_on, --max_seq_length and the data set's columns",
                 100 * result.train.supervised_share());
  return result;
}

}  // namespace llmfp8
