// Sources: numpy/random/bit_generator.pyx (SeedSequence), src/pcg64 (PCG XSL-RR 128/64), src/distributions
// (random_interval), _generator.pyx (shuffle). Called by split.cpp.
#include "data/numpy_rng.h"

#include <bit>
#include <numeric>

#include "core/error.h"

namespace llmfp8 {

namespace {

constexpr std::uint32_t kMultA = 0x931e8875u;
constexpr std::uint32_t kMultB = 0x58f38dedu;

std::uint32_t hash_mix(std::uint32_t value, std::uint32_t& hash) {
  value ^= hash;
  hash *= kMultA;
  value *= hash;
  return value ^ (value >> 16);
}

std::uint32_t mix(std::uint32_t x, std::uint32_t y) {
  const std::uint32_t result = 0xca01f9ddu * x - 0x4973f715u * y;
  return result ^ (result >> 16);
}

// numpy's coercion of an integer: its 32-bit words, lowest first, and one word for zero.
std::vector<std::uint32_t> words_of(std::span<const std::uint64_t> entropy) {
  std::vector<std::uint32_t> words;
  for (const std::uint64_t value : entropy) {
    words.push_back(static_cast<std::uint32_t>(value));
    if (value >> 32 != 0) words.push_back(static_cast<std::uint32_t>(value >> 32));
  }
  return words;
}

}  // namespace

SeedSequence::SeedSequence(std::span<const std::uint64_t> entropy) {
  const std::vector<std::uint32_t> words = words_of(entropy);
  std::uint32_t hash = 0x43b0d7e5u;
  for (std::size_t i = 0; i < pool_.size(); ++i) pool_[i] = hash_mix(i < words.size() ? words[i] : 0, hash);
  for (std::size_t source = 0; source < pool_.size(); ++source)
    for (std::size_t target = 0; target < pool_.size(); ++target)
      if (source != target) pool_[target] = mix(pool_[target], hash_mix(pool_[source], hash));
  for (std::size_t source = pool_.size(); source < words.size(); ++source)
    for (std::uint32_t& target : pool_) target = mix(target, hash_mix(words[source], hash));
}

std::vector<std::uint32_t> SeedSequence::generate_state32(std::size_t words) const {
  std::vector<std::uint32_t> state(words);
  std::uint32_t hash = 0x8b51f9ddu;
  for (std::size_t i = 0; i < words; ++i) {
    std::uint32_t value = pool_[i % pool_.size()] ^ hash;
    hash *= kMultB;
    value *= hash;
    state[i] = value ^ (value >> 16);
  }
  return state;
}

std::vector<std::uint64_t> SeedSequence::generate_state64(std::size_t words) const {
  const std::vector<std::uint32_t> halves = generate_state32(2 * words);
  std::vector<std::uint64_t> state(words);
  for (std::size_t i = 0; i < words; ++i)
    state[i] = halves[2 * i] | static_cast<std::uint64_t>(halves[2 * i + 1]) << 32;
  return state;
}

NumpyGenerator::NumpyGenerator(const SeedSequence& sequence) {
  const std::vector<std::uint64_t> words = sequence.generate_state64(4);
  const Uint128 start = static_cast<Uint128>(words[0]) << 64 | words[1];
  increment_ = (static_cast<Uint128>(words[2]) << 64 | words[3]) << 1 | 1;
  advance();
  state_ += start;
  advance();
}

void NumpyGenerator::advance() {
  constexpr Uint128 multiplier = static_cast<Uint128>(0x2360ed051fc65da4ull) << 64 | 0x4385df649fccf645ull;
  state_ = state_ * multiplier + increment_;
}

std::uint64_t NumpyGenerator::next_uint64() {
  advance();
  const std::uint64_t folded = static_cast<std::uint64_t>(state_ >> 64) ^ static_cast<std::uint64_t>(state_);
  const unsigned turn = static_cast<unsigned>(state_ >> 122);
  return folded >> turn | folded << ((64 - turn) & 63);
}

std::uint32_t NumpyGenerator::next_uint32() {
  if (has_half_) {
    has_half_ = false;
    return half_;
  }
  const std::uint64_t both = next_uint64();
  has_half_ = true;
  half_ = static_cast<std::uint32_t>(both >> 32);
  return static_cast<std::uint32_t>(both);
}

double NumpyGenerator::next_double() { return static_cast<double>(next_uint64() >> 11) * (1.0 / 9007199254740992.0); }

std::uint32_t NumpyGenerator::bounded(std::uint32_t limit) {
  if (limit == 0) return 0;
  const std::uint32_t mask = 0xffffffffu >> std::countl_zero(limit);
  std::uint32_t value;
  while ((value = next_uint32() & mask) > limit) {
  }
  return value;
}

std::vector<std::int64_t> NumpyGenerator::permutation(std::int64_t n) {
  CHECK(n >= 0 && n <= std::int64_t{1} << 31, "an order of {} rows was asked for; at most {} are supported", n,
        std::int64_t{1} << 31);
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::int64_t i = n - 1; i > 0; --i)
    std::swap(order[static_cast<std::size_t>(i)], order[bounded(static_cast<std::uint32_t>(i))]);
  return order;
}

}  // namespace llmfp8
