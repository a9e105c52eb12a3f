// What the kernels of this folder share: activation types, 16-byte loads and stores, reductions over warps and blocks,
// FP8 encoding, and the dispatch from dtypes to templates. Included by the .cu files of this folder only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "backend/cuda/check.h"
#include "core/bf16.h"
#include "core/float8.h"
#include "core/fp8_scaling.h"
#include "core/tensor.h"

namespace llmfp8::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// ---- a matrix as kernels take it. rows, cols: elements; stride: elements between rows

template <typename T>
struct Matrix {
  T* data;
  std::int64_t rows, cols, stride;

  __device__ T* row(std::int64_t r) const { return data + r * stride; }
};

template <typename T>
Matrix<T> matrix(const Tensor& t) {
  return Matrix<T>{static_cast<T*>(t.data), t.rows(), t.cols(), t.row_stride};
}

inline const std::int32_t* count_of(const Tensor& t) { return t.defined() ? t.as<const std::int32_t>() : nullptr; }

// How many of `rows` rows that begin at row_offset lie below *count; all of them without a count. count: i32 [1]
__device__ inline std::int64_t live_rows(const std::int32_t* count, std::int64_t rows, std::int64_t row_offset = 0) {
  if (count == nullptr) return rows;
  const std::int64_t live = static_cast<std::int64_t>(*count) - row_offset;
  return live < 0 ? 0 : (live < rows ? live : rows);
}

// An index from data lies outside its table. The loader has checked it, so this is a defect: stop rather than read
// someone else's memory. The host sees a launch failure at its next call.
__device__ inline void require(bool condition) {
  if (!condition) __trap();
}

// ---- conversion. bf16 rounds to nearest even; a NaN's payload is not kept

__device__ inline float as_float(float x) { return x; }
__device__ inline float as_float(bf16 x) { return __uint_as_float(static_cast<std::uint32_t>(x.bits) << 16); }

template <typename T>
__device__ inline T from_float(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    return bf16{__bfloat16_as_ushort(__float2bfloat16_rn(x))};
  }
}

// x rounded to T and back.
template <typename T>
__device__ inline float round_to(float x) {
  return as_float(from_float<T>(x));
}

__device__ inline std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return static_cast<std::uint32_t>(__bfloat16_as_ushort(both.x)) |
         (static_cast<std::uint32_t>(__bfloat16_as_ushort(both.y)) << 16);
}

// ---- vectors. N: elements; 1, or enough for whole 16-byte accesses (then the address is a multiple of 16)

template <typename T>
inline constexpr int kVector = 16 / static_cast<int>(sizeof(T));

// 16 bytes of bf16 or f32 as fp32.
__device__ inline void unpack(const uint4& raw, float (&v)[8]) {
  const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = __uint_as_float(words[i] << 16);
    v[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
  }
}
__device__ inline void unpack(const uint4& raw, float (&v)[4]) {
  v[0] = __uint_as_float(raw.x), v[1] = __uint_as_float(raw.y);
  v[2] = __uint_as_float(raw.z), v[3] = __uint_as_float(raw.w);
}

template <int N, typename T>
__device__ inline void load(const T* from, float (&v)[N]) {
  if constexpr (N == 1) {
    v[0] = as_float(*from);
  } else if constexpr (N == kVector<T>) {
    unpack(*reinterpret_cast<const uint4*>(from), v);
  } else {
    static_assert(std::is_same_v<T, float> && N % 4 == 0);
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const float4 quad = *reinterpret_cast<const float4*>(from + i);
      v[i] = quad.x, v[i + 1] = quad.y, v[i + 2] = quad.z, v[i + 3] = quad.w;
    }
  }
}

template <int N, typename T>
__device__ inline void store(const float (&v)[N], T* to) {
  if constexpr (N == 1) {
    *to = from_float<T>(v[0]);
  } else if constexpr (std::is_same_v<T, float>) {
#pragma unroll
    for (int i = 0; i < N; i += 4) *reinterpret_cast<float4*>(to + i) = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
  } else {
    static_assert(N == 8);
    *reinterpret_cast<uint4*>(to) =
        make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
  }
}

template <int N, typename T>
__device__ inline void store_zero(T* to) {
  float v[N];
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = 0.0f;
  store<N>(v, to);
}

// ---- reductions. Every lane of the warp takes part; the order is fixed

template <typename T>
__device__ inline T warp_sum(T x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

__device__ inline std::uint32_t warp_max(std::uint32_t x) { return __reduce_max_sync(kAllLanes, x); }

// Sum over the block; every thread gets it. room: T [32] of shared memory, free again after the next barrier.
// blockDim.x is a multiple of 32; every thread calls it.
template <typename T>
__device__ inline T block_sum(T x, T* room) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  x = warp_sum(x);
  if (warps == 1) return x;
  if (lane == 0) room[warp] = x;
  __syncthreads();
  x = warp_sum(lane < warps ? room[lane] : T(0));
  __syncthreads();
  return x;
}

// As block_sum, the maximum. room: u32 [32] of shared memory.
__device__ inline std::uint32_t block_max(std::uint32_t x, std::uint32_t* room) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  x = warp_max(x);
  if (warps == 1) return x;
  if (lane == 0) room[warp] = x;
  __syncthreads();
  x = warp_max(lane < warps ? room[lane] : 0u);
  __syncthreads();
  return x;
}

// ---- amax and FP8

// |x| as bits, which order like integers; NaN counts as zero.
__device__ inline std::uint32_t amax_bits(float x) {
  const std::uint32_t magnitude = __float_as_uint(x) & 0x7FFFFFFFu;
  return magnitude <= 0x7F800000u ? magnitude : 0u;
}

// slot := max(slot, bits), the slot a non-negative fp32 or NaN. A maximum does not depend on the order of the blocks.
// Most blocks find a larger value there already and spare the atomic.
__device__ inline void raise_amax(float* slot, std::uint32_t bits) {
  std::uint32_t* word = reinterpret_cast<std::uint32_t*>(slot);
  std::uint32_t seen = *reinterpret_cast<volatile std::uint32_t*>(word);
  if (seen > 0x7F800000u) {  // NaN: replaced, as amax_combine does
    atomicCAS(word, seen, bits);
  }
  if (bits > seen || seen > 0x7F800000u) atomicMax(word, bits);
}

// encode_fp8 of four values, the first in the low byte. The conversion instruction rounds to nearest even, saturates and
// makes 0x7F of a NaN, as core/float8.h does.
template <DType Format>
__device__ inline std::uint32_t encode4(float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 890
  std::uint16_t low, high;
  if constexpr (Format == DType::e4m3) {
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(b), "f"(a));
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(d), "f"(c));
  } else {
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(low) : "f"(b), "f"(a));
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(high) : "f"(d), "f"(c));
  }
  return static_cast<std::uint32_t>(low) | (static_cast<std::uint32_t>(high) << 16);
#else
  const auto encode = [](float x) -> std::uint32_t { return Format == DType::e4m3 ? encode_e4m3(x) : encode_e5m2(x); };
  return encode(a) | (encode(b) << 8) | (encode(c) << 16) | (encode(d) << 24);
#endif
}

// ---- launching

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Blocks for `work` of them in a kernel that strides over its grid.
inline unsigned grid_for(std::int64_t work, std::int64_t most = 132 * 16) {
  return static_cast<unsigned>(std::clamp<std::int64_t>(work, 1, most));
}

inline bool aligned(const void* p, std::size_t bytes) { return reinterpret_cast<std::uintptr_t>(p) % bytes == 0; }

// Rows of t can be taken 16 bytes at a time.
inline bool vector_rows(const Tensor& t) {
  const std::int64_t n = 16 / static_cast<std::int64_t>(size_bytes(t.dtype));
  return aligned(t.data, 16) && t.cols() % n == 0 && (t.row_stride % n == 0 || t.rows() <= 1);
}

// body(float()) or body(bf16()).
template <typename Body>
void with_activation(DType dtype, Body&& body) {
  CHECK(dtype == DType::f32 || dtype == DType::bf16, "activation dtype {}, wanted f32 or bf16", name(dtype));
  if (dtype == DType::f32) {
    body(float());
  } else {
    body(bf16());
  }
}

// body(integral_constant<int, kVector<A>>()) or body(integral_constant<int, 1>()).
template <typename A, typename Body>
void with_vector(bool vector, Body&& body) {
  if (vector) {
    body(std::integral_constant<int, kVector<A>>());
  } else {
    body(std::integral_constant<int, 1>());
  }
}

}  // namespace llmfp8::cuda
