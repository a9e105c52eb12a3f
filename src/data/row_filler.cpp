#include "data/row_filler.h"

#include <algorithm>

#include <sys/resource.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"

namespace llmfp8 {
namespace {

struct Stopped {};

constexpr std::int64_t kRead = -1;  // in place of a row that is not expected any more

// Of this thread, and of those that it starts. Encoding may take what training leaves.
void give_way() {
  constexpr int kNice = 10;
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
}

}  // namespace

RowFiller::RowFiller(const Dataset& dataset, const RowEncoder& encoder, std::unique_ptr<TableBuilder> builder)
    : dataset_(dataset), encoder_(encoder), table_(builder->table()) {
  filling_ = std::thread([this, builder = std::shared_ptr<TableBuilder>(std::move(builder))] { fill(*builder); });
  making_ = std::thread([this] { make_early(); });
}

RowFiller::~RowFiller() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  wanted_.notify_all();
  filling_.join();
  making_.join();
}

bool RowFiller::is_done() const {
  const std::lock_guard lock(mutex_);
  return is_done_;
}

RowTokens RowFiller::read(std::int64_t row) {
  std::unique_lock lock(mutex_);
  while (true) {
    if (row < table_->rows()) break;
    if (const auto found = early_.find(row); found != early_.end()) {
      RowTokens tokens = std::move(found->second);
      early_.erase(found);
      std::erase(asked_, row);
      if (const auto next = std::find(expected_.begin(), expected_.end(), row); next != expected_.end()) *next = kRead;
      return tokens;
    }
    if (error_) std::rethrow_exception(error_);
    if (std::find(asked_.begin(), asked_.end(), row) == asked_.end()) asked_.push_back(row);
    wanted_.notify_one();
    arrived_.wait(lock);
  }
  lock.unlock();
  return table_->read(row);
}

void RowFiller::expect(std::vector<std::int64_t> rows) {
  {
    const std::lock_guard lock(mutex_);
    if (error_) std::rethrow_exception(error_);
    expected_ = std::move(rows);
  }
  wanted_.notify_one();
}

void RowFiller::fail() {
  {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
  arrived_.notify_all();
}

void RowFiller::fill(TableBuilder& builder) {
  give_way();
  try {
    std::int64_t known = 0;
    builder.finish(Cores::own_threads, [&] {
      const std::lock_guard lock(mutex_);
      if (stops_) throw Stopped();
      if (const std::int64_t rows = table_->rows(); rows > std::exchange(known, rows)) {
        std::erase_if(early_, [&](const auto& early) { return early.first < rows; });
        arrived_.notify_all();
      }
    });
    if (const std::string faults = fault_summary(table_->rows_by_fault()); !faults.empty()) log::warning("{}", faults);
    const std::lock_guard lock(mutex_);
    is_done_ = true;
    early_.clear();
    expected_ = {};
    arrived_.notify_all();
    wanted_.notify_all();
  } catch (const Stopped&) {
  } catch (...) {
    fail();
  }
}

// Rows to make now: those waited for, and where less than half of what should lie ahead is there, the rest of it. By halves, since
// many at a time cost less: between two rows of a row group everything is decoded.
std::vector<std::int64_t> RowFiller::choose() const {
  std::vector<std::int64_t> rows;
  const auto add_missing = [&](const std::vector<std::int64_t>& from, std::int64_t most) {
    for (std::int64_t i = 0; i < std::min(most, std::ssize(from)); ++i)
      if (const std::int64_t row = from[static_cast<std::size_t>(i)]; !is_there(row)) rows.push_back(row);
  };
  add_missing(asked_, std::ssize(asked_));
  const std::size_t asked = rows.size();
  add_missing(expected_, (ahead_ + 1) / 2);
  if (rows.size() > asked) {
    rows.resize(asked);
    add_missing(expected_, ahead_);
  }
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

void RowFiller::make_early() {
  // As long as rows become cheaper by it, more are made at a time. Where each has a row group of its own they do not.
  constexpr std::int64_t kGrowth = 4;
  constexpr double kWorthIt = 0.6;
  double seconds_of_a_row = 1e9;
  bool grows = true;
  std::unique_lock lock(mutex_);
  try {
    while (!stops_ && !is_done_) {
      const std::vector<std::int64_t> rows = choose();
      asked_.clear();  // who still waits asks again
      if (rows.empty()) {
        wanted_.wait(lock);
        continue;
      }
      const bool is_full = std::ssize(rows) >= ahead_ / 2;
      lock.unlock();
      const double start = now_seconds();
      std::vector<RowTokens> made;
      for (const std::int64_t row : rows) {
        EncodedRow encoded = encode_row(encoder_, dataset_.read(row, row + 1).front());
        made.push_back({std::move(encoded.tokens.ids), std::move(encoded.tokens.labels)});
        const std::lock_guard look(mutex_);
        if (stops_) return;
      }
      const double cost = (now_seconds() - start) / static_cast<double>(rows.size());
      lock.lock();
      for (std::size_t i = 0; i < rows.size(); ++i)
        if (rows[i] >= table_->rows()) early_[rows[i]] = std::move(made[i]);
      if (grows && is_full) {
        grows = cost < kWorthIt * std::exchange(seconds_of_a_row, cost);
        if (grows) ahead_ = std::min(kMostAhead, kGrowth * ahead_);
      }
      arrived_.notify_all();
    }
  } catch (...) {
    if (lock.owns_lock()) lock.unlock();
    fail();
  }
}

}  // namespace llmfp8
