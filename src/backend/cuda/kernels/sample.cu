// The next token of each sequence: the largest logit, or a draw from the nucleus. Called by CudaOps.
//
// Nothing is sorted: the mass of all tokens whose logit is at least x falls as x rises, so the edge of the nucleus and
// the token drawn are found by bisection over the bits of x, one pass over the row (which stays in the cache) a bit.
// Sums are fp64 in a fixed order. Probabilities are fp32 where the CPU has fp64: a draw within about 1e-7 of an edge
// may differ from it.
#include <cmath>

#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/kernels.h"
#include "core/rng.h"

namespace llmfp8::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;
static_assert(kWarps == kWarp);

// Unsigned, ordered like the values of A; NaN below everything, both zeros equal.
template <typename A>
__device__ inline std::uint32_t order_key(A value) {
  const float x = as_float(value) + 0.0f;
  if (x != x) return 0;
  const std::uint32_t u = __float_as_uint(x);
  if constexpr (std::is_same_v<A, bf16>) {
    const std::uint32_t half = u >> 16;
    return (half & 0x8000u) != 0 ? ~half & 0xFFFFu : half | 0x8000u;
  } else {
    return (u & 0x80000000u) != 0 ? ~u : u | 0x80000000u;
  }
}

template <typename A>
__device__ inline float value_of_key(std::uint32_t key) {
  if constexpr (std::is_same_v<A, bf16>) {
    const std::uint32_t half = (key & 0x8000u) != 0 ? key & 0x7FFFu : ~key & 0xFFFFu;
    return __uint_as_float(half << 16);
  } else {
    return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7FFFFFFFu : ~key);
  }
}

struct Room {
  double sums[kWarps];
  std::uint64_t best[kWarps];
  std::int32_t counts[kWarps];
  std::int32_t token;
};

// One row, as all threads of its block see it.
template <typename A>
struct Row {
  const A* logits;
  int vocab;
  float largest;
  float temperature;

  __device__ float mass(float logit) const {
    const float p = expf((logit - largest) / temperature);
    return p == p ? p : 0.0f;
  }
  // Mass of the tokens whose key is at least `key`; every thread gets it.
  __device__ double mass_from(std::uint32_t key, Room& room) const {
    double total = 0.0;
    for (int i = static_cast<int>(threadIdx.x); i < vocab; i += kThreads) {
      const A logit = logits[i];
      if (order_key(logit) >= key) total += static_cast<double>(mass(as_float(logit)));
    }
    return block_sum(total, room.sums);
  }
};

// The largest logit, the lowest id among equals: key << 32 | ~id.
template <typename A>
__device__ std::uint64_t largest_logit(const A* logits, int vocab, Room& room) {
  std::uint64_t best = 0;
  for (int i = static_cast<int>(threadIdx.x); i < vocab; i += kThreads) {
    const std::uint64_t entry =
        static_cast<std::uint64_t>(order_key(logits[i])) << 32 | (0xFFFFFFFFu - static_cast<std::uint32_t>(i));
    best = max(best, entry);
  }
  const auto over_warp = [](std::uint64_t x) {
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      const std::uint64_t other = __shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(x), offset);
      x = max(x, other);
    }
    return x;
  };
  best = over_warp(best);
  if (threadIdx.x % kWarp == 0) room.best[threadIdx.x / kWarp] = best;
  __syncthreads();
  best = over_warp(room.best[threadIdx.x % kWarp]);
  __syncthreads();
  return best;
}

// The largest key for which holds(mass from it on); holds is true at 0 and stays false once it is.
template <typename A, typename Holds>
__device__ std::uint32_t bisect(const Row<A>& row, Room& room, Holds&& holds) {
  std::uint32_t key = 0;
  for (int bit = static_cast<int>(sizeof(A)) * 8 - 1; bit >= 0; --bit) {
    const std::uint32_t candidate = key | (1u << bit);
    if (holds(row.mass_from(candidate, room))) key = candidate;
  }
  return key;
}

// Warp w owns the tokens [w, w + 1) * segment: contiguous, so that a walk in order of ids is cheap.
__device__ inline int segment_of(int vocab) { return (vocab + kWarps - 1) / kWarps; }

template <typename A>
__device__ int count_key(const Row<A>& row, std::uint32_t key, Room& room) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int segment = segment_of(row.vocab), begin = warp * segment, end = min(row.vocab, begin + segment);
  int count = 0;
  for (int i = begin + lane; i < end; i += kWarp) count += order_key(row.logits[i]) == key ? 1 : 0;
  count = warp_sum(count);
  if (lane == 0) room.counts[warp] = count;
  __syncthreads();
  return warp_sum(room.counts[lane]);  // the counts stay for nth_of_key
}

// The id of the nth token (from 0) with this key, after count_key of the same key.
template <typename A>
__device__ std::int32_t nth_of_key(const Row<A>& row, std::uint32_t key, int nth, Room& room) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int segment = segment_of(row.vocab), begin = warp * segment, end = min(row.vocab, begin + segment);
  int left = nth;
  for (int w = 0; w < warp; ++w) left -= room.counts[w];
  if (left >= 0 && left < room.counts[warp]) {
    for (int base = begin; base < end; base += kWarp) {
      const int i = base + lane;
      const unsigned hits = __ballot_sync(kAllLanes, i < end && order_key(row.logits[i]) == key);
      if (left < __popc(hits)) {
        if ((hits >> lane & 1u) != 0 && __popc(hits & ((1u << lane) - 1u)) == left) room.token = i;
        break;
      }
      left -= __popc(hits);
    }
  }
  __syncthreads();
  return room.token;
}

// Uniform in [0, 1), 53 bits, as on the CPU.
__device__ inline double uniform(std::uint64_t key, std::uint64_t draw, std::int64_t row) {
  const Philox4 bits = philox4x32(key, draw, static_cast<std::uint64_t>(row));
  const std::uint64_t word = static_cast<std::uint64_t>(bits.x[0]) << 32 | bits.x[1];
  return static_cast<double>(word >> 11) * 0x1.0p-53;
}

// In order of ids: the first token at which the running mass passes u * total.
template <typename A>
__device__ std::int32_t draw_from_all(const Row<A>& row, double u, Room& room) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int segment = segment_of(row.vocab), begin = warp * segment, end = min(row.vocab, begin + segment);
  double mine = 0.0;
  for (int i = begin + lane; i < end; i += kWarp) mine += static_cast<double>(row.mass(as_float(row.logits[i])));
  mine = warp_sum(mine);
  if (lane == 0) room.sums[warp] = mine;
  __syncthreads();
  double total = 0.0;
  int last = 0;  // rounding may leave a rest after the last segment: it belongs to the last token with a mass
  for (int w = 0; w < kWarps; ++w) {
    total += room.sums[w];
    if (room.sums[w] > 0.0) last = w;
  }
  double left = u * total;
  int chosen = -1;
  for (int w = 0; w < kWarps && chosen < 0; ++w) {
    if (left < room.sums[w] || w == last) {
      chosen = w;
    } else {
      left -= room.sums[w];
    }
  }
  if (warp == chosen) {
    std::int32_t token = begin;
    for (int base = begin; base < end; base += kWarp) {
      const int i = base + lane;
      const float p = i < end ? row.mass(as_float(row.logits[i])) : 0.0f;
      double running = static_cast<double>(p);
#pragma unroll
      for (int offset = 1; offset < kWarp; offset *= 2) {
        const double before = __shfl_up_sync(kAllLanes, running, offset);
        if (lane >= offset) running += before;
      }
      const unsigned some = __ballot_sync(kAllLanes, p > 0.0f);
      const unsigned passed = __ballot_sync(kAllLanes, p > 0.0f && running > left);
      if (some != 0) token = base + 31 - __clz(static_cast<int>(some));
      if (passed != 0) {
        token = base + __ffs(static_cast<int>(passed)) - 1;
        break;
      }
      left -= __shfl_sync(kAllLanes, running, kWarp - 1);
    }
    if (lane == 0) room.token = token;
  }
  __syncthreads();
  return room.token;
}

// In order of falling probability, the lower id first among equals: the nucleus, then the draw.
template <typename A>
__device__ std::int32_t draw_from_nucleus(const Row<A>& row, double u, float top_p, std::uint32_t largest_key,
                                          Room& room) {
  const double wanted = static_cast<double>(top_p) * row.mass_from(0u, room);
  // The edge: the smallest logit that takes part, and how many of the tokens that have it.
  const std::uint32_t edge = min(largest_key, bisect(row, room, [&](double mass) { return mass >= wanted; }));
  const double above_edge = row.mass_from(edge + 1, room),
               at_edge = static_cast<double>(row.mass(value_of_key<A>(edge)));
  const int ties = count_key(row, edge, room);
  __syncthreads();
  const double needed = fmin(fmax(ceil((wanted - above_edge) / at_edge), 1.0), static_cast<double>(ties));
  const double target = u * (above_edge + needed * at_edge);
  std::uint32_t key = edge;
  double above = above_edge;
  int most = static_cast<int>(needed);
  if (target < above_edge) {
    key = min(largest_key, bisect(row, room, [&](double mass) { return mass > target; }));
    above = row.mass_from(key + 1, room);
  }
  const int equal = count_key(row, key, room);
  if (key != edge) most = equal;
  const double place = (target - above) / static_cast<double>(row.mass(value_of_key<A>(key)));
  const int nth = static_cast<int>(fmin(fmax(floor(place), 0.0), static_cast<double>(most - 1)));
  return nth_of_key(row, key, nth, room);
}

// A block a sequence.
template <typename A>
__global__ void __launch_bounds__(kThreads) sample_kernel(Matrix<const A> logits, float temperature, float top_p,
                                                          std::uint64_t key, std::uint64_t draw, std::int32_t* out) {
  __shared__ Room room;
  const int vocab = static_cast<int>(logits.cols);
  const A* data = logits.row(blockIdx.x);
  const std::uint64_t best = largest_logit(data, vocab, room);
  const std::uint32_t largest_key = static_cast<std::uint32_t>(best >> 32);
  std::int32_t token = static_cast<std::int32_t>(0xFFFFFFFFu - static_cast<std::uint32_t>(best));
  if (temperature > 0.0f && largest_key != 0) {  // only NaN: the first token
    const Row<A> row{data, vocab, as_float(data[token]), temperature};
    const double u = uniform(key, draw, blockIdx.x);
    token = top_p < 1.0f ? draw_from_nucleus(row, u, top_p, largest_key, room) : draw_from_all(row, u, room);
  }
  if (threadIdx.x == 0) out[blockIdx.x] = token;
}

}  // namespace

void sample(const SampleArgs& args, cudaStream_t stream) {
  if (args.logits.numel() == 0) return;
  CHECK(args.logits.cols() < (std::int64_t{1} << 31) - 2 * kThreads, "sample: vocabulary {}", args.logits.cols());
  with_activation(args.logits.dtype, [&](auto a) {
    using A = decltype(a);
    sample_kernel<A><<<static_cast<unsigned>(args.logits.rows()), kThreads, 0, stream>>>(
        matrix<const A>(args.logits), args.temperature, args.top_p, args.key, args.draw, args.out.as<std::int32_t>());
  });
  check_launch("sample");
}

}  // namespace llmfp8::cuda
