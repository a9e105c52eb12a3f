// One tile of 128 x 128 values from a source to per-tensor FP8 codes, row-wise and transposed, in one pass, with the
// amax as by-product. Included by quantize.cu, norm.cu and swiglu.cu, whose sources differ in where a value comes from.
//
// A source has: `rows`, `cols` (the matrix), kVector (whole vectors of 8 values may be taken: 16-byte aligned, cols % 8
// == 0), `load8(row, col, v)` and `load1(row, col)`: values in fp32 that are rounded to the activation dtype already.
//
// Block: 256 threads, a warp takes 32 rows x 64 columns as two patches of 32 x 32, a thread 4 rows x 8 columns of each.
// Four codes of a column form a 32-bit word (byte permutes), which goes to shared memory at [column][row / 4]; a column
// has 33 words there, so that neither the writes (lanes: 4 columns 8 apart x 8 row groups) nor the reads (4 columns x 8
// groups of 4 words) meet in a bank. Every output byte is written by one thread; nothing depends on the order of blocks
// but the maximum, which does not depend on it.
#pragma once

#include "backend/cuda/kernels/device.cuh"
#include "core/qtensor.h"

namespace llmfp8::cuda {

inline constexpr int kTile = 128;
inline constexpr int kTileThreads = 256;
inline constexpr int kTileStride = kTile / 4 + 1;  // words of a column in shared memory

// Where codes go. rowwise [rows, cols], columnwise [cols, rows]; null: not wanted.
struct CodeOutputs {
  std::uint8_t* rowwise = nullptr;
  std::int64_t rowwise_stride = 0;
  std::uint8_t* columnwise = nullptr;
  std::int64_t columnwise_stride = 0;
  bool rowwise_vector = false;     // rows of whole, aligned groups of 8 codes
  bool columnwise_vector = false;  // rows begin at multiples of 16 bytes
  float* amax = nullptr;           // max-combined, may be null
};

inline CodeOutputs code_outputs(const QTensor& out) {
  CodeOutputs o;
  if (out.rowwise.defined()) {
    o.rowwise = out.rowwise.as<std::uint8_t>();
    o.rowwise_stride = out.rowwise.row_stride;
    o.rowwise_vector = aligned(o.rowwise, 8) && o.rowwise_stride % 8 == 0;
  }
  if (out.columnwise.defined()) {
    o.columnwise = out.columnwise.as<std::uint8_t>();
    o.columnwise_stride = out.columnwise.row_stride;
    o.columnwise_vector = aligned(o.columnwise, 16) && o.columnwise_stride % 16 == 0;
  }
  o.amax = out.amax.defined() ? out.amax.as<float>() : nullptr;
  return o;
}

// Bytes 4x4: in[r] holds columns 0..3 of row r, out[c] rows 0..3 of column c.
__device__ inline void transpose4(const std::uint32_t (&in)[4], std::uint32_t (&out)[4]) {
  const std::uint32_t a = __byte_perm(in[0], in[1], 0x5140);  // r0c0 r1c0 r0c1 r1c1
  const std::uint32_t b = __byte_perm(in[2], in[3], 0x5140);
  const std::uint32_t c = __byte_perm(in[0], in[1], 0x7362);  // r0c2 r1c2 r0c3 r1c3
  const std::uint32_t d = __byte_perm(in[2], in[3], 0x7362);
  out[0] = __byte_perm(a, b, 0x5410);
  out[1] = __byte_perm(a, b, 0x7632);
  out[2] = __byte_perm(c, d, 0x5410);
  out[3] = __byte_perm(c, d, 0x7632);
}

// v: the values at (row, col .. col + 7); zero at and beyond `live` rows and beyond the matrix.
template <typename Source>
__device__ inline void load_patch_row(const Source& source, std::int64_t live, std::int64_t row, std::int64_t col,
                                      float (&v)[8]) {
  if (row < live && (Source::kVector ? col < source.cols : col + 8 <= source.cols)) {
    if constexpr (Source::kVector) {
      source.load8(row, col, v);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = source.load1(row, col + i);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    v[i] = 0.0f;
    if constexpr (!Source::kVector) {
      if (row < live && col + i < source.cols) v[i] = source.load1(row, col + i);
    }
  }
}

__device__ inline void store_rowwise(const CodeOutputs& out, std::int64_t row, std::int64_t col, std::int64_t cols,
                                     std::uint32_t low, std::uint32_t high) {
  std::uint8_t* to = out.rowwise + row * out.rowwise_stride + col;
  if (out.rowwise_vector && col + 8 <= cols) {
    *reinterpret_cast<uint2*>(to) = make_uint2(low, high);
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (col + i < cols) to[i] = static_cast<std::uint8_t>((i < 4 ? low : high) >> (8 * (i % 4)));
  }
}

// codes: u32 [kTile * kTileStride] of shared memory, 4 codes (rows) a word. Every thread of the block calls it.
__device__ inline void store_columnwise(const CodeOutputs& out, const std::uint32_t* codes, std::int64_t row0,
                                        std::int64_t col0, std::int64_t rows, std::int64_t cols) {
  constexpr int kPieces = kTile / 16;  // of a column, 16 bytes each
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
  const std::int64_t row = row0 + 16 * piece;
  if (row >= rows) return;
  for (int c = static_cast<int>(threadIdx.x) / kPieces; c < kTile && col0 + c < cols; c += kTileThreads / kPieces) {
    const std::uint32_t* words = codes + c * kTileStride + 4 * piece;
    const uint4 sixteen = make_uint4(words[0], words[1], words[2], words[3]);
    std::uint8_t* to = out.columnwise + (col0 + c) * out.columnwise_stride + row;
    if (out.columnwise_vector && row + 16 <= rows) {
      *reinterpret_cast<uint4*>(to) = sixteen;
    } else {
      for (int i = 0; i < 16 && row + i < rows; ++i) to[i] = static_cast<std::uint8_t>(words[i / 4] >> (8 * (i % 4)));
    }
  }
}

// Tile (row0, col0); returns the thread's largest magnitude as bits. codes: as above; the caller puts a barrier between
// the end of one tile and the next one.
template <DType Format, typename Source>
__device__ inline std::uint32_t quantize_tile(const Source& source, const CodeOutputs& out, std::int64_t live,
                                              float scale, std::int64_t row0, std::int64_t col0, std::uint32_t* codes) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int local_row = (warp % 4) * 32 + (lane / 4) * 4;
  std::uint32_t best = 0;
#pragma unroll
  for (int patch = 0; patch < 2; ++patch) {
    const int local_col = (warp / 4) * 64 + patch * 32 + (lane % 4) * 8;
    const std::int64_t row = row0 + local_row, col = col0 + local_col;
    float v[4][8];
#pragma unroll
    for (int r = 0; r < 4; ++r) load_patch_row(source, live, row + r, col, v[r]);
    std::uint32_t low[4], high[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int i = 0; i < 8; ++i) best = max(best, amax_bits(v[r][i]));
      low[r] = encode4<Format>(v[r][0] * scale, v[r][1] * scale, v[r][2] * scale, v[r][3] * scale);
      high[r] = encode4<Format>(v[r][4] * scale, v[r][5] * scale, v[r][6] * scale, v[r][7] * scale);
      // A tail's values are +0, but 0 * scale would be NaN for an infinite scale.
      if (row + r >= live) low[r] = high[r] = 0u;
      if (out.rowwise != nullptr && row + r < source.rows && col < source.cols) {
        store_rowwise(out, row + r, col, source.cols, low[r], high[r]);
      }
    }
    if (out.columnwise != nullptr) {
      std::uint32_t words[4];
      transpose4(low, words);
#pragma unroll
      for (int i = 0; i < 4; ++i) codes[(local_col + i) * kTileStride + local_row / 4] = words[i];
      transpose4(high, words);
#pragma unroll
      for (int i = 0; i < 4; ++i) codes[(local_col + 4 + i) * kTileStride + local_row / 4] = words[i];
    }
  }
  if (out.columnwise != nullptr) {
    __syncthreads();
    store_columnwise(out, codes, row0, col0, source.rows, source.cols);
  }
  return best;
}

// The whole matrix, a block a tile: grid (ceil(cols / 128), ceil(rows / 128) up to 65535, then strided).
// scale: f32 [1] in device memory.
template <DType Format, typename Source>
__global__ void __launch_bounds__(kTileThreads)
    quantize_kernel(Source source, CodeOutputs out, const std::int32_t* num_rows, const float* scale,
                    const StepScalars* scalars) {
  __shared__ std::uint32_t codes[kTile * kTileStride];
  __shared__ std::uint32_t room[kWarp];
  if (scalars != nullptr && scalars->step_ok == 0) return;
  const std::int64_t live = live_rows(num_rows, source.rows);
  const float factor = *scale;
  const std::int64_t col0 = static_cast<std::int64_t>(blockIdx.x) * kTile;
  std::uint32_t best = 0;
  for (std::int64_t row0 = static_cast<std::int64_t>(blockIdx.y) * kTile; row0 < source.rows;
       row0 += static_cast<std::int64_t>(gridDim.y) * kTile) {
    best = max(best, quantize_tile<Format>(source, out, live, factor, row0, col0, codes));
    __syncthreads();
  }
  if (out.amax == nullptr) return;
  best = block_max(best, room);
  if (threadIdx.x == 0) raise_amax(out.amax, best);
}

template <typename Source>
void launch_quantize(const Source& source, const QTensor& out, const std::int32_t* num_rows, bool with_amax,
                     const StepScalars* scalars, cudaStream_t stream) {
  if (source.rows == 0 || source.cols == 0) return;
  CodeOutputs outputs = code_outputs(out);
  if (!with_amax) outputs.amax = nullptr;
  const dim3 grid(static_cast<unsigned>(ceil_div(source.cols, kTile)),
                  static_cast<unsigned>(std::min<std::int64_t>(ceil_div(source.rows, kTile), 65535)));
  const float* scale = out.scale.as<const float>();
  if (out.format == DType::e4m3) {
    quantize_kernel<DType::e4m3><<<grid, kTileThreads, 0, stream>>>(source, outputs, num_rows, scale, scalars);
  } else {
    quantize_kernel<DType::e5m2><<<grid, kTileThreads, 0, stream>>>(source, outputs, num_rows, scale, scalars);
  }
  check_launch("quantize");
}

}  // namespace llmfp8::cuda
