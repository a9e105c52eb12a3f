// One tile of 128 x 128 values from a source to per-tensor FP8 codes, row-wise and transposed, in one pass, with the
// amax as by-product; quantize_source.cuh says what a source is. Included by the .cu files that quantise.
//
// A pair source's tiles take 64 of its columns c, so 128 columns too.
//
// A thread takes 4 rows x 8 columns: a block has 512 threads, a warp 8 rows x 128 columns; or 256 for a pair, whose threads
// make two such patches from 16 rows x 64 columns a warp. So a warp touches whole lines of 128 bytes, in what it loads and
// in the codes that it writes. A thread's loads are all under way before it computes, and few registers let several
// blocks share a multiprocessor: the kernel is bound by what is under way.
// Four codes of a column form a 32-bit word (byte permutes), which goes to shared memory at [column][row / 4], the second
// index exclusive-ored with the column's group of 8 (times 2, for a pair 4): neither the writes (16 groups x 2 rows, 8 x 4)
// nor the reads of 4 words at once (8 places x 4 columns) meet in a bank. Every output byte is written by one thread;
// nothing depends on the order of blocks but the maximum, which does not depend on it.
#pragma once

#include "backend/cuda/kernels/quantize_source.cuh"
#include "core/qtensor.h"

namespace llmfp8::cuda {

inline constexpr int kTile = 128;
template <typename Source>
inline constexpr int kTileThreads = Source::kPair ? 256 : 512;
inline constexpr int kTileWords = kTile / 4;  // of a column in shared memory

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

// codes: of rows row .. row + 15 of a column, the first in the lowest byte; row: a multiple of 16.
__device__ inline void store_16_rows(const CodeOutputs& out, const uint4& codes, std::int64_t col, std::int64_t row,
                                     std::int64_t rows) {
  std::uint8_t* to = out.columnwise + col * out.columnwise_stride + row;
  if (out.columnwise_vector && row + 16 <= rows) {
    *reinterpret_cast<uint4*>(to) = codes;
    return;
  }
  const std::uint32_t four[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (row + i < rows) to[i] = static_cast<std::uint8_t>(four[i / 4] >> (8 * (i % 4)));
  }
}

// Where the columns of a tile lie in the matrix. A column of the source is a column of the matrix, or a pair of them.
template <typename Source>
struct TileColumns {
  const Source& source;
  std::int64_t first;  // of the tile, in the source's columns
  std::int64_t limit;  // columns of the source: cols, or cols / 2 pairs

  __device__ TileColumns(const Source& from, std::int64_t tile)
      : source(from), first(tile * (Source::kPair ? kTile / 2 : kTile)), limit(Source::kPair ? from.cols / 2 : from.cols) {}

  // Of column c of the tile in shared memory, where the second columns of the pairs lie 64 behind the first ones; limit or
  // more: outside.
  __device__ std::int64_t in_source(int c) const { return first + (Source::kPair ? c % (kTile / 2) : c); }
  // Of column `col` of the source; patch: 1 for the second of a pair.
  __device__ std::int64_t in_matrix(std::int64_t col, int patch) const {
    if constexpr (Source::kPair) {
      return source.first_column(col) + (patch == 0 ? 0 : source.distance());
    } else {
      return col;
    }
  }
};

// What the word index of a column is exclusive-ored with.
template <typename Source>
__device__ inline int swizzle(int column) {
  return column / 8 * (Source::kPair ? 4 : 2) % kTileWords;
}

// codes: u32 [kTile * kTileWords] of shared memory, 4 codes (rows) a word. Every thread of the block calls it.
template <typename Source>
__device__ inline void store_columnwise(const CodeOutputs& out, const std::uint32_t* codes, std::int64_t row0,
                                        const TileColumns<Source>& columns, std::int64_t rows) {
  constexpr int kPieces = kTile / 16;  // of a column, 16 bytes each
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
  const std::int64_t row = row0 + 16 * piece;
  if (row >= rows) return;
#pragma unroll
  for (int c = static_cast<int>(threadIdx.x) / kPieces; c < kTile; c += kTileThreads<Source> / kPieces) {
    if (columns.in_source(c) >= columns.limit) continue;
    const int mask = swizzle<Source>(c);
    const uint4 words = *reinterpret_cast<const uint4*>(codes + c * kTileWords + ((4 * piece) ^ (mask & ~3)));
    const uint4 sixteen = (mask & 2) != 0 ? make_uint4(words.z, words.w, words.x, words.y) : words;
    store_16_rows(out, sixteen, columns.in_matrix(columns.in_source(c), c / (kTile / 2)), row, rows);
  }
}

// The codes of 8 values of a row. best: inout largest magnitude; a NaN is passed over by the maximum, its code is 0x7F.
template <DType Format>
__device__ inline void encode8(const float (&v)[8], float scale, bool is_live, float& best, std::uint32_t& low,
                               std::uint32_t& high) {
#pragma unroll
  for (int i = 0; i < 8; ++i) best = fmaxf(best, fabsf(v[i]));
  low = encode4<Format>(v[0] * scale, v[1] * scale, v[2] * scale, v[3] * scale);
  high = encode4<Format>(v[4] * scale, v[5] * scale, v[6] * scale, v[7] * scale);
  // A tail's values are +0, but 0 * scale would be NaN for an infinite scale.
  if (!is_live) low = high = 0u;
}

// 4 rows x 8 columns of codes into shared memory, transposed. column: in the tile, a multiple of 8; row: a multiple of 4.
template <typename Source>
__device__ inline void put_codes(std::uint32_t* codes, int column, int row, const std::uint32_t (&low)[4],
                                 const std::uint32_t (&high)[4]) {
  std::uint32_t* const to = codes + column * kTileWords + ((row / 4) ^ swizzle<Source>(column));
  std::uint32_t words[4];
  transpose4(low, words);
#pragma unroll
  for (int i = 0; i < 4; ++i) to[i * kTileWords] = words[i];
  transpose4(high, words);
#pragma unroll
  for (int i = 0; i < 4; ++i) to[(4 + i) * kTileWords] = words[i];
}

// Tile (row0, tile); returns the thread's largest magnitude. codes: as above.
template <DType Format, typename Source>
__device__ inline float quantize_tile(const Source& source, const CodeOutputs& out, std::int64_t live, float scale,
                                      std::int64_t row0, std::int64_t tile, std::uint32_t* codes) {
  constexpr int kPatches = Source::kPair ? 2 : 1;
  const TileColumns<Source> columns(source, tile);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  constexpr int kAcross = kTile / 8 / kPatches;  // lanes side by side
  const int local_row = (warp * (kWarp / kAcross) + lane / kAcross) * 4, local_col = lane % kAcross * 8;
  const std::int64_t row = row0 + local_row, col = columns.in_source(local_col);
  const int rows_left = static_cast<int>(min(source.rows - row, std::int64_t{4}));  // that exist, of the thread's
  const int rows_live = static_cast<int>(min(live - row, std::int64_t{4}));         // that are not tail
  const bool inside = col < columns.limit;
  float best = 0.0f;
  std::uint32_t low[kPatches][4], high[kPatches][4];
  // A pair takes two rows at a time: a third block on the multiprocessor is worth more than what is under way.
  constexpr int kAhead = Source::kPair ? 2 : 4;
  typename Source::Raw raw[kAhead];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    float v[kPatches][8] = {};
    if constexpr (Source::kVector) {
      if (r % kAhead == 0) {
        const auto at = source.at(row, col);
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
          if (inside && r + a < rows_live) raw[a] = source.fetch(at, r + a);
        }
      }
      if (inside && r < rows_live) {
        if constexpr (Source::kPair) {
          source.values(raw[r % kAhead], row + r, col, v[0], v[1]);
        } else {
          source.values(raw[r % kAhead], row + r, col, v[0]);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (r >= rows_live || col + i >= columns.limit) continue;
        if constexpr (Source::kPair) {
          source.load_pair(row + r, col + i, v[0][i], v[1][i]);
        } else {
          v[0][i] = source.load1(row + r, col + i);
        }
      }
    }
#pragma unroll
    for (int p = 0; p < kPatches; ++p) encode8<Format>(v[p], scale, r < rows_live, best, low[p][r], high[p][r]);
  }
#pragma unroll
  for (int p = 0; p < kPatches; ++p) {
    if (out.rowwise != nullptr && inside) {
      // Eight columns of a source lie side by side in the matrix, the last ones of an odd width may not exist.
      const std::int64_t out_col = columns.in_matrix(col, p), end = out_col + (columns.limit - col);
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        if (r < rows_left) store_rowwise(out, row + r, out_col, end, low[p][r], high[p][r]);
      }
    }
    if (out.columnwise != nullptr) put_codes<Source>(codes, local_col + kTile / 2 * p, local_row, low[p], high[p]);
  }
  if (out.columnwise != nullptr) {
    __syncthreads();
    store_columnwise(out, codes, row0, columns, source.rows);
  }
  return best;
}

// Pairs, whose codes leave a tile in runs of 64 bytes, go through bands of kBand tiles down, down first, then across: blocks
// that run together cover a compact piece of the matrix, and runs that lie side by side are whole lines before the L2 cache
// sends them to memory. Runs of 128 bytes need no such order and are a little faster from left to right.
template <typename Source>
inline constexpr int kBand = Source::kPair ? 8 : 1;

// The whole matrix, a block a tile: grid (tiles across times kBand, bands); the last band may be lower.
// scale: f32 [1] in device memory. Rows from *num_rows - row_offset on are the tail.
template <DType Format, typename Source>
__global__ void __launch_bounds__(kTileThreads<Source>, Source::kBlocks)
    quantize_kernel(Source source, CodeOutputs out, const std::int32_t* num_rows, const float* scale,
                    const StepScalars* scalars, std::int64_t row_offset) {
  __shared__ __align__(16) std::uint32_t codes[kTile * kTileWords];
  __shared__ std::uint32_t room[kWarp];
  if (scalars != nullptr && scalars->step_ok == 0) return;
  const std::int64_t tile = blockIdx.x / kBand<Source>;
  const std::int64_t row0 = (std::int64_t{blockIdx.y} * kBand<Source> + blockIdx.x % kBand<Source>) * kTile;
  if (row0 >= source.rows) return;
  const std::int64_t live = live_rows(num_rows, source.rows, row_offset);
  const float best = quantize_tile<Format>(source, out, live, *scale, row0, tile, codes);
  if (out.amax == nullptr) return;
  const std::uint32_t largest = block_max(__float_as_uint(best), room);
  if (threadIdx.x == 0) raise_amax(out.amax, largest);
}

// with_amax: out.amax, where there is one, is raised.
template <typename Source>
void launch_quantize(const Source& source, const QTensor& out, const std::int32_t* num_rows, bool with_amax,
                     const StepScalars* scalars, cudaStream_t stream, std::int64_t row_offset = 0) {
  if (source.rows == 0 || source.cols == 0) return;
  CodeOutputs outputs = code_outputs(out);
  if (!with_amax) outputs.amax = nullptr;
  const std::int64_t across = Source::kPair ? ceil_div(source.cols / 2, kTile / 2) : ceil_div(source.cols, kTile);
  const std::int64_t bands = ceil_div(source.rows, std::int64_t{kBand<Source>} * kTile);
  CHECK(bands <= 65535, "quantize: {} rows at once, {} wanted at most", source.rows, std::int64_t{65535} * kBand<Source> * kTile);
  const dim3 grid(static_cast<unsigned>(across * kBand<Source>), static_cast<unsigned>(bands));
  const float* scale = out.scale.as<const float>();
  if (out.format == DType::e4m3) {
    quantize_kernel<DType::e4m3><<<grid, kTileThreads<Source>, 0, stream>>>(source, outputs, num_rows, scale, scalars, row_offset);
  } else {
    quantize_kernel<DType::e5m2><<<grid, kTileThreads<Source>, 0, stream>>>(source, outputs, num_rows, scale, scalars, row_offset);
  }
  check_launch("quantize");
}

}  // namespace llmfp8::cuda
