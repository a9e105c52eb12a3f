#include "backend/cpu/operand_image.h"

#include "backend/cpu/simd.h"
#include "core/float8.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

constexpr std::int64_t kBlock = 32;

// condition ? a : b as arithmetic: a ternary becomes control flow in GCC, and the loop does not vectorise.
LLMFP8_INLINE std::uint16_t select(bool condition, std::uint16_t a, std::uint16_t b) {
  const std::uint16_t mask = static_cast<std::uint16_t>(0 - static_cast<int>(condition));
  return static_cast<std::uint16_t>(b ^ ((a ^ b) & mask));
}

// The bf16 pattern of a code, in 16-bit arithmetic, so that 32 codes fit a vector. A subnormal is given by its leading bit.
template <DType Format>
LLMFP8_INLINE std::uint16_t decode_bits(std::uint8_t code) {
  constexpr bool kE4M3 = Format == DType::e4m3;
  constexpr int kShift = kE4M3 ? 4 : 5;  // from the format's mantissa to bf16's
  constexpr std::uint16_t kRebias = (kE4M3 ? 120 : 112) << 7;
  constexpr std::uint16_t kSmallestNormal = kE4M3 ? 8 : 4;
  constexpr std::uint16_t kOne = kE4M3 ? 118 << 7 : 111 << 7;  // code 1: 2^-9, 2^-16
  const std::uint16_t magnitude = code & 0x7Fu;
  const std::uint16_t sign = static_cast<std::uint16_t>((code & 0x80u) << 8);
  const std::uint16_t normal = static_cast<std::uint16_t>((magnitude << kShift) + kRebias);
  const std::uint16_t from2 = static_cast<std::uint16_t>(kOne + 128 + ((magnitude - 2) << 6));
  std::uint16_t bits = select(magnitude >= 2, from2, select(magnitude == 1, kOne, 0));
  if constexpr (kE4M3)
    bits = select(magnitude >= 4, static_cast<std::uint16_t>(kOne + 256 + ((magnitude - 4) << 5)), bits);
  bits = select(magnitude >= kSmallestNormal, normal, bits);
  if constexpr (kE4M3) {
    bits = select(magnitude == 0x7F, 0x7FC0, bits);
  } else {
    bits = select(magnitude == 0x7C, 0x7F80, select(magnitude > 0x7C, 0x7FC0, bits));
  }
  return static_cast<std::uint16_t>(sign | bits);
}

LLMFP8_INLINE void put(std::uint16_t bits, bf16& out) { out.bits = bits; }
LLMFP8_INLINE void put(std::uint16_t bits, float& out) {
  out = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

template <DType Format>
LLMFP8_INLINE float decode(std::uint8_t code) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(decode_bits<Format>(code)) << 16);
}

// Rows [begin, end) of the panel.
template <DType Format, typename Out>
LLMFP8_CLONES void tensor_rows(const Panel& panel, Out* out, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    const std::uint8_t* __restrict codes = row_of<const std::uint8_t>(panel.matrix->rowwise, panel.row + r) + panel.col;
    Out* __restrict to = out + r * panel.cols;
    for (std::int64_t i = 0; i < panel.cols; ++i) put(decode_bits<Format>(codes[i]), to[i]);
  }
}

template <DType Format, typename Out>
LLMFP8_CLONES void mx_rows(const Panel& panel, Out* out, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    const std::uint8_t* codes = row_of<const std::uint8_t>(panel.matrix->rowwise, panel.row + r) + panel.col;
    const std::uint8_t* scales =
        row_of<const std::uint8_t>(panel.matrix->rowwise_scale_inv, panel.row + r) + panel.col / kBlock;
    for (std::int64_t c = 0; c < panel.cols; c += kBlock) {
      const float scale = decode_e8m0(scales[c / kBlock]);
      const std::uint8_t* __restrict from = codes + c;
      Out* __restrict to = out + r * panel.cols + c;
      for (int i = 0; i < kBlock; ++i) to[i] = from_float<Out>(decode<Format>(from[i]) * scale);
    }
  }
}

template <DType Format, typename Out>
LLMFP8_CLONES void mx_columns(const Panel& panel, Out* out, std::int64_t begin, std::int64_t end) {
  float scales[kChunk];
  for (std::int64_t r = begin; r < end;) {
    const std::int64_t block = (panel.row + r) / kBlock;
    const std::int64_t last = std::min(end, (block + 1) * kBlock - panel.row);
    const std::uint8_t* scale_codes = row_of<const std::uint8_t>(panel.matrix->columnwise_scale_inv, block) + panel.col;
    for (std::int64_t c = 0; c < panel.cols; c += kChunk) {
      const std::int64_t n = std::min<std::int64_t>(kChunk, panel.cols - c);
      for (std::int64_t i = 0; i < n; ++i) scales[i] = decode_e8m0(scale_codes[c + i]);
      for (std::int64_t row = r; row < last; ++row) {
        const std::uint8_t* __restrict from =
            row_of<const std::uint8_t>(panel.matrix->columnwise, panel.row + row) + panel.col + c;
        Out* __restrict to = out + row * panel.cols + c;
        for (std::int64_t i = 0; i < n; ++i) to[i] = from_float<Out>(decode<Format>(from[i]) * scales[i]);
      }
    }
    r = last;
  }
}

// A high-precision matrix in another type.
template <typename From, typename Out>
LLMFP8_CLONES void plain_rows(const Panel& panel, Out* out, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    const From* __restrict from = row_of<const From>(panel.matrix->rowwise, panel.row + r) + panel.col;
    Out* __restrict to = out + r * panel.cols;
    for (std::int64_t i = 0; i < panel.cols; ++i) to[i] = from_float<Out>(as_float(from[i]));
  }
}

template <DType Format, typename Out>
void decode_rows(const Panel& panel, Out* out, std::int64_t begin, std::int64_t end) {
  if (panel.matrix->scaling == Scaling::tensor) {
    tensor_rows<Format>(panel, out, begin, end);
  } else if (panel.columnwise) {
    mx_columns<Format>(panel, out, begin, end);
  } else {
    mx_rows<Format>(panel, out, begin, end);
  }
}

}  // namespace

void make_image(const Panel& panel, DType dtype, void* out) {
  const std::int64_t live = std::clamp<std::int64_t>(panel.live - panel.row, 0, panel.rows);
  with_activation(dtype, [&](auto o) {
    using Out = decltype(o);
    Out* to = static_cast<Out*>(out);
    parallel_for(live, row_grain(panel.cols), [&](std::int64_t begin, std::int64_t end) {
      if (panel.matrix->format == DType::e4m3) {
        decode_rows<DType::e4m3>(panel, to, begin, end);
      } else if (panel.matrix->format == DType::e5m2) {
        decode_rows<DType::e5m2>(panel, to, begin, end);
      } else if (panel.matrix->format == DType::bf16) {
        plain_rows<bf16>(panel, to, begin, end);
      } else {
        plain_rows<float>(panel, to, begin, end);
      }
    });
    std::memset(static_cast<void*>(to + live * panel.cols), 0,
                static_cast<std::size_t>((panel.rows - live) * panel.cols) * sizeof(Out));
  });
}

}  // namespace llmfp8::cpu
