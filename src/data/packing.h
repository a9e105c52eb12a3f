// Which documents share a micro-batch under --packing, and which batch capacities are worth having. Called by
// batch_loader.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace llmfp8 {

struct BinLimits {
  std::int64_t tokens = 0;
  std::int64_t docs = 0;
};

// Best fit in the given order: a document goes into the fullest bin that still holds it, else opens a new one. No
// document is split. Bins are in the order they were opened; each lists positions of `lengths`, ascending.
// Throws Error if a document is longer than limits.tokens.
std::vector<std::vector<std::int64_t>> best_fit(std::span<const std::int64_t> lengths, const BinLimits& limits);

// At most `count` multiples of 128, ascending, the last one at least `worst_tokens`, so that the sum over
// `batch_tokens` of the smallest capacity that holds each is least.
std::vector<std::int64_t> choose_capacities(std::span<const std::int64_t> batch_tokens, std::int64_t worst_tokens,
                                            std::int64_t count);

}  // namespace llmfp8
