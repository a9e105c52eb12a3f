// AdamW on the GPU; the arithmetic of an element, its storage and its random bits are core/adamw_math.h, which asks for
// separate multiplications and additions (this folder's --fmad=false) and IEEE division and square root. Called by
// CudaOps.
#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/kernels.h"
#include "core/adamw_math.h"

namespace llmfp8::cuda {
namespace {

constexpr int kThreads = 256;
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

// ---- 8 elements as stored, in 32-bit words

template <typename T>
using Pattern = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::conditional_t<sizeof(T) == 2, std::uint16_t, std::uint8_t>>;

template <typename T>
struct Words {
  static constexpr int kCount = 2 * sizeof(T), kIn = 4 / sizeof(T);  // words, elements in a word
  std::uint32_t word[kCount];

  __device__ Pattern<T> pattern(int k) const { return static_cast<Pattern<T>>(word[k / kIn] >> (8 * sizeof(T) * (k % kIn))); }
  __device__ void put(int k, Pattern<T> pattern) {  // where zero is
    word[k / kIn] |= static_cast<std::uint32_t>(pattern) << (8 * sizeof(T) * (k % kIn));
  }
};

__device__ inline float value(const Words<float>& words, int k) { return __uint_as_float(words.word[k]); }
__device__ inline float value(const Words<bf16>& words, int k) { return as_float(bf16{words.pattern(k)}); }

template <bool kVector, typename T>
__device__ inline Words<T> load_words(const T* from, const Span<kVector>& s) {
  const auto* patterns = reinterpret_cast<const Pattern<T>*>(from) + s.begin;
  Words<T> words{};
  if constexpr (kVector) {
    using Vector = std::conditional_t<sizeof(T) == 1, uint2, uint4>;
#pragma unroll
    for (std::size_t i = 0; i < sizeof(words) / sizeof(Vector); ++i) {
      reinterpret_cast<Vector*>(&words)[i] = reinterpret_cast<const Vector*>(patterns)[i];
    }
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      if (s.has(k)) words.put(k, patterns[k]);
    }
  }
  return words;
}

template <bool kVector, typename T>
__device__ inline void store_words(T* to, const Span<kVector>& s, const Words<T>& words) {
  auto* patterns = reinterpret_cast<Pattern<T>*>(to) + s.begin;
  if constexpr (kVector) {
    using Vector = std::conditional_t<sizeof(T) == 1, uint2, uint4>;
#pragma unroll
    for (std::size_t i = 0; i < sizeof(words) / sizeof(Vector); ++i) {
      reinterpret_cast<Vector*>(patterns)[i] = reinterpret_cast<const Vector*>(&words)[i];
    }
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      if (s.has(k)) patterns[k] = words.pattern(k);
    }
  }
}

// ---- the arithmetic without branches
//
// nvcc's square root and division branch for operands that are rare, once an element, which keeps the elements of a
// thread from overlapping. Here the common range is computed in a straight line, with one question at the end; 8 elements
// of which one lies outside go through adamw_element one by one. In that range the results are IEEE's, so the bytes are the
// same.

// Bounds of the new moments, within which every step is in the range of sqrt_common and divide_common:
//   2^-100 <= v <= 2^30, so that with bias_correction2 >= 2^-20 and 2^-60 <= eps <= 1 the denominator is in [2^-60, 2^26];
//   |m| such that the numerator step_size * |m| is in [2^-100, 2^60].
// As patterns: a value is inside where pattern - low <= high - low, unsigned; what lies below, is negative, infinite or NaN
// is not.
struct CommonRange {
  bool possible;  // false: these factors keep no element in the range
  std::uint32_t low_m, high_m;
  static constexpr float kLowV = 0x1p-100f, kHighV = 0x1p30f;
};

__device__ inline CommonRange common_range(const AdamwFactors& f) {
  const bool possible = f.eps >= 0x1p-60f && f.eps <= 1.0f && f.inverse_sqrt_bias_correction2 <= 0x1p10f &&
                        f.step_size >= 0x1p-25f * 0x1p-25f && f.step_size <= 0x1p30f;
  // The factor of 2 is for the rounding of the quotient and of the numerator.
  return {possible, __float_as_uint(0x1p-99f / f.step_size), __float_as_uint(0x1p59f / f.step_size)};
}

// Correctly rounded for 2^-100 <= x <= 2^126: one Newton step in fused arithmetic on an approximation good to 2^-22 (the
// sequence that nvcc uses itself).
__device__ inline float sqrt_common(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  const float root = x * y, half = y * 0.5f;
  return fmaf(fmaf(-root, root, x), half, root);
}

// Correctly rounded for 2^-100 <= |n| <= 2^60 and 2^-60 <= d <= 2^26 (Markstein's theorem: the quotient and every
// remainder are normal or exact).
__device__ inline float divide_common(float n, float d) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(d));
  r = fmaf(fmaf(-d, r, 1.0f), r, r);
  float q = n * r;
  q = fmaf(fmaf(-d, q, n), r, q);
  return fmaf(fmaf(-d, q, n), r, q);
}

// How far the patterns of a thread's values lie above the bounds, at most.
struct Farthest {
  std::uint32_t m = 0, v = 0, param = 0;

  __device__ bool inside(const CommonRange& range) const {
    // Below the largest bf16 the sum of a pattern and a random number cannot reach infinity (round_common).
    return m <= range.high_m - range.low_m && v <= __float_as_uint(CommonRange::kHighV) - __float_as_uint(CommonRange::kLowV) &&
           param < 0x7F7F0000u;
  }
};

__device__ inline std::uint32_t magnitude(float x) { return __float_as_uint(x) & 0x7FFFFFFFu; }

// adamw_element line by line, where the range is common.
__device__ inline void adamw_common(const AdamwFactors& f, const CommonRange& range, float grad, float& param, float& m, float& v,
                                    Farthest& farthest) {
  const float g = grad * f.grad_scale;
  m = f.beta1 * m + f.one_minus_beta1 * g;
  v = f.beta2 * v + (f.one_minus_beta2 * g) * g;
  const float denominator = sqrt_common(v) * f.inverse_sqrt_bias_correction2 + f.eps;
  param = param * f.decay - divide_common(f.step_size * m, denominator);
  farthest.m = max(farthest.m, magnitude(m) - range.low_m);
  farthest.v = max(farthest.v, __float_as_uint(v) - __float_as_uint(CommonRange::kLowV));
  farthest.param = max(farthest.param, magnitude(param));
}

// Positive zeros: a negative one has a sign to keep.
__device__ inline bool all_zero(const float (&a)[8], const float (&b)[8], const float (&c)[8]) {
  std::uint32_t bits = 0;
#pragma unroll
  for (int k = 0; k < 8; ++k) bits |= __float_as_uint(a[k]) | __float_as_uint(b[k]) | __float_as_uint(c[k]);
  return bits == 0;
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

// What all threads of a launch share.
struct Update {
  AdamwFactors factors;
  CommonRange range;
  std::uint64_t key;
  bool step_ok;
};

// P: float or bf16; G: float or bf16; State: float, bf16 or std::uint8_t (a scale per chunk of 256).
template <typename P, typename G, typename State>
struct KernelArgs {
  P* param;
  std::uint16_t* remainder;  // null: none
  const G* grad;
  State *m, *v;
  float *m_scale, *v_scale;
  std::int64_t n;
  bool stochastic_rounding;
  bool vector;
  AdamwHyper hyper;
  std::uint32_t param_index;
  std::uint64_t element_offset;
  const StepScalars* scalars;
};

// ---- one thread's elements

template <typename P, typename G, typename State>
struct Loaded {
  Words<P> param;
  Words<std::uint16_t> remainder;
  Words<G> grad;
  Words<State> m, v;
};

template <typename P, typename G, typename State, bool kVector>
__device__ inline Loaded<P, G, State> load_all(const KernelArgs<P, G, State>& args, const Span<kVector>& s) {
  Loaded<P, G, State> x{};
  x.grad = load_words(args.grad, s), x.param = load_words(args.param, s);
  x.m = load_words(args.m, s), x.v = load_words(args.v, s);
  if constexpr (std::is_same_v<P, bf16>) {
    if (args.remainder != nullptr) x.remainder = load_words(args.remainder, s);
  }
  return x;
}

// to_bf16_stochastic of elements 2w and 2w + 1, packed, for magnitudes below the largest bf16: the upper halves of the sums
// of pattern and random number.
template <RoundingStream kStream>
__device__ inline std::uint32_t round_common(float low, float high, const Philox4& random, int w) {
  const auto sum = [&](float x, int k) { return __float_as_uint(x) + rounding_bits(random, static_cast<std::uint64_t>(k), kStream); };
  return __byte_perm(sum(low, 2 * w), sum(high, 2 * w + 1), 0x7632);
}

template <RoundingStream kStream, typename T>
__device__ inline void put_common(Words<T>& words, int w, float low, float high, const Philox4& random) {
  if constexpr (std::is_same_v<T, float>) {
    words.word[2 * w] = __float_as_uint(low), words.word[2 * w + 1] = __float_as_uint(high);
  } else {
    words.word[w] = round_common<kStream>(low, high, random, w);
  }
}

// The usual case, stochastic rounding of what is bf16: two elements at a time from the loaded form to the stored one, which
// takes few registers. False: out of the common range, and nothing was stored.
template <typename P, typename G, typename State, bool kVector>
__device__ inline bool update_common(const KernelArgs<P, G, State>& args, const Update& update, const Span<kVector>& s,
                                     const Loaded<P, G, State>& in) {
  const Philox4 random = rounding_words(update.key, args.param_index, s.element);
  Farthest farthest;
  Words<P> param;
  Words<State> m, v;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    float p2[2], m2[2], v2[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int k = 2 * w + i;
      p2[i] = value(in.param, k), m2[i] = value(in.m, k), v2[i] = value(in.v, k);
      adamw_common(update.factors, update.range, value(in.grad, k), p2[i], m2[i], v2[i], farthest);
    }
    put_common<RoundingStream::param>(param, w, p2[0], p2[1], random);
    put_common<RoundingStream::m>(m, w, m2[0], m2[1], random);
    put_common<RoundingStream::v>(v, w, v2[0], v2[1], random);
  }
  if (!farthest.inside(update.range)) return false;
  store_words(args.param, s, param);
  store_words(args.m, s, m);
  store_words(args.v, s, v);
  return true;
}

template <RoundingStream kStream>
__device__ inline Words<bf16> rounded(bool stochastic, const Philox4& random, const float (&x)[8]) {
  Words<bf16> words{};
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    words.put(k, stochastic ? to_bf16_stochastic(x[k], rounding_bits(random, static_cast<std::uint64_t>(k), kStream)).bits : to_bf16(x[k]).bits);
  }
  return words;
}

__device__ inline Words<float> patterns(const float (&x)[8]) {
  Words<float> words;
#pragma unroll
  for (int k = 0; k < 8; ++k) words.word[k] = __float_as_uint(x[k]);
  return words;
}

template <typename State, bool kIsV>
__device__ inline void decode_moment(const Words<State>& words, float scale, float (&x)[8]) {
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    if constexpr (std::is_same_v<State, std::uint8_t>) {
      x[k] = kIsV ? decode_v8(words.pattern(k), scale) : decode_m8(words.pattern(k), scale);
    } else {
      x[k] = value(words, k);
    }
  }
}

template <bool kIsV, typename P, typename G, typename State, bool kVector>
__device__ inline void store_moment(const KernelArgs<P, G, State>& args, const Philox4& random, std::int64_t chunk, const Span<kVector>& s,
                                    const float (&x)[8]) {
  State* to = kIsV ? args.v : args.m;
  constexpr RoundingStream kStream = kIsV ? RoundingStream::v : RoundingStream::m;
  if constexpr (std::is_same_v<State, float>) {
    store_words(to, s, patterns(x));
  } else if constexpr (std::is_same_v<State, bf16>) {
    store_words(to, s, rounded<kStream>(args.stochastic_rounding, random, x));
  } else {
    std::uint32_t bits = 0;
#pragma unroll
    for (int k = 0; k < 8; ++k) bits = max(bits, s.has(k) ? amax_bits(x[k]) : 0u);
    const MomentScale scale = moment_scale(__uint_as_float(warp_max(bits)), kIsV ? kVCodeMax : kMCodeMax);
    // Every lane has read the old scale: warp_max above is a barrier of the warp.
    if (threadIdx.x % kWarp == 0) (kIsV ? args.v_scale : args.m_scale)[chunk] = scale.scale;
    Words<std::uint8_t> words{};
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const std::uint16_t r = rounding_bits(random, static_cast<std::uint64_t>(k), kStream);
      words.put(k, kIsV ? encode_v8(x[k], scale.inverse, r) : encode_m8(x[k], scale.inverse, r));
    }
    store_words(to, s, words);
  }
}

// Any case.
template <typename P, typename G, typename State, bool kVector>
__device__ inline void update_any(const KernelArgs<P, G, State>& args, const Update& update, std::int64_t chunk, const Span<kVector>& s,
                                  const Loaded<P, G, State>& in) {
  // Compiled out where nothing is rounded.
  const Philox4 random = rounding_words(update.key, args.param_index, s.element);
  float m_scale = 1.0f, v_scale = 1.0f;
  if constexpr (std::is_same_v<State, std::uint8_t>) m_scale = args.m_scale[chunk], v_scale = args.v_scale[chunk];
  float param[8], grad[8], m[8], v[8];
  const auto unpack_all = [&](const Loaded<P, G, State>& x) {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      grad[k] = value(x.grad, k), param[k] = value(x.param, k);
      if constexpr (std::is_same_v<P, bf16>) {
        if (args.remainder != nullptr) param[k] = join_master(SplitFloat{x.param.pattern(k), x.remainder.pattern(k)});
      }
    }
    decode_moment<State, false>(x.m, m_scale, m);
    decode_moment<State, true>(x.v, v_scale, v);
  };
  unpack_all(in);
  Farthest farthest;
#pragma unroll
  for (int k = 0; k < 8; ++k) adamw_common(update.factors, update.range, grad[k], param[k], m[k], v[k], farthest);
  if (!update.range.possible || !farthest.inside(update.range)) {
    unpack_all(load_all(args, s));
    adamw_rare(update.factors, grad, param, m, v);
  }
  if constexpr (std::is_same_v<P, float>) {
    store_words(args.param, s, patterns(param));
  } else if (args.remainder != nullptr) {
    Words<bf16> hi{};
    Words<std::uint16_t> lo{};
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const SplitFloat split = split_master(param[k]);
      hi.put(k, split.hi), lo.put(k, split.lo);
    }
    store_words(args.param, s, hi);
    store_words(args.remainder, s, lo);
  } else {
    store_words(args.param, s, rounded<RoundingStream::param>(args.stochastic_rounding, random, param));
  }
  store_moment<false>(args, random, chunk, s, m);
  store_moment<true>(args, random, chunk, s, v);
}

// What is seldom: elements are loaded (again) in here, and the call keeps its registers out of the usual path.
template <typename P, typename G, typename State, bool kVector>
__device__ __noinline__ void update_seldom(const KernelArgs<P, G, State>& args, const Update& update, std::int64_t chunk, Span<kVector> s) {
  update_any(args, update, chunk, s, load_all(args, s));
}

// What is known before the elements are: usual: stochastic rounding of what is bf16, no remainder.
enum class Case { usual, any };

// Blocks that a multiprocessor holds: more of them hide more of the loads, until their registers spill.
template <Case kCase, typename State>
inline constexpr int kBlocks = kCase == Case::any && std::is_same_v<State, float> ? 3 : 4;

// A warp takes a chunk of 256 elements, aligned in the whole parameter, a thread 8 consecutive ones. One chunk a warp and
// no loop: blocks start in order, so that those which run together touch a compact piece of memory; a grid that strides
// over the whole of it is a tenth slower. What the blocks share is computed by each while its elements are on their way.
// Vector accesses where the piece begins at a multiple of 8 and pointers are 16-byte aligned; the ends of a piece go one
// element at a time. Nothing is shared between threads but the chunk's maximum, so the order does not matter.
template <Case kCase, typename P, typename G, typename State>
__global__ void __launch_bounds__(kThreads, kBlocks<kCase, State>) adamw_kernel(const __grid_constant__ KernelArgs<P, G, State> args) {
  __shared__ Update update;
  const std::int64_t lead = static_cast<std::int64_t>(args.element_offset % kMomentBlock);
  const std::int64_t chunk = static_cast<std::int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  const std::int64_t first = chunk * kMomentBlock - lead, begin = first + threadIdx.x % kWarp * kPerThread;
  const std::uint64_t element = args.element_offset + static_cast<std::uint64_t>(begin);  // wraps above zero where begin < 0
  const bool whole = args.vector && first >= 0 && first + kMomentBlock <= args.n;
  const Span<true> all{begin, 0xFFu, element};
  Loaded<P, G, State> in;
  if (whole) in = load_all(args, all);
  if (threadIdx.x == 0) {
    update.factors = adamw_factors(args.hyper, *args.scalars);
    update.range = common_range(update.factors);
    update.key = args.scalars->rounding_key, update.step_ok = args.scalars->step_ok != 0;
  }
  __syncthreads();
  if (!update.step_ok) return;
  if (whole) {
    if constexpr (kCase == Case::any) {
      update_any(args, update, chunk, all, in);
    } else {
      if (!update.range.possible || !update_common(args, update, all, in)) update_seldom(args, update, chunk, all);
    }
    return;
  }
  unsigned valid = 0;
#pragma unroll
  for (int k = 0; k < kPerThread; ++k) {
    if (begin + k >= 0 && begin + k < args.n) valid |= 1u << k;
  }
  update_seldom(args, update, chunk, Span<false>{begin, valid, element});
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
  const auto launch = [&]<typename P, typename G, typename State>(P, G, State) {
    KernelArgs<P, G, State> k{};
    k.param = args.param.as<P>(), k.grad = args.grad.as<const G>(), k.m = args.m.as<State>(), k.v = args.v.as<State>(), k.n = n;
    if (args.remainder.defined()) k.remainder = args.remainder.as<std::uint16_t>();
    if (args.m_scale.defined()) k.m_scale = args.m_scale.as<float>(), k.v_scale = args.v_scale.as<float>();
    k.stochastic_rounding = args.stochastic_rounding;
    k.vector = args.element_offset % kPerThread == 0 && aligned(k.param, 16) && aligned(k.grad, 16) && aligned(k.m, 16) &&
               aligned(k.v, 16) && aligned(k.remainder, 16);
    k.hyper = AdamwHyper{args.beta1, args.beta2, args.eps, args.weight_decay};
    k.param_index = args.param_index, k.element_offset = args.element_offset, k.scalars = args.scalars;
    const std::int64_t lead = static_cast<std::int64_t>(args.element_offset % kMomentBlock);
    const std::int64_t blocks = ceil_div(n + lead, kMomentBlock * (kThreads / kWarp));
    CHECK(blocks < std::int64_t{1} << 31, "adamw: {} elements at once", n);
    if constexpr (std::is_same_v<P, bf16> && !std::is_same_v<State, std::uint8_t>) {
      if (args.stochastic_rounding && !args.remainder.defined()) {
        return adamw_kernel<Case::usual><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(k);
      }
    }
    adamw_kernel<Case::any><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(k);
  };
  with_activation(args.param.dtype, [&](auto p) {
    with_activation(args.grad.dtype, [&](auto g) { with_state(args.m.dtype, [&](auto state) { launch(p, g, state); }); });
  });
  check_launch("adamw");
}

}  // namespace llmfp8::cuda
