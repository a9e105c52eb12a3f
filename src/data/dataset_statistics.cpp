// A thread reads the next rows while all cores encode those before, as for training; then only numbers and hashes are kept.
#include "data/dataset_statistics.h"

#include <algorithm>
#include <future>
#include <numeric>
#include <span>
#include <string_view>

#include "core/batch.h"
#include "core/error.h"
#include "core/hash.h"
#include "data/encode_rows.h"

namespace llmfp8 {
namespace {

constexpr std::size_t kPairs = 3;

std::uint64_t hash_of(std::span<const std::int32_t> ids) {
  return fnv1a({reinterpret_cast<const char*>(ids.data()), ids.size_bytes()});
}

// What is asked: the conversation up to the last user's message, with what the template sees beside it, or the prompt. 0: nothing.
std::uint64_t prompt_hash(const DatasetRow& row) {
  const auto last = std::find_if(row.messages.rbegin(), row.messages.rend(), [](const ChatMessage& m) { return m.role == "user"; });
  if (last == row.messages.rend()) return row.prompt.empty() ? 0 : fnv1a(row.prompt);
  std::uint64_t hash = fnv1a(row.extras.tools);
  for (auto message = row.messages.begin(); message != last.base(); ++message) {
    // The lengths keep apart what would read alike end to end.
    hash = fnv1a(fmt::format("\n{} {} {}\n", message->role, message->content.size(), message->json.size()), hash);
    hash = fnv1a(message->json, fnv1a(message->content, hash));
  }
  return std::max<std::uint64_t>(hash, 1);
}

class RepeatFinder {
 public:
  void add(std::int64_t row, std::uint64_t hash) {
    CHECK(row <= UINT32_MAX, "row {}: repeats are looked for in {} rows", row, UINT32_MAX);
    rows_.push_back(static_cast<std::uint32_t>(row));
    hashes_.push_back(hash);
  }
  std::int64_t size() const { return std::ssize(rows_); }

  Repeats find() const {
    std::vector<std::uint32_t> order(rows_.size());
    std::iota(order.begin(), order.end(), 0U);
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return hashes_[a] != hashes_[b] ? hashes_[a] < hashes_[b] : a < b;
    });
    Repeats repeats;
    std::vector<std::pair<std::int64_t, std::int64_t>>& pairs = repeats.pairs;
    const auto later = [](const auto& a, const auto& b) { return a.second < b.second; };
    std::size_t first = 0;
    for (std::size_t i = 1; i < order.size(); ++i) {
      if (hashes_[order[i]] != hashes_[order[first]]) {
        first = i;
        continue;
      }
      ++repeats.count;
      // Those that come first in the data set, whatever their hashes.
      pairs.emplace_back(rows_[order[first]], rows_[order[i]]);
      if (pairs.size() > kPairs) pairs.erase(std::max_element(pairs.begin(), pairs.end(), later));
    }
    std::sort(pairs.begin(), pairs.end(), later);
    return repeats;
  }

 private:
  std::vector<std::uint32_t> rows_;
  std::vector<std::uint64_t> hashes_;
};

void add(DatasetStatistics& statistics, const EncodedRow& row) {
  ++statistics.rows;
  ++statistics.rows_by_fault[static_cast<std::size_t>(row.fault)];
  if (row.fault != RowFault::none) return;
  const TokenizedRow& tokens = row.tokens;
  const auto length = std::ssize(tokens.ids);
  const auto supervised = length - std::count(tokens.labels.begin(), tokens.labels.end(), kIgnoreLabel);
  ++statistics.rows_by_length[tokens.untruncated_length];
  statistics.tokens += length;
  statistics.supervised += supervised;
  statistics.unsupervised_rows += supervised == 0;
  statistics.truncated_rows += tokens.truncated;
  statistics.truncated_tokens += tokens.untruncated_length - length;
}

}  // namespace

LengthQuantiles DatasetStatistics::length_quantiles() const {
  const auto at = [&](double q) -> std::int64_t {
    auto left = static_cast<std::int64_t>(q * static_cast<double>(usable() - 1));
    for (const auto& [length, count] : rows_by_length) {
      if (left < count) return length;
      left -= count;
    }
    return 0;
  };
  return {at(0), at(0.5), at(0.9), at(0.99), at(1)};
}

DatasetStatistics measure_dataset(const Dataset& dataset, const RowEncoder& encoder,
                                  const std::function<void(std::int64_t done, std::int64_t total)>& progress) {
  DatasetStatistics statistics;
  RepeatFinder rows, prompts;
  DatasetStream stream(dataset, 0);
  const auto read = [&] { return std::async(std::launch::async, [&] { return stream.next(rows_of_a_window()); }); };
  std::future<std::vector<RawRow>> next = read();
  while (true) {
    std::vector<RawRow> raw = next.get();
    if (raw.empty()) break;
    next = read();
    const auto encode = [&](std::size_t i) {
      const DatasetRow row = dataset.parse(std::move(raw[i]));
      EncodedRow encoded = encode_row(encoder, row);
      if (encoded.fault == RowFault::none) encoded.prompt = prompt_hash(row);
      return encoded;
    };
    for (const EncodedRow& row : encode_rows(std::ssize(raw), encode)) {
      if (row.fault == RowFault::none) rows.add(statistics.rows, hash_of(row.tokens.ids));
      if (row.prompt != 0) prompts.add(statistics.rows, row.prompt);
      add(statistics, row);
    }
    if (progress) progress(statistics.rows, dataset.rows());
  }
  statistics.repeated_rows = rows.find();
  statistics.prompts = prompts.size();
  statistics.repeated_prompts = prompts.find();
  return statistics;
}

std::vector<LengthBar> length_bars(const DatasetStatistics& statistics, std::int64_t max_seq_length, std::int64_t most) {
  if (statistics.usable() == 0) return {};
  const LengthQuantiles q = statistics.length_quantiles();
  // A few very long rows must not press all others into one bar.
  const std::int64_t top = std::min(q.max, 2 * q.p99);
  std::int64_t width = 1;
  for (int i = 0; top / width - q.min / width + 1 > most; ++i) width = i % 3 == 1 ? width / 2 * 5 : width * 2;
  const std::int64_t begin = q.min / width * width;
  std::vector<LengthBar> bars;
  for (std::int64_t from = begin; from <= top; from += width) bars.push_back({from, from + width - 1, 0, 0});
  if (bars.back().to < q.max) bars.push_back({bars.back().to + 1, q.max, 0, 0});
  for (const auto& [length, rows] : statistics.rows_by_length) {
    LengthBar& bar = bars[std::min(static_cast<std::size_t>((length - begin) / width), bars.size() - 1)];
    bar.rows += rows;
    if (length > max_seq_length) bar.cut_rows += rows;
  }
  return bars;
}

}  // namespace llmfp8
