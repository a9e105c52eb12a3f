// Cross-entropy over the vocabulary with its gradient, in place or straight to FP8. Called by CudaOps.
#include <cmath>

#include "backend/cuda/kernels/kernels.h"
#include "backend/cuda/kernels/quantize_tile.cuh"

namespace llmfp8::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr float kLog2e = 1.44269504088896341f;

// e^(x - largest), largest at least x: 2 ulp of the hardware's exp2 plus the rounding of the product, 1e-7 * |x -
// largest| relative; terms where that is more than 2^-20 are below e^-8 of the sum.
__device__ inline float exp_below(float x, float largest) {
  float e;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"((x - largest) * kLog2e));
  return e;
}

// The running maximum and the sum of exp(x - maximum) over a part of a row.
struct Partial {
  float largest;
  float total;
};

// A part that is empty has the maximum -infinity; infinity - infinity would make a NaN of it.
__device__ inline Partial merge(Partial a, Partial b) {
  const float largest = fmaxf(a.largest, b.largest);
  const float left = a.largest == largest ? a.total : a.total * exp_below(a.largest, largest);
  const float right = b.largest == largest ? b.total : b.total * exp_below(b.largest, largest);
  return {largest, left + right};
}

__device__ inline Partial warp_merge(Partial p) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    p = merge(p, {__shfl_xor_sync(kAllLanes, p.largest, offset), __shfl_xor_sync(kAllLanes, p.total, offset)});
  }
  return p;
}

// The online softmax of N more values (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018): one
// rescaling a vector. A NaN is passed over by the maximum and reaches the sum.
template <int N>
__device__ inline void add_vector(const float (&x)[N], Partial& p) {
  float largest = p.largest;
#pragma unroll
  for (int i = 0; i < N; ++i) largest = fmaxf(largest, x[i]);
  // Nothing but -infinity so far: any finite base gives exp(-infinity) = 0 for them.
  const float base = largest == -INFINITY ? 0.0f : largest;
  if (largest > p.largest) {
    p.total *= exp_below(p.largest, base);  // the first time 0 * exp(-infinity) = 0
    p.largest = largest;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) p.total += exp_below(x[i], base);
}

// The gradient of a row's logits: exp(x - largest) * inverse, less 1 at the label.
struct RowStats {
  float largest, inverse;
};

constexpr int kFlight = 4;  // vectors that a thread loads before it uses the first

// body(i, x) for the thread's vectors t, t + 1024, … of a row, forwards or backwards.
template <bool kForwards, int N, typename A, typename Body>
__device__ inline void for_vectors(const A* data, int vectors, Body&& body) {
  const int thread = static_cast<int>(threadIdx.x), rounds = (vectors + kThreads * kFlight - 1) / (kThreads * kFlight);
  for (int round = 0; round < rounds; ++round) {
    const int first = (kForwards ? round : rounds - 1 - round) * kThreads * kFlight + thread;
    using Raw = std::conditional_t<N == 1, A, uint4>;
    Raw raw[kFlight];
#pragma unroll
    for (int f = 0; f < kFlight; ++f) {
      const int i = first + f * kThreads;
      if (i < vectors) raw[f] = *reinterpret_cast<const Raw*>(data + static_cast<std::int64_t>(i) * N);
    }
#pragma unroll
    for (int f = 0; f < kFlight; ++f) {
      const int i = first + f * kThreads;
      if (i >= vectors) continue;
      float x[N];
      if constexpr (N == 1) {
        x[0] = as_float(raw[f]);
      } else {
        unpack(raw[f], x);
      }
      body(i, x);
    }
  }
}

// A block of 1024 threads takes a row (64-bit offsets: token x vocabulary passes 2^31) in two passes: the maximum and
// the sum, then exp(x - maximum) / sum in place, backwards, so that it begins with what the first pass left in the
// cache. A row is 256 KiB for a vocabulary of 128k, one a multiprocessor, so the rest lies in the second-level cache. A
// thread takes vectors t, t + 1024, …; sums in fp32 per thread, merged in a fixed order. Rows at and beyond the count:
// zero.
// stats: null, or what the gradient of each row is made of, where another kernel makes it.
template <typename A, int N>
__global__ void __launch_bounds__(kThreads, 1)
    cross_entropy_kernel(Matrix<A> logits, const std::int32_t* labels, const std::int32_t* count,
                         std::int64_t row_offset, bool with_gradient, float* token_loss, RowStats* stats) {
  __shared__ Partial parts[kWarp];
  __shared__ float label_logit;
  const std::int64_t live = live_rows(count, logits.rows, row_offset);
  const int vectors = static_cast<int>(logits.cols / N), thread = static_cast<int>(threadIdx.x);
  for (std::int64_t row = blockIdx.x; row < logits.rows; row += gridDim.x) {
    A* data = logits.row(row);
    if (row >= live) {
      if (thread == 0) token_loss[row] = 0.0f;
      if (with_gradient) {
        for (int i = thread; i < vectors; i += kThreads) store_zero<N>(data + static_cast<std::int64_t>(i) * N);
      }
      continue;
    }
    const std::int32_t label = labels[row];
    require(label >= 0 && label < logits.cols);
    if (thread == 0) label_logit = as_float(data[label]);
    Partial p{-INFINITY, 0.0f};
    for_vectors<true, N>(data, vectors, [&](int, const float(&x)[N]) { add_vector(x, p); });
    p = warp_merge(p);
    if (thread % kWarp == 0) parts[thread / kWarp] = p;
    __syncthreads();
    p = warp_merge(parts[thread % kWarp]);
    if (thread == 0) {
      const double log_total = log(static_cast<double>(p.total));
      token_loss[row] =
          static_cast<float>(log_total - (static_cast<double>(label_logit) - static_cast<double>(p.largest)));
      if (stats != nullptr) stats[row] = {p.largest, 1.0f / p.total};
    }
    if (with_gradient) {
      const float inverse = 1.0f / p.total;
      const int label_vector = label / N;
      for_vectors<false, N>(data, vectors, [&](int i, float(&x)[N]) {
#pragma unroll
        for (int k = 0; k < N; ++k) x[k] = exp_below(x[k], p.largest) * inverse;
        if (i == label_vector) {
#pragma unroll
          for (int k = 0; k < N; ++k) x[k] -= k == label % N ? 1.0f : 0.0f;
        }
        store<N>(x, data + static_cast<std::int64_t>(i) * N);
      });
    }
    __syncthreads();  // parts and label_logit are free for the next row
  }
}

// The gradient, rounded to A, of quantize_tile.cuh.
template <typename A, bool Vector>
struct GradientSource {
  static constexpr bool kVector = Vector, kPair = false;
  static constexpr int kBlocks = 2;
  using Raw = Raw8<A>;
  const A* data;
  std::int64_t rows, cols, stride;
  const std::int32_t* labels;
  const RowStats* stats;

  __device__ const A* at(std::int64_t row, std::int64_t col) const { return data + row * stride + col; }
  __device__ Raw fetch(const A* at, int r) const { return fetch8(at + r * stride); }
  __device__ void values(const Raw& raw, std::int64_t row, std::int64_t col, float (&v)[8]) const {
    unpack8(raw, v);
    const RowStats of_row = stats[row];
    const std::int64_t at_label = labels[row] - col;
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = gradient(v[i], of_row, at_label == i);
  }
  __device__ float load1(std::int64_t row, std::int64_t col) const {
    return gradient(as_float(data[row * stride + col]), stats[row], labels[row] == col);
  }

 private:
  static __device__ float gradient(float x, const RowStats& of_row, bool is_label) {
    const float softmax = exp_below(x, of_row.largest) * of_row.inverse;
    return round_to<A>(is_label ? softmax - 1.0f : softmax);
  }
};

}  // namespace

void cross_entropy(const CrossEntropyArgs& args, cudaStream_t stream) {
  if (args.logits.numel() == 0) return;
  CHECK(args.logits.cols() <= std::int64_t{1} << 30, "cross_entropy: vocabulary {}", args.logits.cols());
  with_activation(args.logits.dtype, [&](auto a) {
    using A = decltype(a);
    with_vector<A>(vector_rows(args.logits), [&](auto n) {
      cross_entropy_kernel<A, n()><<<grid_for(args.logits.rows(), 1 << 20), kThreads, 0, stream>>>(
          matrix<A>(args.logits), args.labels.as<const std::int32_t>(), count_of(args.count), args.row_offset,
          args.with_gradient, args.token_loss.as<float>(), nullptr);
    });
  });
  check_launch("cross_entropy");
}

std::size_t cross_entropy_quantize_scratch_bytes(const CrossEntropyQuantizeArgs& args) {
  return static_cast<std::size_t>(args.loss.logits.rows()) * sizeof(RowStats);
}

void cross_entropy_quantize(const CrossEntropyQuantizeArgs& args, void* scratch, cudaStream_t stream) {
  const CrossEntropyArgs& loss = args.loss;
  CHECK(can_fuse_quantize(args.out) && args.out.quantized(), "cross_entropy_quantize: this scaling is not fused");
  if (loss.logits.numel() == 0) return;
  auto* const stats = static_cast<RowStats*>(scratch);
  const Tensor& logits = loss.logits;
  const std::int32_t* const labels = loss.labels.as<const std::int32_t>();
  with_activation(logits.dtype, [&](auto a) {
    using A = decltype(a);
    with_vector<A>(vector_rows(logits), [&](auto n) {
      cross_entropy_kernel<A, n()><<<grid_for(logits.rows(), 1 << 20), kThreads, 0, stream>>>(
          matrix<A>(logits), labels, count_of(loss.count), loss.row_offset, false, loss.token_loss.as<float>(), stats);
    });
    check_launch("cross_entropy_quantize (loss)");
    const A* const data = logits.as<const A>();
    const auto launch = [&](auto vector) {
      const GradientSource<A, vector()> source{data, logits.rows(), logits.cols(), logits.row_stride, labels, stats};
      launch_quantize(source, args.out, count_of(loss.count), true, nullptr, stream, loss.row_offset);
    };
    if (vectors_of_8(data, logits.rows(), logits.cols(), logits.row_stride)) {
      launch(std::true_type());
    } else {
      launch(std::false_type());
    }
  });
}

}  // namespace llmfp8::cuda
