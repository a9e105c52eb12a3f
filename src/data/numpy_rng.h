// numpy's SeedSequence, PCG64 and Generator.permutation, bit for bit, so that splits and orders are those of the Python
// stack. Called by split.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace llmfp8 {

// numpy.random.SeedSequence(entropy) with the default pool of four words.
class SeedSequence {
 public:
  // entropy: as numpy's SeedSequence([a, b, ...]); one value is SeedSequence(a).
  explicit SeedSequence(std::span<const std::uint64_t> entropy);
  explicit SeedSequence(std::uint64_t seed) : SeedSequence(std::span<const std::uint64_t>(&seed, 1)) {}

  std::vector<std::uint32_t> generate_state32(std::size_t words) const;
  std::vector<std::uint64_t> generate_state64(std::size_t words) const;

 private:
  std::array<std::uint32_t, 4> pool_{};
};

// numpy.random.Generator(PCG64(...)).
class NumpyGenerator {
 public:
  __extension__ typedef unsigned __int128 Uint128;

  explicit NumpyGenerator(const SeedSequence& sequence);
  explicit NumpyGenerator(std::uint64_t seed) : NumpyGenerator(SeedSequence(seed)) {}

  std::uint64_t next_uint64();
  std::uint32_t next_uint32();  // low half of a 64-bit draw first, the high half is kept for the next call
  double next_double();         // [0, 1), 53 bits
  // permutation(n); n is at most 2^31.
  std::vector<std::int64_t> permutation(std::int64_t n);

  Uint128 state() const { return state_; }
  Uint128 increment() const { return increment_; }

 private:
  void advance();
  std::uint32_t bounded(std::uint32_t limit);  // uniform in [0, limit]: masked draws, too large ones rejected

  Uint128 state_ = 0;
  Uint128 increment_ = 0;
  bool has_half_ = false;
  std::uint32_t half_ = 0;
};

}  // namespace llmfp8
