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
// the first one in the whole parameter, a multiple of 8.
struct Span {
  std::int64_t begin;
  unsigned valid;
  bool vector;  // all exist and every access of 8 is aligned
  std::uint64_t element;

  __device__ bool has(int k) const { return (valid >> k & 1u) != 0; }
};

// 8 elements in their stored form.
__device__ inline void load8(const float* from, const Span& s, float (&v)[8]) {
  if (s.vector) return load<8>(from + s.begin, v);
#pragma unroll
  for (int k = 0; k < 8; ++k) v[k] = s.has(k) ? from[s.begin + k] : 0.0f;
}

template <typename Word>
__device__ inline void load_words(const Word* from, const Span& s, Word (&v)[8]) {
  using Vector = std::conditional_t<sizeof(Word) == 2, uint4, uint2>;
  static_assert(sizeof(Vector) == sizeof v);
  if (s.vector) {
    const Vector raw = *reinterpret_cast<const Vector*>(from + s.begin);
    const auto* words = reinterpret_cast<const std::uint32_t*>(&raw);
    constexpr int kIn = 4 / sizeof(Word);
#pragma unroll
    for (int k = 0; k < 8; ++k) v[k] = static_cast<Word>(words[k / kIn] >> (8 * sizeof(Word) * (k % kIn)));
    return;
  }
#pragma unroll
  for (int k = 0; k < 8; ++k) v[k] = s.has(k) ? from[s.begin + k] : Word(0);
}

__device__ inline void load8(const bf16* from, const Span& s, float (&v)[8]) {
  std::uint16_t words[8];
  load_words(reinterpret_cast<const std::uint16_t*>(from), s, words);
#pragma unroll
  for (int k = 0; k < 8; ++k) v[k] = as_float(bf16{words[k]});
}

__device__ inline void store8(float* to, const Span& s, const float (&v)[8]) {
  if (s.vector) return store<8>(v, to + s.begin);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    if (s.has(k)) to[s.begin + k] = v[k];
  }
}

template <typename Word>
__device__ inline void store_words(Word* to, const Span& s, const Word (&v)[8]) {
  using Vector = std::conditional_t<sizeof(Word) == 2, uint4, uint2>;
  if (s.vector) {
    Vector raw;
    auto* words = reinterpret_cast<std::uint32_t*>(&raw);
    constexpr int kIn = 4 / sizeof(Word);
#pragma unroll
    for (int w = 0; w < static_cast<int>(sizeof(Vector) / 4); ++w) {
      std::uint32_t word = 0;
#pragma unroll
      for (int k = 0; k < kIn; ++k) word |= static_cast<std::uint32_t>(v[w * kIn + k]) << (8 * sizeof(Word) * k);
      words[w] = word;
    }
    *reinterpret_cast<Vector*>(to + s.begin) = raw;
    return;
  }
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    if (s.has(k)) to[s.begin + k] = v[k];
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

__device__ inline Philox4 draw(const KernelArgs& args, std::uint64_t key, const Span& s, RoundingStream stream) {
  return philox4x32(key, s.element / 8, rounding_counter_high(args.param_index, stream));
}

__device__ inline void store_bf16(const KernelArgs& args, std::uint64_t key, RoundingStream stream, void* to,
                                  const Span& s, const float (&v)[8]) {
  std::uint16_t words[8];
  if (args.stochastic_rounding) {
    const Philox4 random = draw(args, key, s, stream);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      words[k] = to_bf16_stochastic(v[k], rounding_bits(random, static_cast<std::uint64_t>(k))).bits;
    }
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) words[k] = to_bf16(v[k]).bits;
  }
  store_words(static_cast<std::uint16_t*>(to), s, words);
}

// The moment of a thread's elements. State: float, bf16 or std::uint8_t (a scale per chunk of 256).
template <typename State, bool kIsV>
__device__ inline void load_moment(const KernelArgs& args, std::int64_t chunk, const Span& s, float (&x)[8]) {
  const void* from = kIsV ? args.v : args.m;
  if constexpr (std::is_same_v<State, std::uint8_t>) {
    std::uint8_t codes[8];
    load_words(static_cast<const std::uint8_t*>(from), s, codes);
    const float scale = (kIsV ? args.v_scale : args.m_scale)[chunk];
#pragma unroll
    for (int k = 0; k < 8; ++k) x[k] = kIsV ? decode_v8(codes[k], scale) : decode_m8(codes[k], scale);
  } else {
    load8(static_cast<const State*>(from), s, x);
  }
}

template <typename State, bool kIsV>
__device__ inline void store_moment(const KernelArgs& args, std::uint64_t key, std::int64_t chunk, const Span& s,
                                    const float (&x)[8]) {
  void* to = kIsV ? args.v : args.m;
  constexpr RoundingStream kStream = kIsV ? RoundingStream::v : RoundingStream::m;
  if constexpr (std::is_same_v<State, float>) {
    store8(static_cast<float*>(to), s, x);
  } else if constexpr (std::is_same_v<State, bf16>) {
    store_bf16(args, key, kStream, to, s, x);
  } else {
    std::uint32_t bits = 0;
#pragma unroll
    for (int k = 0; k < 8; ++k) bits = max(bits, s.has(k) ? amax_bits(x[k]) : 0u);
    const MomentScale scale = moment_scale(__uint_as_float(warp_max(bits)), kIsV ? kVCodeMax : kMCodeMax);
    // Every lane has read the old scale: warp_max above is a barrier of the warp.
    if (threadIdx.x % kWarp == 0) (kIsV ? args.v_scale : args.m_scale)[chunk] = scale.scale;
    const Philox4 random = draw(args, key, s, kStream);
    std::uint8_t codes[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const std::uint16_t r = rounding_bits(random, static_cast<std::uint64_t>(k));
      codes[k] = kIsV ? encode_v8(x[k], scale.inverse, r) : encode_m8(x[k], scale.inverse, r);
    }
    store_words(static_cast<std::uint8_t*>(to), s, codes);
  }
}

template <typename P>
__device__ inline void load_param(const KernelArgs& args, const Span& s, float (&x)[8]) {
  if constexpr (std::is_same_v<P, bf16>) {
    if (args.remainder != nullptr) {
      std::uint16_t hi[8], lo[8];
      load_words(static_cast<const std::uint16_t*>(args.param), s, hi);
      load_words(static_cast<const std::uint16_t*>(args.remainder), s, lo);
#pragma unroll
      for (int k = 0; k < 8; ++k) x[k] = join_master(SplitFloat{hi[k], lo[k]});
      return;
    }
  }
  load8(static_cast<const P*>(args.param), s, x);
}

template <typename P>
__device__ inline void store_param(const KernelArgs& args, std::uint64_t key, const Span& s, const float (&x)[8]) {
  if constexpr (std::is_same_v<P, float>) {
    store8(static_cast<float*>(args.param), s, x);
  } else if (args.remainder != nullptr) {
    std::uint16_t hi[8], lo[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const SplitFloat both = split_master(x[k]);
      hi[k] = both.hi, lo[k] = both.lo;
    }
    store_words(static_cast<std::uint16_t*>(args.param), s, hi);
    store_words(args.remainder, s, lo);
  } else {
    store_bf16(args, key, RoundingStream::param, args.param, s, x);
  }
}

// A warp takes chunks of 256 elements, aligned in the whole parameter, and strides over the grid; a thread 8
// consecutive ones. Vector accesses where the piece begins at a multiple of 8 and pointers are 16-byte aligned; the
// ends of a piece go one element at a time. Nothing is shared between threads but the chunk's maximum, so the order
// does not matter.
template <typename P, typename G, typename State>
__global__ void __launch_bounds__(kThreads) adamw_kernel(KernelArgs args) {
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
    Span s;
    s.begin = chunk * kMomentBlock - lead + lane * kPerThread;
    s.element = args.element_offset + static_cast<std::uint64_t>(s.begin);  // wraps back above zero where begin < 0
    s.valid = 0;
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) {
      if (s.begin + k >= 0 && s.begin + k < args.n) s.valid |= 1u << k;
    }
    s.vector = args.vector && s.valid == 0xFFu;
    float param[8], grad[8], m[8], v[8];
    load8(static_cast<const G*>(args.grad), s, grad);
    load_param<P>(args, s, param);
    load_moment<State, false>(args, chunk, s, m);
    load_moment<State, true>(args, chunk, s, v);
#pragma unroll
    for (int k = 0; k < kPerThread; ++k) adamw_element(factors, grad[k], param[k], m[k], v[k]);
    store_param<P>(args, key, s, param);
    store_moment<State, false>(args, key, chunk, s, m);
    store_moment<State, true>(args, key, chunk, s, v);
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
  const unsigned blocks = grid_for(ceil_div(n, kMomentBlock * (kThreads / kWarp)) + 1, 132 * 16);
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
