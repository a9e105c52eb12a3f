// Embedding lookup and its gradient. Called by CudaOps.
#include <bit>

#include <cub/device/device_radix_sort.cuh>

#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/kernels.h"

namespace llmfp8::cuda {
namespace {

// out row = table row of its token; zero at and beyond the count. Word: the widest of u16, u32, uint4 that divides rows
// and alignment. A block takes a row and strides over the grid.
template <typename Word>
__global__ void embedding_kernel(Matrix<const Word> table, const std::int32_t* tokens, const std::int32_t* num_tokens,
                                 Matrix<Word> out) {
  const std::int64_t live = live_rows(num_tokens, out.rows);
  for (std::int64_t row = blockIdx.x; row < out.rows; row += gridDim.x) {
    Word* to = out.row(row);
    if (row >= live) {
      for (std::int64_t c = threadIdx.x; c < out.cols; c += blockDim.x) to[c] = Word{};
      continue;
    }
    const std::int32_t token = tokens[row];
    require(token >= 0 && token < table.rows);
    const Word* from = table.row(token);
    for (std::int64_t c = threadIdx.x; c < out.cols; c += blockDim.x) to[c] = from[c];
  }
}

template <typename Word>
void launch_embedding(const EmbeddingArgs& args, cudaStream_t stream) {
  const std::int64_t word = sizeof(Word), size = static_cast<std::int64_t>(size_bytes(args.out.dtype));
  const auto view = [&](const Tensor& t) {
    return Matrix<Word>{static_cast<Word*>(t.data), t.rows(), t.cols() * size / word, t.row_stride * size / word};
  };
  const Matrix<Word> table = view(args.table), out = view(args.out);
  const int threads = out.cols <= 64 ? 64 : (out.cols <= 128 ? 128 : 256);
  embedding_kernel<Word><<<grid_for(out.rows, 1 << 20), threads, 0, stream>>>(
      Matrix<const Word>{table.data, table.rows, table.cols, table.stride}, args.tokens.as<const std::int32_t>(),
      count_of(args.num_tokens), out);
  check_launch("embedding");
}

// ---- gradient: sort the positions by token (stable, so ascending within a token), then one block a run of equal
// tokens.

struct SortBuffers {
  std::uint32_t *keys_in, *keys_out, *positions_in, *positions_out;  // [n]
  void* temporary;
  std::size_t temporary_bytes;
};

constexpr std::size_t kSortAlignment = 256;

std::size_t padded(std::size_t bytes) { return (bytes + kSortAlignment - 1) / kSortAlignment * kSortAlignment; }

// Keys reach from 0 to vocab_size; the last one stands for a position beyond the count.
int key_bits(std::int64_t vocab_size) { return std::bit_width(static_cast<std::uint64_t>(vocab_size)); }

std::size_t sort_bytes(std::int64_t n, std::int64_t vocab_size) {
  std::size_t bytes = 0;
  const std::uint32_t* in = nullptr;
  std::uint32_t* out = nullptr;
  check(cub::DeviceRadixSort::SortPairs(nullptr, bytes, in, out, in, out, static_cast<int>(n), 0, key_bits(vocab_size)),
        "size of a radix sort");
  return bytes;
}

// A thread fills one position.
__global__ void sort_keys_kernel(const std::int32_t* tokens, const std::int32_t* num_tokens, std::int64_t n,
                                 std::int64_t vocab_size, std::uint32_t* keys, std::uint32_t* positions) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  std::int64_t key = vocab_size;
  if (i < live_rows(num_tokens, n)) {
    key = tokens[i];
    require(key >= 0 && key < vocab_size);
  }
  keys[i] = static_cast<std::uint32_t>(key);
  positions[i] = static_cast<std::uint32_t>(i);
}

constexpr int kRunThreads = 128;

// N elements of the gradient; 4 of bf16 are no 16 bytes and go one by one.
template <typename G, int N>
__device__ inline void load_gradient(const G* from, float (&v)[N]) {
  if constexpr (N * sizeof(G) >= 16) {
    load<N>(from, v);
  } else {
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] = as_float(from[k]);
  }
}

template <typename G, int N>
__device__ inline void store_gradient(const float (&v)[N], G* to) {
  if constexpr (N * sizeof(G) >= 16) {
    store<N>(v, to);
  } else {
#pragma unroll
    for (int k = 0; k < N; ++k) to[k] = from_float<G>(v[k]);
  }
}

// d_table[token] (+)= the sum of its rows in ascending order of position, in fp64, rounded once. A block belongs to one
// place of the sorted list (blockIdx.x, strided) and works only if a run begins there; blockIdx.y cuts the columns, a
// thread takes N. Rows of the table without a token are not touched.
template <typename A, typename G, int N>
__global__ void __launch_bounds__(kRunThreads)
    embedding_backward_kernel(Matrix<const A> d_out, const std::uint32_t* keys, const std::uint32_t* positions,
                              Matrix<G> d_table, bool accumulate) {
  const std::int64_t n = d_out.rows;
  const std::int64_t c = (static_cast<std::int64_t>(blockIdx.y) * kRunThreads + threadIdx.x) * N;
  for (std::int64_t i = blockIdx.x; i < n; i += gridDim.x) {
    const std::uint32_t token = keys[i];
    if (token >= d_table.rows || (i > 0 && keys[i - 1] == token)) continue;
    if (c >= d_out.cols) continue;
    G* to = d_table.row(token) + c;
    double total[N];
    float v[N] = {};
    if (accumulate) load_gradient(to, v);
#pragma unroll
    for (int k = 0; k < N; ++k) total[k] = static_cast<double>(v[k]);
    std::int64_t e = i;
    // Four rows in flight while the run lasts: a frequent token's run would otherwise wait for one load after the
    // other.
    for (; e + 4 <= n && keys[e + 3] == token; e += 4) {
      float four[4][N];
#pragma unroll
      for (int k = 0; k < 4; ++k) load<N>(d_out.row(positions[e + k]) + c, four[k]);
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int k = 0; k < N; ++k) total[k] += static_cast<double>(four[r][k]);
      }
    }
    for (; e < n && keys[e] == token; ++e) {
      load<N>(d_out.row(positions[e]) + c, v);
#pragma unroll
      for (int k = 0; k < N; ++k) total[k] += static_cast<double>(v[k]);
    }
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] = static_cast<float>(total[k]);
    store_gradient(v, to);
  }
}

}  // namespace

void embedding(const EmbeddingArgs& args, cudaStream_t stream) {
  if (args.out.numel() == 0) return;
  const std::int64_t size = static_cast<std::int64_t>(size_bytes(args.out.dtype));
  const auto fits = [&](const Tensor& t, std::int64_t word) {
    return aligned(t.data, static_cast<std::size_t>(word)) && t.cols() * size % word == 0 &&
           t.row_stride * size % word == 0;
  };
  if (fits(args.table, 16) && fits(args.out, 16)) return launch_embedding<uint4>(args, stream);
  if (fits(args.table, 4) && fits(args.out, 4)) return launch_embedding<std::uint32_t>(args, stream);
  launch_embedding<std::uint16_t>(args, stream);
}

std::size_t embedding_backward_scratch_bytes(const EmbeddingBackwardArgs& args) {
  const std::int64_t n = args.tokens.numel();
  const std::size_t list = padded(static_cast<std::size_t>(n) * sizeof(std::uint32_t));
  return 4 * list + padded(sort_bytes(n, args.d_table.tensor.rows()));
}

void embedding_backward(const EmbeddingBackwardArgs& args, void* scratch, cudaStream_t stream) {
  const Tensor& table = args.d_table.tensor;
  const std::int64_t n = args.tokens.numel(), vocab_size = table.rows();
  if (!args.d_table.accumulate) zero(table, stream);
  if (n == 0 || args.d_out.cols() == 0) return;
  CHECK(n < (std::int64_t{1} << 31) && vocab_size < (std::int64_t{1} << 31), "embedding_backward: {} tokens, {} rows",
        n, vocab_size);
  std::byte* at = static_cast<std::byte*>(scratch);
  const std::size_t list = padded(static_cast<std::size_t>(n) * sizeof(std::uint32_t));
  const auto take = [&] {
    std::uint32_t* p = reinterpret_cast<std::uint32_t*>(at);
    at += list;
    return p;
  };
  SortBuffers b{};
  b.keys_in = take(), b.keys_out = take(), b.positions_in = take(), b.positions_out = take();
  b.temporary = at, b.temporary_bytes = sort_bytes(n, vocab_size);
  sort_keys_kernel<<<static_cast<unsigned>(ceil_div(n, 256)), 256, 0, stream>>>(
      args.tokens.as<const std::int32_t>(), count_of(args.num_tokens), n, vocab_size, b.keys_in, b.positions_in);
  check_launch("embedding_backward (keys)");
  check(cub::DeviceRadixSort::SortPairs(b.temporary, b.temporary_bytes, b.keys_in, b.keys_out, b.positions_in,
                                        b.positions_out, static_cast<int>(n), 0, key_bits(vocab_size), stream),
        "embedding_backward (sort)");
  with_activation(args.d_out.dtype, [&](auto a) {
    with_activation(table.dtype, [&](auto g) {
      using A = decltype(a);
      using G = decltype(g);
      with_vector<A>(vector_rows(args.d_out) && vector_rows(table), [&](auto width) {
        const dim3 grid(static_cast<unsigned>(n),
                        static_cast<unsigned>(ceil_div(args.d_out.cols(), kRunThreads * width())));
        embedding_backward_kernel<A, G, width()><<<grid, kRunThreads, 0, stream>>>(
            matrix<const A>(args.d_out), b.keys_out, b.positions_out, matrix<G>(table), args.d_table.accumulate);
      });
    });
  });
  check_launch("embedding_backward");
}

}  // namespace llmfp8::cuda
