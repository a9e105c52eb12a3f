// An order of more rows than an array of row numbers should hold: the place of a row is computed. Called by split.
#pragma once

#include <cstdint>

namespace llmfp8 {

// A bijection of [0, n): a Feistel network of four rounds over the smallest even number of bits that holds n, its round function
// Philox 4x32-10 keyed by seed, with round and stream in the counter. What falls outside [0, n) goes through it again (cycle
// walking): less than four times in the mean.
class KeyedPermutation {
 public:
  // n >= 1.
  KeyedPermutation(std::int64_t n, std::uint64_t seed, std::uint64_t stream);
  std::int64_t size() const { return n_; }
  std::int64_t operator[](std::int64_t i) const;
  std::int64_t place_of(std::int64_t value) const;  // where operator[] gives it

 private:
  std::uint64_t mixed(std::uint64_t round, std::uint64_t half) const;
  std::uint64_t forward(std::uint64_t value) const;
  std::uint64_t backward(std::uint64_t value) const;

  std::int64_t n_;
  std::uint64_t seed_, stream_;
  int half_bits_;
  std::uint64_t mask_;
};

}  // namespace llmfp8
