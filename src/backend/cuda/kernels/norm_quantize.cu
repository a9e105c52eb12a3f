// RMSNorm's forward pass fused with the cast to per-tensor FP8, row-wise and transposed. Called by CudaOps.
#include "backend/cuda/kernels/kernels.h"
#include "backend/cuda/kernels/norm.cuh"
#include "backend/cuda/kernels/quantize_tile.cuh"

namespace llmfp8::cuda {
namespace {

// ---- rows of whole vectors: one kernel
//
// A block takes 32 rows: first their factors, a warp a row; then their codes, in pieces of 512 columns, a thread 4 rows x 8
// columns. The second time the rows come from the L2 cache, which holds 32 rows of every block that runs. Four codes of a
// column form a word, and words [row / 4][column] of shared memory are where a piece is turned: with a hole after every 32
// columns, and 4 banks from one row of words to the next, neither the writes (8 columns apart) nor the reads (16 columns, two
// halves of 4 words) meet in a bank. A column's 32 codes are written at once, a whole sector of memory.

constexpr int kRows = 32;
constexpr int kPieceColumns = 512;
constexpr int kThreads = 512;
constexpr int kWords = kRows / 4;  // of a column
constexpr int kWordStride = kPieceColumns + kPieceColumns / kWarp + 4;
static_assert(kThreads / kWarp == 2 * kWords && kPieceColumns == 8 * kWarp * 2);
static_assert(kWordStride % 8 == 4);

__device__ inline int place(int column) { return column + column / kWarp; }

template <typename A>
struct NormArgs {
  Matrix<const A> x;
  const A* weight;
  float* rstd;
  CodeOutputs out;
  const std::int32_t* num_rows;
  const float* scale;
  double eps;
  int threads;  // of row_layout(): whose order of summation is kept
};

// The sum of squares of a row as a block of rmsnorm_kernel adds it up: this warp plays its warps one after the other, four of
// them at a time, whose loads are all under way before the first is summed.
template <typename A>
__device__ inline float row_squares(const A* row, std::int64_t cols, int threads) {
  constexpr int N = kVector<A>, kWarps = 4, kPer = 2;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warps = threads / kWarp;
  const int vectors = static_cast<int>(cols / N);
  float of_warp = 0.0f;  // lane w: of warp w
  for (int first = 0; first < warps; first += kWarps) {
    uint4 raw[kWarps][kPer];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
#pragma unroll
      for (int p = 0; p < kPer; ++p) {
        const int i = (first + w) * kWarp + lane + p * threads;
        raw[w][p] = first + w < warps && i < vectors ? *reinterpret_cast<const uint4*>(row + static_cast<std::int64_t>(i) * N) : make_uint4(0, 0, 0, 0);
      }
    }
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (first + w >= warps) break;
      float squares = 0.0f, v[N];
#pragma unroll
      for (int p = 0; p < kPer; ++p) {
        unpack(raw[w][p], v);
        add_squares(v, squares);
      }
      for (int i = (first + w) * kWarp + lane + kPer * threads; i < vectors; i += threads) {
        load<N>(row + static_cast<std::int64_t>(i) * N, v);
        add_squares(v, squares);
      }
      squares = warp_sum(squares);
      if (lane == first + w) of_warp = squares;
    }
  }
  return warps == 1 ? __shfl_sync(kAllLanes, of_warp, 0) : warp_sum(of_warp);
}

// The codes of 4 rows x 8 columns; returns the largest magnitude. Rows from rows_live on are tail, from rows_left on there
// are none.
template <DType Format, typename A>
__device__ inline float encode_patch(const NormArgs<A>& args, const float* factors, std::int64_t row, std::int64_t col,
                                     int rows_live, int rows_left, float scale, std::uint32_t* words) {
  Raw8<A> raw[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    if (r < rows_live) raw[r] = fetch8(args.x.row(row + r) + col);
  }
  float weight[8], best = 0.0f;
  load<8>(args.weight + col, weight);
  std::uint32_t low[4], high[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    float v[8] = {};
    if (r < rows_live) {
      unpack8(raw[r], v);
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = round_to<A>(v[i] * factors[r] * weight[i]);
    }
    encode8<Format>(v, scale, r < rows_live, best, low[r], high[r]);
    if (args.out.rowwise != nullptr && r < rows_left) store_rowwise(args.out, row + r, col, args.x.cols, low[r], high[r]);
  }
  transpose4(low, reinterpret_cast<std::uint32_t(&)[4]>(words[0]));
  transpose4(high, reinterpret_cast<std::uint32_t(&)[4]>(words[4]));
  return best;
}

// Columns col0 .. col0 + 511 of the block's rows, from shared memory: a thread takes 16 rows of a column, its neighbour the
// other 16.
__device__ inline void store_piece(const CodeOutputs& out, const std::uint32_t* codes, std::int64_t row0, std::int64_t rows,
                                   std::int64_t col0, std::int64_t cols) {
  const int half = static_cast<int>(threadIdx.x) % 2;
  const std::int64_t row = row0 + 16 * half;
  if (row >= rows) return;
#pragma unroll
  for (int c = static_cast<int>(threadIdx.x) / 2; c < kPieceColumns; c += kThreads / 2) {
    if (col0 + c >= cols) return;
    const std::uint32_t* from = codes + 4 * half * kWordStride + place(c);
    store_16_rows(out, make_uint4(from[0], from[kWordStride], from[2 * kWordStride], from[3 * kWordStride]), col0 + c, row, rows);
  }
}

template <DType Format, typename A>
__global__ void __launch_bounds__(kThreads, 2) rmsnorm_quantize_kernel(NormArgs<A> args) {
  __shared__ std::uint32_t codes[2][kWords * kWordStride];
  __shared__ float factors[kRows];
  __shared__ std::uint32_t room[kWarp];
  const std::int64_t rows = args.x.rows, cols = args.x.cols, live = live_rows(args.num_rows, rows);
  const std::int64_t row0 = static_cast<std::int64_t>(blockIdx.x) * kRows;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int r = warp; r < kRows && row0 + r < rows; r += kThreads / kWarp) {
    float rstd = 0.0f;
    if (row0 + r < live) rstd = rstd_of(row_squares(args.x.row(row0 + r), cols, args.threads), cols, args.eps);
    if (lane == 0) factors[r] = args.rstd[row0 + r] = rstd;
  }
  __syncthreads();

  const int word = warp / 2, column = (warp % 2 * kWarp + lane) * 8;  // of the piece
  const std::int64_t row = row0 + 4 * word;
  const int rows_left = static_cast<int>(min(rows - row, std::int64_t{4}));
  const int rows_live = static_cast<int>(min(live - row, std::int64_t{4}));
  const float scale = *args.scale;
  float best = 0.0f;
  int buffer = 0;
  for (std::int64_t col0 = 0; col0 < cols; col0 += kPieceColumns, buffer ^= 1) {
    if (col0 + column < cols) {
      std::uint32_t words[8];
      best = fmaxf(best, encode_patch<Format>(args, factors + 4 * word, row, col0 + column, rows_live, rows_left, scale, words));
#pragma unroll
      for (int i = 0; i < 8; ++i) codes[buffer][word * kWordStride + place(column + i)] = words[i];
    }
    if (args.out.columnwise == nullptr) continue;
    // One barrier a piece: who passes it has emptied the other buffer.
    __syncthreads();
    store_piece(args.out, codes[buffer], row0, rows, col0, cols);
  }
  if (args.out.amax == nullptr) return;
  const std::uint32_t largest = block_max(__float_as_uint(best), room);
  if (threadIdx.x == 0) raise_amax(args.out.amax, largest);
}

// ---- any other rows: the factors, then the cast

// The matrix y, rounded to A, of quantize_tile.cuh. rstd: f32, of all rows.
template <typename A>
struct NormSource {
  static constexpr bool kVector = false, kPair = false;
  static constexpr int kBlocks = 2;
  struct Raw {};
  const A* data;
  std::int64_t rows, cols, stride;
  const A* weight;
  const float* rstd;

  __device__ float load1(std::int64_t row, std::int64_t col) const {
    return round_to<A>(as_float(data[row * stride + col]) * rstd[row] * as_float(weight[col]));
  }
};

// rstd alone, in the order of summation of rmsnorm_kernel (same threads, same vectors), so that both give the same
// bits.
template <typename A, int N>
__global__ void __launch_bounds__(512)
    rstd_kernel(Matrix<const A> x, float* rstds, const std::int32_t* num_rows, double eps) {
  __shared__ float room[kWarp];
  const std::int64_t live = live_rows(num_rows, x.rows), vectors = x.cols / N;
  for (std::int64_t row = blockIdx.x; row < x.rows; row += gridDim.x) {
    float squares = 0.0f;
    if (row < live) {
      const A* from = x.row(row);
#pragma unroll 4
      for (std::int64_t i = threadIdx.x; i < vectors; i += blockDim.x) {
        float v[N];
        load<N>(from + i * N, v);
        add_squares(v, squares);
      }
    }
    squares = block_sum(squares, room);
    if (threadIdx.x == 0) rstds[row] = row < live ? rstd_of(squares, x.cols, eps) : 0.0f;
  }
}

}  // namespace

void rmsnorm_quantize(const RmsnormQuantizeArgs& args, cudaStream_t stream) {
  CHECK(can_fuse_quantize(args.out), "rmsnorm_quantize: this scaling is not fused");
  if (!args.out.quantized()) {
    return rmsnorm({args.x, args.weight, args.num_rows, args.eps, args.out.rowwise, args.rstd}, stream);
  }
  if (args.x.numel() == 0) return;
  const std::int64_t rows = args.x.rows(), cols = args.x.cols(), stride = args.x.row_stride;
  const std::int32_t* count = count_of(args.num_rows);
  with_activation(args.x.dtype, [&](auto a) {
    using A = decltype(a);
    const A *data = args.x.as<const A>(), *weight = args.weight.as<const A>();
    if (vectors_of_8(data, rows, cols, stride) && aligned(weight, 16)) {
      const NormArgs<A> kernel_args{matrix<const A>(args.x), weight, args.rstd.as<float>(), code_outputs(args.out), count,
                                    args.out.scale.as<const float>(), args.eps, row_layout(cols / kVector<A>, true).threads};
      const auto blocks = static_cast<unsigned>(ceil_div(rows, kRows));
      if (args.out.format == DType::e4m3) {
        rmsnorm_quantize_kernel<DType::e4m3><<<blocks, kThreads, 0, stream>>>(kernel_args);
      } else {
        rmsnorm_quantize_kernel<DType::e5m2><<<blocks, kThreads, 0, stream>>>(kernel_args);
      }
      return check_launch("rmsnorm_quantize");
    }
    with_vector<A>(vector_rows(args.x) && aligned(weight, 16), [&](auto n) {
      const RowLayout layout = row_layout(cols / n(), n() > 1);
      rstd_kernel<A, n()><<<grid_for(rows, 1 << 20), layout.threads, 0, stream>>>(matrix<const A>(args.x),
                                                                                 args.rstd.as<float>(), count, args.eps);
    });
    check_launch("rmsnorm_quantize (rstd)");
    launch_quantize(NormSource<A>{data, rows, cols, stride, weight, args.rstd.as<const float>()}, args.out, count, true, nullptr,
                    stream);
  });
}

}  // namespace llmfp8::cuda
