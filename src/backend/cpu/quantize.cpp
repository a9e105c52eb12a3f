// Casting to FP8: amax, per-tensor scales, MXFP8 blocks in both directions. Called by CpuOps.
//
// Numeric cases: zero tensor: scale 1, codes 0. Tiny amax: scale at most FLT_MAX. Infinity: the amax is infinite, the scale
// stays (delayed) or is 1 (just in time), the code saturates. NaN: ignored by the amax, its code is 0x7F.
#include <atomic>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"
#include "core/float8.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

constexpr int kBlock = 32;  // elements under one MXFP8 scale

template <DType Format>
LLMFP8_INLINE std::uint8_t encode(float value) {
  return Format == DType::e4m3 ? encode_e4m3(value) : encode_e5m2(value);
}

LLMFP8_INLINE void raise(std::atomic<std::uint32_t>& best, std::uint32_t bits) {
  std::uint32_t seen = best.load(std::memory_order_relaxed);
  while (bits > seen && !best.compare_exchange_weak(seen, bits, std::memory_order_relaxed)) {
  }
}

template <typename A>
LLMFP8_CLONES std::uint32_t amax_rows(const Tensor& x, std::int64_t begin, std::int64_t end) {
  float buffer[kChunk];
  std::uint32_t best = 0;
  for (std::int64_t row = begin; row < end; ++row) {
    for (std::int64_t c = 0; c < x.cols(); c += kChunk) {
      const std::int64_t n = std::min<std::int64_t>(kChunk, x.cols() - c);
      load(row_of<const A>(x, row) + c, buffer, n);
      best = std::max(best, amax_bits(buffer, n));
    }
  }
  return best;
}

// Per-tensor codes of rows [begin, end); returns the bits of their amax.
template <typename A, DType Format>
LLMFP8_CLONES std::uint32_t tensor_rows(const Tensor& x, const QTensor& out, float scale, std::int64_t begin,
                                        std::int64_t end) {
  float buffer[kChunk];
  std::uint8_t codes[kChunk];
  std::uint32_t best = 0;
  for (std::int64_t row = begin; row < end; ++row) {
    for (std::int64_t c = 0; c < x.cols(); c += kChunk) {
      const std::int64_t n = std::min<std::int64_t>(kChunk, x.cols() - c);
      load(row_of<const A>(x, row) + c, buffer, n);
      best = std::max(best, amax_bits(buffer, n));
      for (std::int64_t i = 0; i < n; ++i) codes[i] = encode<Format>(buffer[i] * scale);
      if (out.rowwise.defined())
        std::memcpy(row_of<std::uint8_t>(out.rowwise, row) + c, codes, static_cast<std::size_t>(n));
      if (out.columnwise.defined()) {
        for (std::int64_t i = 0; i < n; ++i) row_of<std::uint8_t>(out.columnwise, c + i)[row] = codes[i];
      }
    }
  }
  return best;
}

LLMFP8_INLINE std::uint32_t select(bool condition, std::uint32_t a, std::uint32_t b) {
  return b ^ ((a ^ b) & (0u - static_cast<std::uint32_t>(condition)));
}

// mx_scale_code() and mx_multiplier() of n blocks without a branch, so that the loop vectorises. amax: bits, never NaN.
LLMFP8_INLINE void mx_scales(const std::uint32_t* __restrict amax, float max, std::int64_t n,
                             std::uint8_t* __restrict codes, float* __restrict multipliers) {
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(std::bit_cast<float>(amax[i]) * (1.0f / max));
    const std::uint32_t exponent = u >> 23, exact = select(exponent == 0, 0x400000u, 0u);
    const std::uint32_t raised = exponent + static_cast<std::uint32_t>((u & 0x7FFFFFu) > exact);
    const std::uint32_t code = select(exponent >= 254, 254u, raised);
    codes[i] = static_cast<std::uint8_t>(code);
    multipliers[i] = std::bit_cast<float>(select(code == 254, 0x00400000u, (254u - code) << 23));
  }
}

// One scale per 32 columns of a row.
template <typename A, DType Format>
LLMFP8_CLONES std::uint32_t mx_rows(const Tensor& x, const QTensor& out, std::int64_t begin, std::int64_t end) {
  constexpr int kBlocks = kChunk / kBlock;
  float buffer[kChunk], multipliers[kBlocks];
  std::uint8_t codes[kChunk],
      scales[kBlocks];  // local: a byte in the output could alias anything, and nothing vectorises
  std::uint32_t amax[kBlocks] = {};
  std::uint32_t best = 0;
  const float max = fp8_max(Format);
  for (std::int64_t row = begin; row < end; ++row) {
    for (std::int64_t c = 0; c < x.cols(); c += kChunk) {
      const std::int64_t n = std::min<std::int64_t>(kChunk, x.cols() - c), blocks = n / kBlock;
      load(row_of<const A>(x, row) + c, buffer, n);
      for (std::int64_t b = 0; b < blocks; ++b) {
        amax[b] = amax_bits(buffer + b * kBlock, kBlock);
        best = std::max(best, amax[b]);
      }
      mx_scales(amax, max, blocks, scales, multipliers);
      for (std::int64_t b = 0; b < blocks; ++b) {
        for (int i = 0; i < kBlock; ++i) buffer[b * kBlock + i] *= multipliers[b];
      }
      for (std::int64_t i = 0; i < n; ++i) codes[i] = encode<Format>(buffer[i]);
      std::memcpy(row_of<std::uint8_t>(out.rowwise, row) + c, codes, static_cast<std::size_t>(n));
      std::memcpy(row_of<std::uint8_t>(out.rowwise_scale_inv, row) + c / kBlock, scales,
                  static_cast<std::size_t>(blocks));
    }
  }
  return best;
}

// One scale per 32 rows of a column; a task is 32 rows. Rows at and beyond `live` count as zero.
template <typename A, DType Format>
LLMFP8_CLONES std::uint32_t mx_columns(const Tensor& x, std::int64_t live, const QTensor& out, std::int64_t begin,
                                       std::int64_t end) {
  float buffer[kChunk];
  std::uint32_t amax[kChunk];
  float multiplier[kChunk];
  std::uint8_t codes[kChunk], scales[kChunk];  // local, as in mx_rows
  std::uint32_t best = 0;
  const float max = fp8_max(Format);
  for (std::int64_t block = begin; block < end; ++block) {
    const std::int64_t first = block * kBlock, last = std::clamp<std::int64_t>(live, first, first + kBlock);
    for (std::int64_t c = 0; c < x.cols(); c += kChunk) {
      const std::int64_t n = std::min<std::int64_t>(kChunk, x.cols() - c);
      std::fill_n(amax, kChunk, 0u);
      for (std::int64_t row = first; row < last; ++row) {
        load(row_of<const A>(x, row) + c, buffer, n);
        for (std::int64_t i = 0; i < n; ++i) {
          const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(buffer[i]) & 0x7FFFFFFFu;
          const std::uint32_t counted = magnitude & (0u - static_cast<std::uint32_t>(magnitude <= 0x7F800000u));
          amax[i] = std::max(amax[i], counted);
        }
      }
      for (std::int64_t i = 0; i < n; ++i) best = std::max(best, amax[i]);
      mx_scales(amax, max, n, scales, multiplier);
      std::memcpy(row_of<std::uint8_t>(out.columnwise_scale_inv, block) + c, scales, static_cast<std::size_t>(n));
      for (std::int64_t row = first; row < last; ++row) {
        load(row_of<const A>(x, row) + c, buffer, n);
        for (std::int64_t i = 0; i < n; ++i) codes[i] = encode<Format>(buffer[i] * multiplier[i]);
        std::memcpy(row_of<std::uint8_t>(out.columnwise, row) + c, codes, static_cast<std::size_t>(n));
      }
      for (std::int64_t row = last; row < first + kBlock; ++row) {
        std::memset(row_of<std::uint8_t>(out.columnwise, row) + c, 0, static_cast<std::size_t>(n));
      }
    }
  }
  return best;
}

std::uint32_t measure(const Tensor& x, std::int64_t live) {
  std::atomic<std::uint32_t> best{0};
  with_activation(x.dtype, [&](auto a) {
    parallel_for(live, row_grain(x.cols()),
                 [&](std::int64_t begin, std::int64_t end) { raise(best, amax_rows<decltype(a)>(x, begin, end)); });
  });
  return best.load();
}

// Combines the amax of a matrix into its slot.
void combine(const Tensor& slot, std::uint32_t bits) {
  if (slot.defined()) *slot.as<float>() = amax_combine(*slot.as<float>(), std::bit_cast<float>(bits));
}

template <typename A, DType Format>
void quantize_tensor(const Tensor& x, std::int64_t live, const QTensor& out) {
  if (out.just_in_time) {
    const float scale = current_scale(std::bit_cast<float>(measure(x, live)), fp8_max(Format));
    *out.scale.as<float>() = scale;
    if (out.rowwise_scale_inv.defined()) *out.rowwise_scale_inv.as<float>() = 1.0f / scale;
    if (out.columnwise_scale_inv.defined()) *out.columnwise_scale_inv.as<float>() = 1.0f / scale;
  }
  const float scale = *out.scale.as<float>();
  std::atomic<std::uint32_t> best{0};
  parallel_for(live, row_grain(x.cols()), [&](std::int64_t begin, std::int64_t end) {
    raise(best, tensor_rows<A, Format>(x, out, scale, begin, end));
  });
  combine(out.amax, best.load());
  for (std::int64_t row = live; out.rowwise.defined() && row < x.rows(); ++row)
    zero_row<std::uint8_t>(out.rowwise, row);
  for (std::int64_t col = 0; out.columnwise.defined() && col < x.cols(); ++col) {
    std::memset(row_of<std::uint8_t>(out.columnwise, col) + live, 0, static_cast<std::size_t>(x.rows() - live));
  }
}

// Both directions of 32 rows at a time: the second reads what the first brought into the cache.
template <typename A, DType Format>
void quantize_mx(const Tensor& x, std::int64_t live, const QTensor& out) {
  CHECK(out.mx_scale_layout == MxScaleLayout::plain, "quantize: the CPU keeps MXFP8 scales as they are, found tiles");
  std::atomic<std::uint32_t> best{0};
  const std::int64_t rows = x.rows();
  parallel_for((rows + kBlock - 1) / kBlock, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const std::int64_t first = block * kBlock, last = std::min(rows, first + kBlock);
      if (out.rowwise.defined()) {
        raise(best, mx_rows<A, Format>(x, out, first, std::clamp<std::int64_t>(live, first, last)));
        for (std::int64_t row = std::max(first, live); row < last; ++row) {
          zero_row<std::uint8_t>(out.rowwise, row);
          zero_row<std::uint8_t>(out.rowwise_scale_inv, row);
        }
      }
      if (out.columnwise.defined()) raise(best, mx_columns<A, Format>(x, live, out, block, block + 1));
    }
  });
  combine(out.amax, best.load());
}

}  // namespace

void amax(const Tensor& x, std::int64_t live, const Tensor& amax) { combine(amax, measure(x, live)); }

void quantize(const Tensor& x, std::int64_t live, const QTensor& out) {
  if (!out.quantized()) {
    combine(out.amax, out.amax.defined() ? measure(x, live) : 0u);
    copy(x.slice_rows(0, live), out.rowwise.slice_rows(0, live));
    with_activation(out.rowwise.dtype, [&](auto a) {
      for (std::int64_t row = live; row < x.rows(); ++row) zero_row<decltype(a)>(out.rowwise, row);
    });
    return;
  }
  with_activation(x.dtype, [&](auto a) {
    using A = decltype(a);
    const bool e4m3 = out.format == DType::e4m3;
    if (out.scaling == Scaling::tensor) {
      e4m3 ? quantize_tensor<A, DType::e4m3>(x, live, out) : quantize_tensor<A, DType::e5m2>(x, live, out);
    } else {
      e4m3 ? quantize_mx<A, DType::e4m3>(x, live, out) : quantize_mx<A, DType::e5m2>(x, live, out);
    }
  });
}

}  // namespace llmfp8::cpu
