// Zero, copy, rows by index, bias gradient. Called by CudaOps.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/kernels.h"

namespace llmfp8::cuda {
namespace {

// to := from, converted. A thread takes N elements of a row at a time and strides over the grid; N > 1: rows of whole
// 16-byte vectors of f32 (8 elements: 16 bytes of bf16, 32 of f32). bf16 keeps NaN payloads as core/bf16.h does.
template <typename From, typename To, int N>
__global__ void convert_kernel(Matrix<const From> from, Matrix<To> to) {
  const std::int64_t per_row = from.cols / N, total = from.rows * per_row;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    const std::int64_t row = i / per_row, c = (i - row * per_row) * N;
    float v[N];
    load<N>(from.row(row) + c, v);
    if constexpr (std::is_same_v<To, bf16> && N == 8) {
      std::uint32_t words[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        words[k] = static_cast<std::uint32_t>(to_bf16(v[2 * k]).bits) |
                   (static_cast<std::uint32_t>(to_bf16(v[2 * k + 1]).bits) << 16);
      }
      *reinterpret_cast<uint4*>(to.row(row) + c) = make_uint4(words[0], words[1], words[2], words[3]);
    } else if constexpr (std::is_same_v<To, bf16>) {
      to.row(row)[c] = to_bf16(v[0]);
    } else {
      store<N>(v, to.row(row) + c);
    }
  }
}

// Row i of `to` := row index[i] of `from` (gather), or row index[i] of `to` := row i of `from` (scatter), for i < live;
// gather zeroes its rows beyond. Word: u8 … uint4, the widest that divides a row and its alignment. A block takes
// blockDim.y rows at a time.
enum class Direction { gather, scatter };

template <typename Word, Direction kDirection>
__global__ void move_rows_kernel(Matrix<const Word> from, Matrix<Word> to, const std::int32_t* index,
                                 const std::int32_t* count, std::int64_t row_offset) {
  constexpr bool kGather = kDirection == Direction::gather;
  const std::int64_t rows = kGather ? to.rows : from.rows;
  const std::int64_t live = live_rows(count, rows, row_offset);
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; row < rows; row += step) {
    if (row >= live) {
      if constexpr (kGather) {
        for (std::int64_t c = threadIdx.x; c < to.cols; c += blockDim.x) to.row(row)[c] = Word{};
      }
      continue;
    }
    const std::int64_t other = index[row_offset + row];
    require(other >= 0 && other < (kGather ? from.rows : to.rows));
    const Word* source = from.row(kGather ? other : row);
    Word* target = to.row(kGather ? row : other);
    for (std::int64_t c = threadIdx.x; c < to.cols; c += blockDim.x) target[c] = source[c];
  }
}

// A vector [n] is n rows of one element. In words of Word.
template <typename Word>
Matrix<Word> rows_as(const Tensor& t, std::size_t word_bytes) {
  const std::int64_t size = static_cast<std::int64_t>(size_bytes(t.dtype)),
                     word = static_cast<std::int64_t>(word_bytes);
  const bool vector = t.shape.rank() == 1;
  const std::int64_t rows = vector ? t.numel() : t.rows(), cols = vector ? 1 : t.cols(),
                     stride = vector ? 1 : t.row_stride;
  return Matrix<Word>{static_cast<Word*>(t.data), rows, cols * size / word, stride * size / word};
}

bool fits_words(const Tensor& t, std::int64_t word) {
  const std::int64_t size = static_cast<std::int64_t>(size_bytes(t.dtype));
  const bool vector = t.shape.rank() == 1;
  const std::int64_t cols = vector ? 1 : t.cols(), stride = vector ? 1 : t.row_stride;
  return aligned(t.data, static_cast<std::size_t>(word)) && cols * size % word == 0 && stride * size % word == 0;
}

template <typename Word, Direction kDirection>
void launch_move(const Tensor& from, const Tensor& to, const std::int32_t* index, const std::int32_t* count,
                 std::int64_t row_offset, cudaStream_t stream) {
  const Matrix<const Word> source = rows_as<const Word>(from, sizeof(Word));
  const Matrix<Word> target = rows_as<Word>(to, sizeof(Word));
  const std::int64_t rows = kDirection == Direction::gather ? target.rows : source.rows;
  if (rows == 0 || target.cols == 0) return;
  constexpr unsigned kThreads = 256;
  unsigned across = 1;
  while (across < kThreads && across < target.cols) across *= 2;
  const dim3 block(across, kThreads / across);
  move_rows_kernel<Word, kDirection>
      <<<grid_for(ceil_div(rows, block.y), 1 << 20), block, 0, stream>>>(source, target, index, count, row_offset);
  check_launch(kDirection == Direction::gather ? "gather_rows" : "scatter_rows");
}

template <Direction kDirection>
void move_rows(const Tensor& from, const Tensor& to, const Tensor& index, const Tensor& count, std::int64_t row_offset,
               cudaStream_t stream) {
  const std::int32_t* ids = index.as<const std::int32_t>();
  const std::int32_t* n = count_of(count);
  if (fits_words(from, 16) && fits_words(to, 16))
    return launch_move<uint4, kDirection>(from, to, ids, n, row_offset, stream);
  if (fits_words(from, 4) && fits_words(to, 4))
    return launch_move<std::uint32_t, kDirection>(from, to, ids, n, row_offset, stream);
  launch_move<std::uint16_t, kDirection>(from, to, ids, n, row_offset, stream);
}

// ---- bias gradient: column sums in fp64, rounded once.

constexpr int kBiasColumns = 32, kBiasLanes = 8;

// partials[split, column] := sum over rows split, split + splits, … of dy. A block takes 32 columns (threadIdx.x) of
// one split (blockIdx.y); its 8 lanes (threadIdx.y) take every 8th of the split's rows and are added in order.
template <typename A>
__global__ void bias_partials_kernel(Matrix<const A> dy, const std::int32_t* count, double* partials) {
  __shared__ double room[kBiasLanes][kBiasColumns + 1];
  const std::int64_t live = live_rows(count, dy.rows);
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kBiasColumns + threadIdx.x;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.y) * kBiasLanes;
  double total = 0.0;
  if (column < dy.cols) {
    for (std::int64_t row = static_cast<std::int64_t>(blockIdx.y) * kBiasLanes + threadIdx.y; row < live; row += step) {
      total += static_cast<double>(as_float(dy.row(row)[column]));
    }
  }
  room[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y == 0 && column < dy.cols) {
    for (int lane = 1; lane < kBiasLanes; ++lane) total += room[lane][threadIdx.x];
    partials[static_cast<std::int64_t>(blockIdx.y) * dy.cols + column] = total;
  }
}

// d_bias (+)= the sum of the splits, in order; one thread a column.
template <typename G>
__global__ void bias_sum_kernel(const double* partials, int splits, std::int64_t cols, bool accumulate, G* out) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= cols) return;
  double total = accumulate ? static_cast<double>(as_float(out[column])) : 0.0;
  for (int split = 0; split < splits; ++split) total += partials[split * cols + column];
  out[column] = from_float<G>(static_cast<float>(total));
}

}  // namespace

void zero(const Tensor& out, cudaStream_t stream) {
  if (out.bytes() == 0) return;
  check(cudaMemsetAsync(out.data, 0, out.bytes(), stream), "zero");
}

void copy(const Tensor& from, const Tensor& to, cudaStream_t stream) {
  if (from.numel() == 0) return;
  if (from.data == to.data && from.dtype == to.dtype && from.row_stride == to.row_stride) return;
  if (from.dtype == to.dtype) {
    const std::size_t size = size_bytes(from.dtype), width = static_cast<std::size_t>(from.cols()) * size;
    if (from.contiguous() && to.contiguous()) {
      check(cudaMemcpyAsync(to.data, from.data, from.bytes(), cudaMemcpyDefault, stream), "copy");
    } else {
      check(cudaMemcpy2DAsync(to.data, static_cast<std::size_t>(to.row_stride) * size, from.data,
                              static_cast<std::size_t>(from.row_stride) * size, width,
                              static_cast<std::size_t>(from.rows()), cudaMemcpyDefault, stream),
            "copy");
    }
    return;
  }
  const bool vector = aligned(from.data, 16) && aligned(to.data, 16) && from.cols() % 8 == 0 &&
                      (from.rows() == 1 || (from.row_stride % 8 == 0 && to.row_stride % 8 == 0));
  constexpr int kThreads = 256;
  const auto launch = [&](auto f, auto t) {
    using From = decltype(f);
    using To = decltype(t);
    if (vector) {
      convert_kernel<From, To, 8><<<grid_for(ceil_div(from.numel(), 8 * kThreads)), kThreads, 0, stream>>>(
          matrix<const From>(from), matrix<To>(to));
    } else {
      convert_kernel<From, To, 1><<<grid_for(ceil_div(from.numel(), kThreads)), kThreads, 0, stream>>>(
          matrix<const From>(from), matrix<To>(to));
    }
  };
  if (from.dtype == DType::f32) {
    launch(float(), bf16());
  } else {
    launch(bf16(), float());
  }
  check_launch("copy");
}

void gather_rows(const GatherRowsArgs& args, cudaStream_t stream) {
  move_rows<Direction::gather>(args.x, args.out, args.index, args.count, args.row_offset, stream);
}

void scatter_rows(const ScatterRowsArgs& args, cudaStream_t stream) {
  move_rows<Direction::scatter>(args.x, args.out, args.index, args.count, args.row_offset, stream);
}

void bias_backward(const BiasBackwardArgs& args, void* workspace, cudaStream_t stream) {
  const std::int64_t cols = args.dy.cols(), rows = args.dy.rows();
  if (cols == 0) return;
  const std::int64_t room = static_cast<std::int64_t>(kWorkspaceBytes / sizeof(double)) / cols;
  CHECK(room >= 1, "bias_backward: {} columns, at most {}", cols, kWorkspaceBytes / sizeof(double));
  // Splits of at least 64 rows, so that they follow from the shape alone.
  const int splits = static_cast<int>(std::clamp<std::int64_t>(std::min(ceil_div(rows, 64), room), 1, 128));
  double* partials = static_cast<double*>(workspace);
  const dim3 grid(static_cast<unsigned>(ceil_div(cols, kBiasColumns)), static_cast<unsigned>(splits));
  with_activation(args.dy.dtype, [&](auto a) {
    using A = decltype(a);
    bias_partials_kernel<A><<<grid, dim3(kBiasColumns, kBiasLanes), 0, stream>>>(matrix<const A>(args.dy),
                                                                                 count_of(args.num_rows), partials);
  });
  with_activation(args.d_bias.tensor.dtype, [&](auto g) {
    using G = decltype(g);
    bias_sum_kernel<G><<<static_cast<unsigned>(ceil_div(cols, 128)), 128, 0, stream>>>(
        partials, splits, cols, args.d_bias.accumulate, args.d_bias.tensor.as<G>());
  });
  check_launch("bias_backward");
}

}  // namespace llmfp8::cuda
