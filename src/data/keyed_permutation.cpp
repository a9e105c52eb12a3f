#include "data/keyed_permutation.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/error.h"
#include "core/rng.h"

namespace llmfp8 {

namespace {
constexpr std::uint64_t kRounds = 4;
}

KeyedPermutation::KeyedPermutation(std::int64_t n, std::uint64_t seed, std::uint64_t stream)
    : n_(n), seed_(seed), stream_(stream) {
  CHECK(n >= 1, "a permutation of {} rows", n);
  const int bits = std::bit_width(static_cast<std::uint64_t>(n - 1));
  half_bits_ = std::max(1, (bits + 1) / 2);
  mask_ = (std::uint64_t{1} << half_bits_) - 1;
}

// half has at most 32 bits.
std::uint64_t KeyedPermutation::mixed(std::uint64_t round, std::uint64_t half) const {
  return philox4x32(seed_, stream_, round << 32 | half).x[0] & mask_;
}

std::uint64_t KeyedPermutation::forward(std::uint64_t value) const {
  std::uint64_t left = value >> half_bits_, right = value & mask_;
  for (std::uint64_t round = 0; round < kRounds; ++round) left = std::exchange(right, left ^ mixed(round, right));
  return left << half_bits_ | right;
}

std::uint64_t KeyedPermutation::backward(std::uint64_t value) const {
  std::uint64_t left = value >> half_bits_, right = value & mask_;
  for (std::uint64_t round = kRounds; round-- > 0;) right = std::exchange(left, right ^ mixed(round, left));
  return left << half_bits_ | right;
}

std::int64_t KeyedPermutation::operator[](std::int64_t i) const {
  CHECK(i >= 0 && i < n_, "row {} of {}", i, n_);
  auto value = static_cast<std::uint64_t>(i);
  do value = forward(value);
  while (value >= static_cast<std::uint64_t>(n_));
  return static_cast<std::int64_t>(value);
}

std::int64_t KeyedPermutation::place_of(std::int64_t value) const {
  CHECK(value >= 0 && value < n_, "row {} of {}", value, n_);
  auto place = static_cast<std::uint64_t>(value);
  do place = backward(place);
  while (place >= static_cast<std::uint64_t>(n_));
  return static_cast<std::int64_t>(place);
}

}  // namespace llmfp8
