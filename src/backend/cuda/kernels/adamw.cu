// AdamW on the GPU; the arithmetic of an element, its storage and its random bits are core/adamw_math.h, which asks for
// separate multiplications and additions (this folder's --fmad=false) and IEEE division and square root. Called by
// CudaOps.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/kernels.h"
#include "core/adamw_math.h"

namespace llmfp8::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 3;  // that a multiprocessor holds
constexpr int kPerThread = kMomentBlock / kWarp;  // 8: what one Philox call serves
static_assert(kPerThread == 8);

// One thread's elements: [begin, begin + 8) of the arguments, of which those with bit k of `valid` exist; `element`: of
// the first one in the whole parameter, a multiple of 8. kVector: all exist and every access of 8 is aligned.
template <bool kVector>
struct Span {
  std::int64_t begin;
  unsigned valid;
  std::uint64_t element;

  __device__ bool has(int k) const { return kVector || (valid >> k & 1u) != 0; }
};

// 8 elements in their stored form.
template <bool kVector>
__device__ inline void load8(const float* from, const Span<kVector>& s, float (&v)[8]) {
  if constexpr (kVector) {
    load<8>(from + s.begin, v);
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) v[k] = s.has(k) ? from[s.begin + k] : 0.0f;
  }
}

// W: packed 32-bit words of 8 stored elements.
template <typename Word>
inline constexpr int kPacked = 8 * static_cast<int>(sizeof(Word)) / 4;

template <bool kVector, typename Word>
__device__ inline void load_words(const Word* from, const Span<kVector>& s, std::uint32_t (&packed)[kPacked<Word>]) {
  constexpr int kIn = 4 / sizeof(Word);
  if constexpr (kVector) {
    using Vector = std::conditional_t<sizeof(Word) == 2, uint4, uint2>;
    *reinterpret_cast<Vector*>(packed) = *reinterpret_cast<const Vector*>(from + s.begin);
  } else {
#pragma unroll
    for (int w = 0; w < kPacked<Word>; ++w) {
      packed[w] = 0;
      for (int k = 0; k < kIn; ++k) {
        if (s.has(w * kIn + k)) packed[w] |= static_cast<std::uint32_t>(from[s.begin + w * kIn + k]) << (8 * sizeof(Word) * k);
      }
    }
  }
}

template <bool kVector, typename Word>
__device__ inline void store_words(Word* to, const Span<kVector>& s, const std::uint32_t (&packed)[kPacked<Word>]) {
  constexpr int kIn = 4 / sizeof(Word);
  if constexpr (kVector) {
    using Vector = std::conditional_t<sizeof(Word) == 2, uint4, uint2>;
    *reinterpret_cast<Vector*>(to + s.begin) = *reinterpret_cast<const Vector*>(packed);
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      if (s.has(k)) to[s.begin + k] = static_cast<Word>(packed[k / kIn] >> (8 * sizeof(Word) * (k % kIn)));
    }
  }
}

__device__ inline std::uint16_t half_of(const std::uint32_t (&packed)[4], int k) {
  return static_cast<std::uint16_t>(packed[k / 2] >> (16 * (k % 2)));
}

template <bool kVector>
__device__ inline void load8(const bf16* from, const Span<kVector>& s, float (&v)[8]) {
  std::uint32_t packed[4];
  load_words(reinterpret_cast<const std::uint16_t*>(from), s, packed);
#pragma unroll
  for (int k = 0; k < 8; ++k) v[k] = as_float(bf16{half_of(packed, k)});
}

template <bool kVector>
__device__ inline void store8(float* to, const Span<kVector>& s, const float (&v)[8]) {
  if constexpr (kVector) {
    store<8>(v, to + s.begin);
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      if (s.has(k)) to[s.begin + k] = v[k];
    }
  }
}

// ---- the arithmetic without branches
//
// nvcc's square root and division branch for operands that are rare, once an element, which keeps the elements of a
// thread from overlapping. Here the common range is computed in a straight line, with one question at the end; 8 elements
// of which one lies outside are loaded again and go through adamw_rare. In that range the results are IEEE's, so the bytes
// are the same.

// The largest distance of patterns above a bound: what lies below the bound, or is negative, wraps around to the far end,
// and so do infinities and NaN. One comparison at the end asks for the range of all.
__device__ inline void widen(unsigned& distance, float x, float bound) {
  distance = max(distance, __float_as_uint(x) - __float_as_uint(bound));
}
__device__ inline bool beyond(unsigned distance, float bound, float limit) {
  return distance > __float_as_uint(limit) - __float_as_uint(bound);
}

// Correctly rounded for 2^-100 <= x <= 2^126: one Newton step in fused arithmetic on an approximation good to 2^-22 (the
// sequence that nvcc uses itself).
__device__ inline float sqrt_common(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  const float root = x * y, half = y * 0.5f;
  return fmaf(fmaf(-root, root, x), half, root);
}

// Correctly rounded for 2^-100 <= |n| <= 2^90 and 2^-30 <= d <= 2^20 (Markstein's theorem: the quotient and every
// remainder are normal, and remainders are exact).
__device__ inline float divide_common(float n, float d) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(d));
  r = fmaf(fmaf(-d, r, 1.0f), r, r);
  float q = n * r;
  q = fmaf(fmaf(-d, q, n), r, q);
  return fmaf(fmaf(-d, q, n), r, q);
}

// Positive zeros: a negative one has a sign to keep.
__device__ inline bool all_zero(const float (&a)[8], const float (&b)[8], const float (&c)[8]) {
  std::uint32_t bits = 0;
#pragma unroll
  for (int k = 0; k < 8; ++k) bits |= __float_as_uint(a[k]) | __float_as_uint(b[k]) | __float_as_uint(c[k]);
  return bits == 0;
}

// adamw_element of 8 elements, line by line. True: one is out of the common range, and what was written is of no use.
__device__ inline bool adamw_common(const AdamwFactors& f, const float (&grad)[8], float (&param)[8], float (&m)[8],
                                    float (&v)[8]) {
  unsigned squares = 0, numerators = 0, denominators = 0;  // of widen()
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const float g = grad[k] * f.grad_scale;
    m[k] = f.beta1 * m[k] + f.one_minus_beta1 * g;
    v[k] = f.beta2 * v[k] + (f.one_minus_beta2 * g) * g;
    const float denominator = sqrt_common(v[k]) * f.inverse_sqrt_bias_correction2 + f.eps;
    const float numerator = f.step_size * m[k];
    widen(squares, v[k], 0x1p-100f);
    widen(numerators, fabsf(numerator), 0x1p-100f);
    widen(denominators, denominator, 0x1p-30f);
    param[k] = param[k] * f.decay - divide_common(numerator, denominator);
  }
  return beyond(squares, 0x1p-100f, 0x1p126f) || beyond(numerators, 0x1p-100f, 0x1p90f) ||
         beyond(denominators, 0x1p-30f, 0x1p20f);
}

__device__ inline void adamw_rare(const AdamwFactors& f, const float (&grad)[8], float (&param)[8], float (&m)[8],
                                  float (&v)[8]) {
  if (all_zero(grad, m, v)) {
    // A token that has never occurred: nothing but the decay. step_size * 0 / eps is 0.
#pragma unroll
    for (int k = 0; k < 8; ++k) param[k] = param[k] * f.decay - 0.0f;
    return;
  }
#pragma unroll 1
  for (int k = 0; k < 8; ++k) {
    // Selected without indexing by k, which would put the arrays into local memory for the common case too.
    float p = 0.0f, x = 0.0f, y = 0.0f, g = 0.0f;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (j == k) p = param[j], x = m[j], y = v[j], g = grad[j];
    }
    adamw_element(f, g, p, x, y);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (j == k) param[j] = p, m[j] = x, v[j] = y;
    }
  }
}

struct KernelArgs {
  void* param;
  std::uint16_t* remainder;  // null: none
  const void* grad;
  void *m, *v;
  float *m_scale, *v_scale;
  std::int64_t n;
  bool stochastic_rounding;
  bool vector;
  AdamwHyper hyper;
  std::uint32_t param_index;
  std::uint64_t element_offset;
  const StepScalars* scalars;
};

// to_bf16_stochastic of 8 values, packed. Below the largest bf16 the sum of pattern and number cannot reach infinity, and
// its upper half is the result.
template <RoundingStream kStream>
__device__ inline void round_stochastic(const float (&v)[8], const Philox4& random, std::uint32_t (&packed)[4]) {
  std::uint32_t largest = 0;
#pragma unroll
  for (int k = 0; k < 8; ++k) largest = max(largest, __float_as_uint(v[k]) & 0x7FFFFFFFu);
  if (largest < 0x7F7F0000u) {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const std::uint32_t low = __float_as_uint(v[2 * w]) + rounding_bits(random, static_cast<std::uint64_t>(2 * w), kStream);
      const std::uint32_t high = __float_as_uint(v[2 * w + 1]) + rounding_bits(random, static_cast<std::uint64_t>(2 * w + 1), kStream);
      packed[w] = __byte_perm(low, high, 0x7632);
    }
    return;
  }
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const auto rounded = [&](int k) -> std::uint32_t {
      return to_bf16_stochastic(v[k], rounding_bits(random, static_cast<std::uint64_t>(k), kStream)).bits;
    };
    packed[w] = rounded(2 * w) | rounded(2 * w + 1) << 16;
  }
}

template <RoundingStream kStream, bool kVector>
__device__ inline void store_bf16(const KernelArgs& args, const Philox4& random, void* to, const Span<kVector>& s,
                                  const float (&v)[8]) {
  std::uint32_t packed[4];
  if (args.stochastic_rounding) {
    round_stochastic<kStream>(v, random, packed);
  } else {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      packed[w] = to_bf16(v[2 * w]).bits | static_cast<std::uint32_t>(to_bf16(v[2 * w + 1]).bits) << 16;
    }
  }
  store_words(static_cast<std::uint16_t*>(to), s, packed);
}

// The moment of a thread's elements. State: float, bf16 or std::uint8_t (a scale per chunk of 256).
template <typename State, bool kIsV, bool kVector>
__device__ inline void load_moment(const KernelArgs& args, std::int64_t chunk, const Span<kVector>& s, float (&x)[8]) {
  const void* from = kIsV ? args.v : args.m;
  if constexpr (std::is_same_v<State, std::uint8_t>) {
    std::uint32_t packed[2];
    load_words(static_cast<const std::uint8_t*>(from), s, packed);
    const float scale = (kIsV ? args.v_scale : args.m_scale)[chunk];
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const auto code = static_cast<std::uint8_t>(packed[k / 4] >> (8 * (k % 4)));
      x[k] = kIsV ? decode_v8(code, scale) : decode_m8(code, scale);
    }
  } else {
    load8(static_cast<const State*>(from), s, x);
  }
}

template <typename State, bool kIsV, bool kVector>
__device__ inline void store_moment(const KernelArgs& args, const Philox4& random, std::int64_t chunk, const Span<kVector>& s,
                                    const float (&x)[8]) {
  void* to = kIsV ? args.v : args.m;
  constexpr RoundingStream kStream = kIsV ? RoundingStream::v : RoundingStream::m;
  if constexpr (std::is_same_v<State, float>) {
    store8(static_cast<float*>(to), s, x);
  } else if constexpr (std::is_same_v<State, bf16>) {
    store_bf16<kStream>(args, random, to, s, x);
  } else {
    std::uint32_t bits = 0;
#pragma unroll
    for (int k = 0; k < 8; ++k) bits = max(bits, s.has(k) ? amax_bits(x[k]) : 0u);
    const MomentScale scale = moment_scale(__uint_as_float(warp_max(bits)), kIsV ? kVCodeMax : kMCodeMax);
    // Every lane has read the old scale: warp_max above is a barrier of the warp.
    if (threadIdx.x % kWarp == 0) (kIsV ? args.v_scale : args.m_scale)[chunk] = scale.scale;
    std::uint32_t packed[2] = {};
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const std::uint16_t r = rounding_bits(random, static_cast<std::uint64_t>(k), kStream);
      const std::uint32_t code = kIsV ? encode_v8(x[k], scale.inverse, r) : encode_m8(x[k], scale.inverse, r);
      packed[k / 4] |= code << (8 * (k % 4));
    }
    store_words(static_cast<std::uint8_t*>(to), s, packed);
  }
}

template <typename P, bool kVector>
__device__ inline void load_param(const KernelArgs& args, const Span<kVector>& s, float (&x)[8]) {
  if constexpr (std::is_same_v<P, bf16>) {
    if (args.remainder != nullptr) {
      std::uint32_t hi[4], lo[4];
      load_words(static_cast<const std::uint16_t*>(args.param), s, hi);
      load_words(static_cast<const std::uint16_t*>(args.remainder), s, lo);
#pragma unroll
      for (int k = 0; k < 8; ++k) x[k] = join_master(SplitFloat{half_of(hi, k), half_of(lo, k)});
      return;
    }
  }
  load8(static_cast<const P*>(args.param), s, x);
}

template <typename P, bool kVector>
__device__ inline void store_param(const KernelArgs& args, const Philox4& random, const Span<kVector>& s, const float (&x)[8]) {
  if constexpr (std::is_same_v<P, float>) {
    store8(static_cast<float*>(args.param), s, x);
  } else if (args.remainder != nullptr) {
    std::uint32_t hi[4], lo[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const SplitFloat a = split_master(x[2 * w]), b = split_master(x[2 * w + 1]);
      hi[w] = a.hi | static_cast<std::uint32_t>(b.hi) << 16;
      lo[w] = a.lo | static_cast<std::uint32_t>(b.lo) << 16;
    }
    store_words(static_cast<std::uint16_t*>(args.param), s, hi);
    store_words(args.remainder, s, lo);
  } else {
    store_bf16<RoundingStream::param>(args, random, args.param, s, x);
  }
}

template <typename P, typename G, typename State, bool kVector>
__device__ inline void update_span(const KernelArgs& args, const AdamwFactors& factors, std::uint64_t key,
                                   std::int64_t chunk, const Span<kVector>& s) {
  float param[8], grad[8], m[8], v[8];
  const auto load_all = [&] {
    load8(static_cast<const G*>(args.grad), s, grad);
    load_param<P>(args, s, param);
    load_moment<State, false>(args, chunk, s, m);
    load_moment<State, true>(args, chunk, s, v);
  };
  load_all();
  // While the loads are under way. Compiled out where nothing is rounded.
  const Philox4 random = rounding_words(key, args.param_index, s.element);
  if (adamw_common(factors, grad, param, m, v)) {
    load_all();
    adamw_rare(factors, grad, param, m, v);
  }
  store_param<P>(args, random, s, param);
  store_moment<State, false>(args, random, chunk, s, m);
  store_moment<State, true>(args, random, chunk, s, v);
}

// A warp takes chunks of 256 elements, aligned in the whole parameter, and strides over the grid; a thread 8
// consecutive ones. Vector accesses where the piece begins at a multiple of 8 and pointers are 16-byte aligned; the
// ends of a piece go one element at a time. Nothing is shared between threads but the chunk's maximum, so the order
// does not matter.
template <typename P, typename G, typename State>
__global__ void __launch_bounds__(kThreads, kBlocks) adamw_kernel(KernelArgs args) {
  __shared__ AdamwFactors shared_factors;
  if (args.scalars->step_ok == 0) return;
  if (threadIdx.x == 0) shared_factors = adamw_factors(args.hyper, *args.scalars);
  __syncthreads();
  const AdamwFactors factors = shared_factors;
  const std::uint64_t key = args.scalars->rounding_key;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t lead = static_cast<std::int64_t>(args.element_offset % kMomentBlock);
  const std::int64_t chunks = (args.n + lead + kMomentBlock - 1) / kMomentBlock;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * (kThreads / kWarp);
  std::int64_t chunk = static_cast<std::int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  for (; chunk < chunks; chunk += step) {
    const std::int64_t first = chunk * kMomentBlock - lead, begin = first + lane * kPerThread;
    const std::uint64_t element = args.element_offset + static_cast<std::uint64_t>(begin);  // wraps above zero where begin < 0
    if (args.vector && first >= 0 && first + kMomentBlock <= args.n) {
      update_span<P, G, State>(args, factors, key, chunk, Span<true>{begin, 0xFFu, element});
      continue;
    }
    unsigned valid = 0;
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) {
      if (begin + k >= 0 && begin + k < args.n) valid |= 1u << k;
    }
    update_span<P, G, State>(args, factors, key, chunk, Span<false>{begin, valid, element});
  }
}

template <typename Body>
void with_state(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::f32: return body(float());
    case DType::bf16: return body(bf16());
    case DType::u8: return body(std::uint8_t());
    default: fail("adamw: state {}, wanted f32, bf16 or u8", name(dtype));
  }
}

}  // namespace

void adamw(const AdamwArgs& args, cudaStream_t stream) {
  const std::int64_t n = args.param.numel();
  if (n == 0) return;
  CHECK(args.m.dtype != DType::u8 || args.element_offset % kMomentBlock == 0,
        "adamw: a piece with 8-bit state begins at element {}, a multiple of {} wanted", args.element_offset,
        kMomentBlock);
  const auto pointer = [](const Tensor& t) { return t.defined() ? t.data : nullptr; };
  KernelArgs k{};
  k.param = args.param.data, k.grad = args.grad.data, k.m = args.m.data, k.v = args.v.data, k.n = n;
  k.remainder = static_cast<std::uint16_t*>(pointer(args.remainder));
  k.m_scale = static_cast<float*>(pointer(args.m_scale)), k.v_scale = static_cast<float*>(pointer(args.v_scale));
  k.stochastic_rounding = args.stochastic_rounding;
  k.vector = args.element_offset % kPerThread == 0 && aligned(k.param, 16) && aligned(k.grad, 16) && aligned(k.m, 16) &&
             aligned(k.v, 16) && aligned(k.remainder, 16);
  k.hyper = AdamwHyper{args.beta1, args.beta2, args.eps, args.weight_decay};
  k.param_index = args.param_index, k.element_offset = args.element_offset, k.scalars = args.scalars;
  // All blocks run at once: with some waves of them the last one would leave most multiprocessors idle.
  const unsigned blocks = grid_for(ceil_div(n, kMomentBlock * (kThreads / kWarp)) + 1, 132 * kBlocks);
  with_activation(args.param.dtype, [&](auto p) {
    with_activation(args.grad.dtype, [&](auto g) {
      with_state(args.m.dtype, [&](auto state) {
        adamw_kernel<decltype(p), decltype(g), decltype(state)><<<blocks, kThreads, 0, stream>>>(k);
      });
    });
  });
  check_launch("adamw");
}

}  // namespace llmfp8::cuda
