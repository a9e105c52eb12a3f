// Memory holds two windows of text and one segment of tokens.
#include "data/table_builder.h"

#include <future>
#include <utility>

#include "core/log.h"

namespace llmfp8 {

// The next window is read while the one before is encoded.
class TableBuilder::ReadAhead {
 public:
  ReadAhead(const Dataset& dataset, std::int64_t first_row) : stream_(dataset, first_row), row_(first_row) {
    begin_next();
  }
  std::int64_t row() const { return row_; }
  std::vector<RawRow> next() {
    std::vector<RawRow> rows = next_.get();
    row_ += std::ssize(rows);
    begin_next();
    return rows;
  }

 private:
  void begin_next() {
    next_ = std::async(std::launch::async, [this] { return stream_.next(rows_of_a_window()); });
  }

  DatasetStream stream_;
  std::int64_t row_;
  std::future<std::vector<RawRow>> next_;  // its destructor waits
};

TableBuilder::TableBuilder(const Dataset& dataset, const RowEncoder& encoder, const TokenizeOptions& options)
    : dataset_(dataset), encoder_(encoder), options_(options) {
  progress_ = [this] {
    if (options_.progress) options_.progress(builder_.next_row(), dataset_.rows());
  };
  if (options.cache.empty()) return;
  std::string key = fmt::format("{}\n{}\n", encoder.description(), dataset.reading());
  for (const auto& file : dataset.files())
    key += fmt::format("{}: {}\n", file.filename().string(), file_identity(file));
  cache_ = std::make_unique<TokenCache>(options.cache, key);
}

TableBuilder::~TableBuilder() = default;

void TableBuilder::begin() {
  if (cache_ && cache_->exists()) take_written();
  fill([this] { return is_large(); });
}

void TableBuilder::finish(Cores cores, std::function<void()> progress) {
  cores_ = cores;
  progress_ = std::move(progress);
  fill([] { return false; });
  if (cache_)
    log::info("tokens of {} rows: {} in {}", dataset_.rows(), is_new_ ? "kept" : "found", cache_->folder().string());
  ahead_.reset();
  cache_.reset();  // which lets other processes go on
}

void TableBuilder::fill(const std::function<bool()>& is_enough) {
  while (!is_all() && !is_enough()) {
    if (cache_ && !is_locked_ && cache_->exists()) {  // there, or being made
      if (lock(is_enough)) take_written();
      continue;
    }
    if (!ahead_ || ahead_->row() != builder_.next_row())
      ahead_ = std::make_unique<ReadAhead>(dataset_, builder_.next_row());
    std::vector<RawRow> raw = ahead_->next();
    const auto encode = [&](std::size_t i) { return encode_row(encoder_, dataset_.parse(std::move(raw[i]))); };
    for (const EncodedRow& row : encode_rows(std::ssize(raw), encode, cores_)) add_row(builder_, row);
    progress_();
    if (builder_.tokens() >= options_.segment_tokens || builder_.next_row() == dataset_.rows())
      close_segment(is_enough);
  }
}

// Whether there was any.
bool TableBuilder::take_written() {
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
void TableBuilder::do_without_cache(const Error& error) {
  log::warning("the tokens stay in memory: {}; LLMFP8_CACHE_DIR names another folder", error.what());
  cache_.reset();
}

// False: another process made what is wanted meanwhile, or there is no cache any more.
bool TableBuilder::lock(const std::function<bool()>& is_enough) {
  try {
    is_locked_ = cache_->lock([&] {
      if (!std::exchange(has_said_, true))
        log::info("another process is tokenising the same rows into {}; its tokens are taken",
                  cache_->folder().string());
      take_written();
      progress_();
      return !is_all() && !is_enough();
    });
  } catch (const Error& error) {
    do_without_cache(error);
  }
  return is_locked_;
}

void TableBuilder::close_segment(const std::function<bool()>& is_enough) {
  const bool is_whole = builder_.first_row() == 0 && builder_.next_row() == dataset_.rows();
  if (is_whole && builder_.tokens() < options_.segment_tokens) cache_.reset();  // too little to be worth it
  if (cache_ && !cache_->exists()) check_disk();
  if (cache_ && !is_locked_ && !lock(is_enough) && cache_) return;
  if (cache_) {
    if (take_written()) return;  // by another process between our look and our lock
    try {
      table_->append(cache_->write(builder_));
      builder_ = SegmentBuilder(table_->rows());
      is_new_ = true;
      take_written();  // behind a piece that was damaged
      return;
    } catch (const Error& error) {
      do_without_cache(error);
    }
  }
  table_->append(builder_.take());
}

// By the first segment's share of the rows.
void TableBuilder::check_disk() {
  constexpr double kBytesOfAToken = 4.2;  // its id, its mark, its share of a row's record
  const double bytes = kBytesOfAToken * static_cast<double>(builder_.tokens()) * static_cast<double>(dataset_.rows()) /
                       static_cast<double>(builder_.next_row());
  std::error_code error;
  std::filesystem::create_directories(options_.cache, error);
  const std::filesystem::space_info space = std::filesystem::space(options_.cache, error);
  if (!error && static_cast<double>(space.available) < bytes) {
    do_without_cache(
        Error(fmt::format("{}: {:.1f} GB free on the disk, about {:.1f} GB wanted", options_.cache.string(),
                          static_cast<double>(space.available) / 1e9, bytes / 1e9)));
  }
}

}  // namespace llmfp8
