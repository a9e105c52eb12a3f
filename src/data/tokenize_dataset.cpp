// A thread reads the next rows while all cores encode those before; memory holds two such windows of text and one segment of
// tokens. Called by the trainer.
#include "data/tokenize_dataset.h"

#include <algorithm>
#include <future>
#include <numeric>

#include "core/error.h"
#include "core/log.h"
#include "data/encode_rows.h"
#include "data/token_cache.h"

namespace llmfp8 {

namespace {

constexpr double kFewSupervised = 0.02;

void add(SegmentBuilder& builder, const EncodedRow& row) {
  if (row.fault == RowFault::none) {
    builder.add(row.tokens);
  } else {
    builder.add_faulty(row.fault);
  }
}

// Fills the table from where it ends.
class TableBuilder {
 public:
  TableBuilder(const Dataset& dataset, const RowEncoder& encoder, const TokenizeOptions& options)
      : dataset_(dataset), encoder_(encoder), options_(options), builder_(0) {
    if (options.cache.empty()) return;
    std::string key = fmt::format("{}\n{}\n", encoder.description(), dataset.reading());
    for (const auto& file : dataset.files()) key += fmt::format("{}: {}\n", file.filename().string(), file_identity(file));
    cache_ = std::make_unique<TokenCache>(options.cache, key);
  }

  std::shared_ptr<const TokenTable> build() {
    if (cache_ && cache_->exists()) {
      take_written();
      if (table_->rows() < dataset_.rows() && try_lock()) take_written();
    }
    if (table_->rows() < dataset_.rows()) encode_rest();
    if (cache_) log::info("tokens of {} rows: {} in {}", dataset_.rows(), is_new_ ? "kept" : "found", cache_->folder().string());
    return std::move(table_);
  }

 private:
  void show(std::int64_t done) const {
    if (options_.progress) options_.progress(done, dataset_.rows());
  }

  // Whether there was any.
  bool take_written() {
    const std::int64_t before = table_->rows();
    while (auto segment = cache_->open(table_->rows())) {
      if (segment->first_row() + segment->rows() > dataset_.rows()) break;
      table_->append(std::move(segment));
    }
    if (table_->rows() == before) return false;
    builder_ = SegmentBuilder(table_->rows());
    return true;
  }

  // What keeps tokens from the disk costs memory, not the run.
  bool do_without_cache(const Error& error) {
    log::warning("the tokens stay in memory: {}; LLMFP8_CACHE_DIR names another folder", error.what());
    cache_.reset();
    return false;
  }

  bool try_lock() {
    bool has_said = false;
    try {
      cache_->lock([&] {
        if (!has_said) log::info("another process is tokenising the same rows into {}; waiting for it", cache_->folder().string());
        has_said = true;
        show(table_->rows());
      });
      return true;
    } catch (const Error& error) {
      return do_without_cache(error);
    }
  }

  void encode_rest() {
    const std::int64_t window = rows_of_a_window();
    DatasetStream stream(dataset_, table_->rows());
    const auto read = [&] { return std::async(std::launch::async, [&] { return stream.next(window); }); };
    std::future<std::vector<RawRow>> next = read();
    while (true) {
      std::vector<RawRow> raw = next.get();
      if (raw.empty()) break;
      next = read();
      const auto encode = [&](std::size_t i) { return encode_row(encoder_, dataset_.parse(std::move(raw[i]))); };
      for (const EncodedRow& row : encode_rows(std::ssize(raw), encode)) add(builder_, row);
      show(builder_.next_row());
      if (builder_.tokens() < options_.segment_tokens) continue;
      const std::int64_t end = builder_.next_row();
      close_segment();
      if (table_->rows() != end) {  // pieces that were written already are elsewhere cut
        next.wait();
        return table_->rows() < dataset_.rows() ? encode_rest() : void();
      }
    }
    if (builder_.next_row() > table_->rows()) close_segment();
  }

  void close_segment() {
    const bool is_all = builder_.first_row() == 0 && builder_.next_row() == dataset_.rows();
    if (is_all && builder_.tokens() < options_.segment_tokens) cache_.reset();  // too little to be worth it
    if (cache_ && builder_.first_row() == 0 && !cache_->exists()) check_disk();
    if (cache_ && try_lock()) {
      if (take_written()) return;  // by another process between our look and our lock, or behind a piece that was damaged
      try {
        table_->append(cache_->write(builder_));
        builder_ = SegmentBuilder(table_->rows());
        is_new_ = true;
        return;
      } catch (const Error& error) {
        do_without_cache(error);
      }
    }
    table_->append(builder_.take());
  }

  // By the first segment's share of the rows.
  void check_disk() {
    constexpr double kBytesOfAToken = 4.2;  // its id, its mark, its share of a row's record
    const double bytes = kBytesOfAToken * static_cast<double>(builder_.tokens()) * static_cast<double>(dataset_.rows()) / static_cast<double>(builder_.next_row());
    std::error_code error;
    std::filesystem::create_directories(options_.cache, error);
    const std::filesystem::space_info space = std::filesystem::space(options_.cache, error);
    if (!error && static_cast<double>(space.available) < bytes) {
      do_without_cache(Error(fmt::format("{}: {:.1f} GB free on the disk, about {:.1f} GB wanted", options_.cache.string(),
                                         static_cast<double>(space.available) / 1e9, bytes / 1e9)));
    }
  }

  const Dataset& dataset_;
  const RowEncoder& encoder_;
  const TokenizeOptions& options_;
  std::unique_ptr<TokenCache> cache_;  // null: in memory
  std::shared_ptr<TokenTable> table_ = std::make_shared<TokenTable>();
  SegmentBuilder builder_;
  bool is_new_ = false;
};

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
      add(builder, encoded[i - begin]);
    }
    if (options.progress) options.progress(static_cast<std::int64_t>(end), std::ssize(wanted));
  }
  auto table = std::make_shared<TokenTable>();
  table->append(builder.take());
  return table;
}

void check_split(const SplitRows& split, std::int64_t rows) {
  std::vector<bool> named(static_cast<std::size_t>(rows));
  for (const std::vector<std::int64_t>* part : {&split.train, &split.test}) {
    for (const std::int64_t row : *part) {
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

std::string TokenizedDataset::fault_summary() const {
  if (dropped() == 0) return "";
  std::vector<std::string> kinds;
  for (std::size_t fault = 1; fault < kRowFaults; ++fault)
    if (rows_by_fault[fault] > 0)
      kinds.push_back(fmt::format("{} {}", rows_by_fault[fault], name_of(static_cast<RowFault>(fault))));
  return fmt::format("{} row{} left out: {}", dropped(), dropped() == 1 ? "" : "s", fmt::join(kinds, ", "));
}

TokenizedDataset tokenize_dataset(const Dataset& dataset, const SplitRows& split, const RowEncoder& encoder,
                                  const TokenizeOptions& options) {
  check_split(split, dataset.rows());
  // An evaluation looks at few rows of many, and only once.
  const bool is_sparse = split.train.empty() && std::ssize(split.test) < dataset.rows() / 4;
  const std::shared_ptr<const TokenTable> table =
      is_sparse ? encode_alone(dataset, encoder, split.test, options) : TableBuilder(dataset, encoder, options).build();
  TokenizedDataset result{TokenStore(table, split.train), TokenStore(table, split.test), {}};
  for (const std::vector<std::int64_t>* part : {&split.train, &split.test})
    for (const std::int64_t row : *part) ++result.rows_by_fault[table->locate(row).record.fault];
  const std::string where = dataset.files().front().string();
  CHECK(result.train.rows() > 0 || split.train.empty(), "{}: no usable row to train on; {}", where, result.fault_summary());
  CHECK(result.held_out.rows() > 0 || split.test.empty(), "{}: no usable row held out; {}", where, result.fault_summary());
  CHECK(result.train.total_supervised() > 0 || split.train.empty(),
        "{}: not one token of the training rows is supervised (max_seq_length {} cuts every answer off?)", where,
        encoder.options().max_seq_length);
  if (!split.train.empty() && result.train.supervised_share() < kFewSupervised)
    log::warning("only {:.2f} % of the training tokens are supervised; look at --loss_on, --max_seq_length and the data set's columns",
                 100 * result.train.supervised_share());
  return result;
}

}  // namespace llmfp8
