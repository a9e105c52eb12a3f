// Best fit, and the choice of capacities. Called by batch_loader.
#include "data/packing.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/error.h"

namespace llmfp8 {

namespace {
constexpr std::int64_t kTile = 128;
std::int64_t tiles(std::int64_t tokens) { return std::max<std::int64_t>(1, (tokens + kTile - 1) / kTile); }
}  // namespace

std::vector<std::vector<std::int64_t>> best_fit(std::span<const std::int64_t> lengths, const BinLimits& limits) {
  CHECK(limits.docs >= 1, "a bin of {} documents", limits.docs);
  std::vector<std::vector<std::int64_t>> bins;
  // Free tokens and number of every open bin; equal free tokens are served in the order of opening.
  std::set<std::pair<std::int64_t, std::int64_t>> open;
  for (std::int64_t doc = 0; doc < static_cast<std::int64_t>(lengths.size()); ++doc) {
    const std::int64_t length = lengths[static_cast<std::size_t>(doc)];
    CHECK(length <= limits.tokens, "a document of {} tokens does not fit into {} tokens", length, limits.tokens);
    std::int64_t free = limits.tokens, bin = static_cast<std::int64_t>(bins.size());
    const auto found = open.lower_bound({length, -1});
    if (found != open.end()) {
      std::tie(free, bin) = *found;
      open.erase(found);
    } else {
      bins.emplace_back();
    }
    auto& docs = bins[static_cast<std::size_t>(bin)];
    docs.push_back(doc);
    if (free > length && static_cast<std::int64_t>(docs.size()) < limits.docs) open.insert({free - length, bin});
  }
  return bins;
}

std::vector<std::int64_t> choose_capacities(std::span<const std::int64_t> batch_tokens, std::int64_t worst_tokens,
                                            std::int64_t count) {
  CHECK(count >= 1, "{} capacities", count);
  std::map<std::int64_t, std::int64_t> batches_of_tiles{{tiles(worst_tokens), 0}};
  for (const std::int64_t tokens : batch_tokens) {
    CHECK(tokens <= worst_tokens, "a batch of {} tokens above the worst case of {}", tokens, worst_tokens);
    ++batches_of_tiles[tiles(tokens)];
  }
  std::vector<std::int64_t> size, batches_up_to{0};
  for (const auto& [tile, batches] : batches_of_tiles) {
    size.push_back(tile);
    batches_up_to.push_back(batches_up_to.back() + batches);
  }
  // cost[k][j]: least tiles spent on the batches of the sizes 0 … j, with k + 1 capacities of which size j is the last.
  const std::size_t sizes = size.size(), limit = std::min<std::size_t>(static_cast<std::size_t>(count), sizes);
  std::vector<std::vector<std::int64_t>> cost(limit, std::vector<std::int64_t>(sizes));
  std::vector<std::vector<std::size_t>> previous(limit, std::vector<std::size_t>(sizes, 0));
  for (std::size_t j = 0; j < sizes; ++j) cost[0][j] = batches_up_to[j + 1] * size[j];
  for (std::size_t k = 1; k < limit; ++k)
    for (std::size_t j = k; j < sizes; ++j) {
      cost[k][j] = INT64_MAX;
      for (std::size_t i = k - 1; i < j; ++i) {
        const std::int64_t total = cost[k - 1][i] + (batches_up_to[j + 1] - batches_up_to[i + 1]) * size[j];
        if (total < cost[k][j]) {
          cost[k][j] = total;
          previous[k][j] = i;
        }
      }
    }
  std::vector<std::int64_t> capacities;
  std::size_t j = sizes - 1;
  for (std::size_t k = limit; k-- > 0; j = previous[k][j]) capacities.insert(capacities.begin(), size[j] * kTile);
  return capacities;
}

}  // namespace llmfp8
