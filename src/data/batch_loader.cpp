// The epoch's order cut into micro-batches. Called by the trainer.
#include "data/batch_loader.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <numeric>
#include <span>

#include "core/error.h"
#include "core/rng.h"
#include "data/packing.h"
#include "data/row_filler.h"
#include "data/split.h"

namespace llmfp8 {

namespace {

constexpr std::int64_t kMaxCapacities = 8;

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Every rank's rows of every micro-batch of one epoch: micro-batch m of rank r is batch(m * world_size + r). Flat: there may be
// millions.
struct EpochPlan {
  RowSequence rows;                   // of the store: packed, batch by batch; else the epoch's order
  std::vector<std::int64_t> starts;   // [batches + 1], packed: of each batch in `rows`
  std::int64_t micro_batches = 0, world_size = 1;
  std::int64_t group_rows = 0;        // not packed: of a micro-batch on all ranks, who take turns

  std::int64_t batches() const { return micro_batches * world_size; }
  std::vector<std::int64_t> batch(std::int64_t b) const {
    std::vector<std::int64_t> of_batch;
    if (starts.empty()) {
      const std::int64_t group = b / world_size, end = std::min((group + 1) * group_rows, rows.size());
      for (std::int64_t i = group * group_rows + b % world_size; i < end; i += world_size) of_batch.push_back(rows[i]);
    } else {
      const auto at = static_cast<std::size_t>(b);
      for (std::int64_t i = starts[at]; i < starts[at + 1]; ++i) of_batch.push_back(rows[i]);
    }
    return of_batch;
  }
};

void check_options(const TokenStore& store, const BatchLoaderOptions& o) {
  CHECK(store.rows() > 0, "no rows to make batches of");
  CHECK(o.batch_size >= 1, "batch_size is {}; it must be at least 1", o.batch_size);
  CHECK(o.max_seq_length >= 1, "max_seq_length is {}; it must be at least 1", o.max_seq_length);
  CHECK(o.accumulation >= 1, "gradient_accumulation_steps is {}; it must be at least 1", o.accumulation);
  CHECK(o.world_size >= 1 && o.rank >= 0 && o.rank < o.world_size, "rank {} of {}", o.rank, o.world_size);
  CHECK(store.knows_all() || o.packing == Packing::off, "packing needs the length of every row");
  CHECK(store.longest() <= o.max_seq_length, "a row of {} tokens is above max_seq_length {}", store.longest(),
        o.max_seq_length);
  CHECK(o.batch_size <= INT32_MAX / 2 / o.max_seq_length, "batch_size {} times max_seq_length {} is more than {} tokens",
        o.batch_size, o.max_seq_length, INT32_MAX / 2);
}

}  // namespace

struct BatchLoader::Impl {
  const TokenStore& store;
  BatchLoaderOptions options;
  std::int64_t max_docs = 0;
  std::vector<std::int64_t> capacities;
  std::int64_t padded_positions = 0, used_positions = 0;
  mutable std::mutex mutex;
  mutable std::map<std::int64_t, std::shared_ptr<const EpochPlan>> plans;  // of the epochs used last
  mutable std::map<std::int64_t, std::int64_t> packed_micro_batches;       // by epoch

  Impl(const TokenStore& rows, const BatchLoaderOptions& o) : store(rows), options(o) {
    check_options(store, options);
    max_docs = options.batch_size;
    if (options.packing == Packing::fill) {
      // Twice what rows of mean length need; a bin with so many documents is closed.
      const std::int64_t mean = std::max<std::int64_t>(1, store.total_tokens() / store.rows());
      max_docs = std::max(options.batch_size, std::min(store.rows(), divide_up(2 * bin_tokens(), mean)));
    }
    const auto first = plan(0);
    CHECK(first->micro_batches > 0,
          "{} rows do not fill one batch of {} rows on {} rank(s), and the last incomplete batch is dropped", store.rows(),
          options.batch_size, options.world_size);
    const std::vector<std::int64_t> batch_tokens = store.knows_all() ? tokens_of_batches(*first) : tokens_of_known_batches();
    capacities = choose_capacities(batch_tokens, worst_tokens(), kMaxCapacities);
    for (const std::int64_t tokens : batch_tokens) {
      used_positions += tokens;
      padded_positions += capacity_for(tokens) - tokens;
    }
  }

  std::int64_t bin_tokens() const { return options.batch_size * options.max_seq_length; }

  // No micro-batch of any epoch holds more.
  std::int64_t worst_tokens() const {
    if (options.packing == Packing::fill) return std::min(bin_tokens(), store.total_tokens());
    if (!store.knows_all()) return bin_tokens();
    const std::span<const std::uint32_t> known = store.known_lengths();
    std::vector<std::uint32_t> lengths(std::min(known.size(), static_cast<std::size_t>(options.batch_size)));
    std::partial_sort_copy(known.begin(), known.end(), lengths.begin(), lengths.end(), std::greater<>());
    return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  }

  std::vector<std::int64_t> tokens_of_batches(const EpochPlan& epoch) const {
    std::vector<std::int64_t> tokens;
    for (std::int64_t b = 0; b < epoch.batches(); ++b) {
      tokens.push_back(0);
      for (const std::int64_t row : epoch.batch(b)) tokens.back() += store.length(row);
    }
    return tokens;
  }

  // What batches of the known rows would hold: the others' will be like them.
  std::vector<std::int64_t> tokens_of_known_batches() const {
    const std::span<const std::uint32_t> lengths = store.known_lengths();
    const auto rows = static_cast<std::size_t>(options.batch_size);
    std::vector<std::int64_t> tokens;
    for (std::size_t first = 0; first + rows <= lengths.size(); first += rows) {
      const std::span<const std::uint32_t> batch = lengths.subspan(first, rows);
      tokens.push_back(std::accumulate(batch.begin(), batch.end(), std::int64_t{0}));
    }
    return tokens;
  }

  std::int64_t capacity_for(std::int64_t tokens) const {
    const auto found = std::lower_bound(capacities.begin(), capacities.end(), tokens);
    CHECK(found != capacities.end(), "a micro-batch of {} tokens above the largest capacity {}", tokens, capacities.back());
    return *found;
  }

  RowSequence order_of(std::int64_t epoch) const {
    CHECK(epoch >= 0, "epoch {}", epoch);
    if (options.order == RowOrder::shuffled) return epoch_rows(store.rows(), options.seed, static_cast<std::uint64_t>(epoch));
    std::vector<std::int64_t> order(static_cast<std::size_t>(store.rows()));
    std::iota(order.begin(), order.end(), std::int64_t{0});
    return order;
  }

  std::int64_t unpacked_micro_batches() const {
    const std::int64_t rows = options.batch_size * options.world_size;
    return options.last_batch == LastBatch::drop ? store.rows() / rows : divide_up(store.rows(), rows);
  }

  EpochPlan cut_rows(RowSequence order) const {
    EpochPlan cut;
    cut.world_size = options.world_size;
    cut.group_rows = options.batch_size * options.world_size;
    cut.micro_batches = unpacked_micro_batches();
    cut.rows = std::move(order);
    cut.rows.keep_first(cut.micro_batches * cut.group_rows);
    return cut;
  }

  EpochPlan pack_rows(const RowSequence& order) const {
    std::vector<std::int64_t> lengths(static_cast<std::size_t>(order.size()));
    for (std::size_t i = 0; i < lengths.size(); ++i) lengths[i] = store.length(order[static_cast<std::int64_t>(i)]);
    const std::vector<std::vector<std::int64_t>> bins = best_fit(lengths, BinLimits{bin_tokens(), max_docs});
    EpochPlan packed;
    const bool drop = options.last_batch == LastBatch::drop;
    packed.world_size = options.world_size;
    packed.micro_batches = drop ? std::ssize(bins) / options.world_size : divide_up(std::ssize(bins), options.world_size);
    const auto begin_batch = [&] { packed.starts.push_back(packed.rows.size()); };
    for (std::int64_t b = 0; b < packed.batches(); ++b) {
      begin_batch();
      if (b >= std::ssize(bins)) continue;
      for (const std::int64_t position : bins[static_cast<std::size_t>(b)])
        packed.rows.push_back(order[position]);
    }
    begin_batch();
    return packed;
  }

  // This rank's rows of batch b and of those behind it, as many as are worth a look ahead.
  std::vector<std::int64_t> rows_from(const EpochPlan& epoch, std::int64_t b) const {
    std::vector<std::int64_t> rows;
    for (; b < epoch.batches() && std::ssize(rows) < RowFiller::kMostAhead; b += options.world_size) {
      const std::vector<std::int64_t> of_batch = epoch.batch(b);
      rows.insert(rows.end(), of_batch.begin(), of_batch.end());
    }
    return rows;
  }

  std::shared_ptr<const EpochPlan> plan(std::int64_t epoch) const {
    const std::lock_guard lock(mutex);
    if (const auto found = plans.find(epoch); found != plans.end()) return found->second;
    RowSequence order = order_of(epoch);
    auto made = std::make_shared<const EpochPlan>(options.packing == Packing::fill ? pack_rows(order) : cut_rows(std::move(order)));
    packed_micro_batches[epoch] = made->micro_batches;
    while (plans.size() >= 2) plans.erase(plans.begin()->first < epoch ? plans.begin() : std::prev(plans.end()));
    plans[epoch] = made;
    return made;
  }

  std::int64_t micro_batches_of_epoch(std::int64_t epoch) const {
    if (options.packing == Packing::off) return unpacked_micro_batches();
    {
      const std::lock_guard lock(mutex);
      if (const auto found = packed_micro_batches.find(epoch); found != packed_micro_batches.end()) return found->second;
    }
    return plan(epoch)->micro_batches;
  }

  std::int64_t steps(std::int64_t epoch) const { return divide_up(micro_batches_of_epoch(epoch), options.accumulation); }

  std::int64_t micro_batches(std::int64_t epoch, std::int64_t step) const {
    CHECK(step >= 0 && step < steps(epoch), "step {} of an epoch of {} steps", step, steps(epoch));
    return std::min(options.accumulation, micro_batches_of_epoch(epoch) - step * options.accumulation);
  }
};

BatchLoader::BatchLoader(const TokenStore& store, const BatchLoaderOptions& options)
    : impl_(std::make_unique<Impl>(store, options)) {}
BatchLoader::BatchLoader(BatchLoader&&) noexcept = default;
BatchLoader::~BatchLoader() = default;

const BatchLoaderOptions& BatchLoader::options() const { return impl_->options; }
std::int64_t BatchLoader::steps_per_epoch(std::int64_t epoch) const { return impl_->steps(epoch); }
const std::vector<std::int64_t>& BatchLoader::capacities() const { return impl_->capacities; }
std::int64_t BatchLoader::max_docs() const { return impl_->max_docs; }
std::int32_t BatchLoader::max_doc_tokens() const {
  return static_cast<std::int32_t>(impl_->store.knows_all() ? impl_->store.longest() : impl_->options.max_seq_length);
}

std::int64_t BatchLoader::unpacked_steps_per_epoch() const {
  return divide_up(impl_->unpacked_micro_batches(), impl_->options.accumulation);
}

std::int64_t BatchLoader::total_steps(std::int64_t epochs, std::int64_t limit) const {
  if (impl_->options.packing == Packing::off) {
    const bool is_cut = limit > 0 && epochs >= divide_up(limit, steps_per_epoch());
    return is_cut ? limit : epochs * steps_per_epoch();
  }
  std::int64_t total = 0;
  for (std::int64_t epoch = 0; epoch < epochs && (limit == 0 || total < limit); ++epoch) total += steps_per_epoch(epoch);
  return limit > 0 ? std::min(total, limit) : total;
}

std::int64_t BatchLoader::micro_batches(std::int64_t epoch, std::int64_t step) const {
  return impl_->micro_batches(epoch, step);
}

Cursor BatchLoader::next(Cursor at) const {
  return at.step + 1 < steps_per_epoch(at.epoch) ? Cursor{at.epoch, at.step + 1} : Cursor{at.epoch + 1, 0};
}

std::int32_t BatchLoader::equal_doc_tokens() const {
  const TokenStore& store = impl_->store;
  const auto differs = [&](std::uint32_t length) { return length != store.longest(); };
  if (!store.knows_all() || std::any_of(store.known_lengths().begin(), store.known_lengths().end(), differs)) return 0;
  return static_cast<std::int32_t>(store.longest());
}

double BatchLoader::padding_share() const {
  return static_cast<double>(impl_->padded_positions) / static_cast<double>(impl_->padded_positions + impl_->used_positions);
}

std::int64_t BatchLoader::supervised_in_step(std::int64_t epoch, std::int64_t step) const {
  const auto plan = impl_->plan(epoch);
  const std::int64_t world = impl_->options.world_size, first = step * impl_->options.accumulation * world;
  const std::int64_t last = first + impl_->micro_batches(epoch, step) * world;
  std::int64_t supervised = 0;
  for (std::int64_t batch = first; batch < last; ++batch)
    for (const std::int64_t row : plan->batch(batch)) supervised += impl_->store.supervised(row);
  return supervised;
}

HostBatch BatchLoader::load(std::int64_t epoch, std::int64_t step, std::int64_t micro) const {
  const auto& options = impl_->options;
  const TokenStore& store = impl_->store;
  CHECK(micro >= 0 && micro < impl_->micro_batches(epoch, step), "micro-batch {} of {}", micro,
        impl_->micro_batches(epoch, step));
  const auto plan = impl_->plan(epoch);
  const std::int64_t group = (step * options.accumulation + micro) * options.world_size;
  const std::int64_t b = group + options.rank;
  if (store.is_filling()) store.expect(impl_->rows_from(*plan, b));
  HostBatch batch;
  std::vector<RowTokens> documents;
  const auto take = [&](std::int64_t row) {
    RowTokens tokens = store.read(row);
    if (tokens.ids.empty()) return false;
    documents.push_back(std::move(tokens));
    return true;
  };
  for (const std::int64_t row : plan->batch(b))
    if (take(row)) batch.rows.push_back(row);
  const bool placeholder = documents.empty();
  for (std::int64_t rank = 0; documents.empty() && rank < options.world_size; ++rank)
    for (const std::int64_t row : plan->batch(group + rank))
      if (documents.empty()) take(row);
  if (documents.empty()) take(store.known_row(0));  // not one row of the micro-batch is of use

  std::int64_t num_tokens = 0;
  for (const RowTokens& document : documents) num_tokens += std::ssize(document.ids);
  batch.capacity = impl_->capacity_for(num_tokens);
  batch.max_doc_tokens = max_doc_tokens();
  const auto capacity = static_cast<std::size_t>(batch.capacity);
  batch.tokens.reserve(capacity);
  batch.labels.reserve(capacity);
  batch.positions.reserve(capacity);
  batch.supervised_rows.reserve(capacity);
  batch.cu_seqlens.assign(1, 0);
  for (const auto& [ids, labels] : documents) {
    CHECK(std::ssize(ids) <= options.max_seq_length, "a row of {} tokens is above max_seq_length {}", ids.size(), options.max_seq_length);
    for (std::size_t t = 0; t < ids.size(); ++t) {
      const std::int32_t label = placeholder ? kIgnoreLabel : labels[t];
      if (label != kIgnoreLabel) batch.supervised_rows.push_back(static_cast<std::int32_t>(batch.tokens.size()));
      batch.tokens.push_back(ids[t]);
      batch.labels.push_back(label);
      batch.positions.push_back(static_cast<std::int32_t>(t));
    }
    batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.tokens.size()));
  }
  batch.counts.num_tokens = static_cast<std::int32_t>(num_tokens);
  batch.counts.num_docs = static_cast<std::int32_t>(documents.size());
  batch.counts.num_supervised = static_cast<std::int32_t>(batch.supervised_rows.size());
  batch.cu_seqlens.resize(static_cast<std::size_t>(impl_->max_docs) + 1, batch.counts.num_tokens);

  const auto extend = [&](std::vector<std::int32_t>& values, std::int32_t filler, std::uint64_t array) {
    while (values.size() < capacity)
      values.push_back(options.tail == Tail::zero
                           ? filler
                           : static_cast<std::int32_t>(philox4x32(options.seed + array, values.size(), 0).x[0]));
  };
  extend(batch.tokens, 0, 0);
  extend(batch.labels, kIgnoreLabel, 1);
  extend(batch.positions, 0, 2);
  extend(batch.supervised_rows, 0, 3);
  return batch;
}

}  // namespace llmfp8
