// AdamW on the CPU: elements go through in chunks of 256, aligned in the whole parameter, that stay in the first cache:
// decode to fp32, draw random bits, update, encode. Each stage is a loop over a chunk that the compiler vectorises; for
// the square root and the selects it needs -fno-math-errno and -fno-trapping-math, which change no result (3x faster).
#include "backend/cpu/adamw.h"

#include <algorithm>

#include "backend/cpu/simd.h"
#include "core/adamw_math.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

constexpr int kChunkSize = kMomentBlock;

struct Job {
  const AdamwArgs& args;
  AdamwFactors factors;
  std::uint64_t rounding_key;
};

// Elements [begin, begin + count) of the arguments; `lane` is the place of the first one in its aligned chunk.
struct Chunk {
  std::int64_t begin;
  int count;
  int lane;
};

// random[i]: number (first + i) % 8 of the rounding_words of element `first + i`; first is a multiple of 256.
LLMFP8_INLINE void draw(const Job& job, std::uint64_t first, std::uint16_t* __restrict random) {
  constexpr int kCalls = kChunkSize / 8;
  std::uint32_t c0[kCalls], c1[kCalls], c2[kCalls], c3[kCalls];
  // first / 8 is a multiple of 32, so the low word of the counter does not carry.
  for (int i = 0; i < kCalls; ++i) {
    c0[i] = static_cast<std::uint32_t>(first / 8) + static_cast<std::uint32_t>(i);
    c1[i] = static_cast<std::uint32_t>(first / 8 >> 32);
    c2[i] = 0;
    c3[i] = job.args.param_index;
  }
  // philox4x32 of core/rng.h, 32 calls side by side.
  std::uint32_t k0 = static_cast<std::uint32_t>(job.rounding_key);
  std::uint32_t k1 = static_cast<std::uint32_t>(job.rounding_key >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < kCalls; ++i) {
      const std::uint64_t p0 = static_cast<std::uint64_t>(0xD2511F53u) * c0[i];
      const std::uint64_t p1 = static_cast<std::uint64_t>(0xCD9E8D57u) * c2[i];
      c0[i] = static_cast<std::uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<std::uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<std::uint32_t>(p1);
      c3[i] = static_cast<std::uint32_t>(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  // Little endian: the low half of a word lies first, which is the order of rounding_bits.
  static_assert(std::endian::native == std::endian::little);
  std::uint32_t words[4 * kCalls];
  for (int i = 0; i < kCalls; ++i) {
    words[4 * i + 0] = c0[i];
    words[4 * i + 1] = c1[i];
    words[4 * i + 2] = c2[i];
    words[4 * i + 3] = c3[i];
  }
  std::memcpy(random, words, sizeof words);
}

// bits[i]: rounding_bits of element `first + i`, from what draw() made of it.
LLMFP8_INLINE void take_bits(const std::uint16_t* __restrict random, RoundingStream stream, std::uint16_t* __restrict bits) {
  for (int group = 0; group < kChunkSize; group += 8)
    for (int i = 0; i < 8; ++i) bits[group + i] = random[group + (i + static_cast<int>(stream)) % 8];
}

LLMFP8_INLINE void encode_bf16_stochastic(const float* __restrict from, const std::uint16_t* __restrict random,
                                          int count, bf16* __restrict to) {
  for (int i = 0; i < count; ++i) to[i] = to_bf16_stochastic(from[i], random[i]);
}

LLMFP8_INLINE void join(const std::uint16_t* __restrict hi, const std::uint16_t* __restrict lo, int count,
                        float* __restrict to) {
  for (int i = 0; i < count; ++i) to[i] = join_master(SplitFloat{hi[i], lo[i]});
}

LLMFP8_INLINE void split(const float* __restrict from, int count, std::uint16_t* __restrict hi,
                         std::uint16_t* __restrict lo) {
  for (int i = 0; i < count; ++i) {
    const SplitFloat both = split_master(from[i]);
    hi[i] = both.hi;
    lo[i] = both.lo;
  }
}

// Largest magnitude that is not NaN. Patterns of magnitudes order like integers, and maxima of signed ones vectorise.
LLMFP8_INLINE float largest(const float* __restrict x, int count) {
  std::int32_t max = 0;
  for (int i = 0; i < count; ++i) {
    const std::int32_t bits = std::bit_cast<std::int32_t>(x[i]) & 0x7FFFFFFF;
    const std::int32_t number = bits > 0x7F800000 ? 0 : bits;
    max = number > max ? number : max;
  }
  return std::bit_cast<float>(max);
}

LLMFP8_INLINE void update(const AdamwFactors& factors, const float* __restrict grad, int count, float* __restrict param,
                          float* __restrict m, float* __restrict v) {
  const AdamwFactors f = factors;
  for (int i = 0; i < count; ++i) adamw_element(f, grad[i], param[i], m[i], v[i]);
}

// One moment (m or v) of a chunk as fp32: in place, or decoded into `room`.
LLMFP8_INLINE float* load_moment(const Tensor& moment, const Tensor& scale, bool is_v, Chunk chunk, float* room) {
  if (moment.dtype == DType::f32) return moment.as<float>() + chunk.begin;
  if (moment.dtype == DType::bf16) {
    load(moment.as<bf16>() + chunk.begin, room, chunk.count);
    return room;
  }
  const std::uint8_t* __restrict codes = moment.as<std::uint8_t>() + chunk.begin;
  const float block_scale = scale.as<float>()[chunk.begin / kMomentBlock];
  if (is_v) {
    for (int i = 0; i < chunk.count; ++i) room[i] = decode_v8(codes[i], block_scale);
  } else {
    for (int i = 0; i < chunk.count; ++i) room[i] = decode_m8(codes[i], block_scale);
  }
  return room;
}

LLMFP8_INLINE void store_moment(const Job& job, bool is_v, Chunk chunk, const float* __restrict values,
                                const std::uint16_t* __restrict random) {
  const Tensor& moment = is_v ? job.args.v : job.args.m;
  if (moment.dtype == DType::f32) return;
  if (moment.dtype == DType::bf16 && !job.args.stochastic_rounding) {
    store(values, moment.as<bf16>() + chunk.begin, chunk.count);
    return;
  }
  alignas(64) std::uint16_t chosen[kChunkSize];
  take_bits(random, is_v ? RoundingStream::v : RoundingStream::m, chosen);
  const std::uint16_t* __restrict bits = chosen + chunk.lane;
  if (moment.dtype == DType::bf16) {
    encode_bf16_stochastic(values, bits, chunk.count, moment.as<bf16>() + chunk.begin);
    return;
  }
  const MomentScale scale = moment_scale(largest(values, chunk.count), is_v ? kVCodeMax : kMCodeMax);
  (is_v ? job.args.v_scale : job.args.m_scale).as<float>()[chunk.begin / kMomentBlock] = scale.scale;
  std::uint8_t* __restrict codes = moment.as<std::uint8_t>() + chunk.begin;
  if (is_v) {
    for (int i = 0; i < chunk.count; ++i) codes[i] = encode_v8(values[i], scale.inverse, bits[i]);
  } else {
    for (int i = 0; i < chunk.count; ++i) codes[i] = encode_m8(values[i], scale.inverse, bits[i]);
  }
}

LLMFP8_INLINE float* load_param(const AdamwArgs& args, Chunk chunk, float* room) {
  if (args.param.dtype == DType::f32) return args.param.as<float>() + chunk.begin;
  if (args.remainder.defined()) {
    join(args.param.as<std::uint16_t>() + chunk.begin, args.remainder.as<std::uint16_t>() + chunk.begin, chunk.count,
         room);
  } else {
    load(args.param.as<bf16>() + chunk.begin, room, chunk.count);
  }
  return room;
}

LLMFP8_INLINE void store_param(const Job& job, Chunk chunk, const float* values, const std::uint16_t* random) {
  const AdamwArgs& args = job.args;
  if (args.param.dtype == DType::f32) return;
  if (args.remainder.defined()) {
    split(values, chunk.count, args.param.as<std::uint16_t>() + chunk.begin,
          args.remainder.as<std::uint16_t>() + chunk.begin);
  } else if (args.stochastic_rounding) {
    // RoundingStream::param takes the numbers in their places.
    encode_bf16_stochastic(values, random + chunk.lane, chunk.count, args.param.as<bf16>() + chunk.begin);
  } else {
    store(values, args.param.as<bf16>() + chunk.begin, chunk.count);
  }
}

// Chunks [first, last) of the parameter's aligned grid, cut to the elements that the arguments hold.
LLMFP8_CLONES void update_chunks(const Job& job, std::int64_t first, std::int64_t last) {
  alignas(64) float param_room[kChunkSize], grad_room[kChunkSize], m_room[kChunkSize], v_room[kChunkSize];
  alignas(64) std::uint16_t random[kChunkSize];
  const AdamwArgs& args = job.args;
  const std::int64_t n = args.param.numel();
  const std::int64_t lead = static_cast<std::int64_t>(args.element_offset % kChunkSize);
  const bool rounds_param = args.param.dtype == DType::bf16 && !args.remainder.defined();
  const bool draws = args.m.dtype == DType::u8 || (args.stochastic_rounding && (rounds_param || args.m.dtype == DType::bf16));
  for (std::int64_t index = first; index < last; ++index) {
    const std::int64_t begin = std::max<std::int64_t>(0, index * kChunkSize - lead);
    const std::int64_t end = std::min(n, (index + 1) * kChunkSize - lead);
    const Chunk chunk{begin, static_cast<int>(end - begin), static_cast<int>(begin + lead - index * kChunkSize)};

    const float* grad = grad_room;
    if (args.grad.dtype == DType::f32) {
      grad = args.grad.as<float>() + begin;
    } else {
      load(args.grad.as<bf16>() + begin, grad_room, chunk.count);
    }
    float* param = load_param(args, chunk, param_room);
    float* m = load_moment(args.m, args.m_scale, false, chunk, m_room);
    float* v = load_moment(args.v, args.v_scale, true, chunk, v_room);
    update(job.factors, grad, chunk.count, param, m, v);
    if (draws) draw(job, args.element_offset + static_cast<std::uint64_t>(begin - chunk.lane), random);
    store_param(job, chunk, param, random);
    store_moment(job, false, chunk, m, random);
    store_moment(job, true, chunk, v, random);
  }
}

}  // namespace

void adamw(const AdamwArgs& args) {
  const StepScalars& scalars = *args.scalars;
  if (scalars.step_ok == 0) return;
  CHECK(args.m.dtype != DType::u8 || args.element_offset % kMomentBlock == 0,
        "adamw: a piece with 8-bit state begins at element {}, a multiple of {} wanted", args.element_offset,
        kMomentBlock);
  const Job job{args, adamw_factors(AdamwHyper{args.beta1, args.beta2, args.eps, args.weight_decay}, scalars),
                scalars.rounding_key};
  const std::int64_t lead = static_cast<std::int64_t>(args.element_offset % kChunkSize);
  const std::int64_t chunks = (args.param.numel() + lead + kChunkSize - 1) / kChunkSize;
  if (args.param.numel() == 0) return;
  constexpr std::int64_t kGrainChunks = 64;  // below 16384 elements a second thread costs more than it brings
  parallel_for(chunks, kGrainChunks, [&](std::int64_t first, std::int64_t last) { update_chunks(job, first, last); });
}

}  // namespace llmfp8::cpu
