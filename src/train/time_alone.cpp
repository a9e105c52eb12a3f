#include "train/time_alone.h"

#include "core/rng.h"

namespace llmfp8 {
namespace {

constexpr std::uint64_t kSeed = 42;

}  // namespace

RandomMatrix::RandomMatrix(Backend& backend, Stream& stream, DType dtype, Shape shape)
    : buffer_(backend.allocate(static_cast<std::size_t>(shape.numel()) * size_bytes(dtype), "an operand")), tensor_(buffer_.data(), dtype, shape) {
  // bf16 in +-[2^-8, 2^-7), E4M3 and E5M2 codes without NaN: all bits that multiply vary.
  std::vector<std::uint32_t> words(std::min<std::size_t>(buffer_.bytes() / 4 + 1, std::size_t{1} << 20));
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::uint32_t random = philox4x32(kSeed, i, 1).x[0];
    words[i] = dtype == DType::f32 ? 0x3C000000u | (random & 0x807FFFFFu) : dtype == DType::bf16 ? 0x3C003C00u | (random & 0x807F807Fu) : random & 0xBBBBBBBBu;
  }
  const std::size_t piece = words.size() * 4;
  for (std::size_t done = 0; done < buffer_.bytes(); done += piece) {
    backend.copy_to_device(static_cast<std::byte*>(buffer_.data()) + done, words.data(), std::min(piece, buffer_.bytes() - done), stream);
  }
  backend.synchronize(stream);
}

}  // namespace llmfp8
