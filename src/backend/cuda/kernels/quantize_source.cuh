// Where the values of a quantised matrix come from (quantize_tile.cuh): what a source promises, loads of 8 values of a row,
// and the plain one, a matrix as it lies in memory. Included by the .cu files that quantise.
//
// A source describes a matrix [rows, cols] of values that are rounded to the activation dtype already:
//   kVector: whole vectors of 8 values may be taken (16-byte aligned, cols % 8 == 0). kPair: see below. kBlocks: blocks that
//   a multiprocessor shall hold, which bounds the registers: latency is hidden by other blocks.
//   Raw: what a thread loads for 8 values of a row; `fetch(at, r)` loads it r rows behind the place `at(row, col)`,
//   `values(raw, row, col, v)` makes fp32 of it. `load1(row, col)` is one value, where kVector is not set.
// A pair source makes two columns of its matrix from the same inputs. It has cols / 2 columns of its own, and for its column
// c `first_column(c)` and first_column(c) + `distance()` of the matrix; eight of them, from a multiple of 8 on, lie side by
// side. `values(raw, row, c, first, second)`, `load_pair(row, c, first, second)`.
#pragma once

#include "backend/cuda/kernels/device.cuh"

namespace llmfp8::cuda {

// 8 stored values of a row, as loaded.
template <typename A>
struct Raw8 {
  uint4 part[sizeof(A) / 2];
};

// Data that this kernel alone reads, once: not kept in the first-level cache.
__device__ inline uint4 load_once(const void* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

template <typename A>
__device__ inline Raw8<A> fetch8(const A* from) {
  Raw8<A> raw;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(A) / 2); ++i) raw.part[i] = load_once(from + i * kVector<A>);
  return raw;
}

__device__ inline void unpack8(const Raw8<bf16>& raw, float (&v)[8]) { unpack(raw.part[0], v); }
__device__ inline void unpack8(const Raw8<float>& raw, float (&v)[8]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    v[4 * i] = __uint_as_float(raw.part[i].x), v[4 * i + 1] = __uint_as_float(raw.part[i].y);
    v[4 * i + 2] = __uint_as_float(raw.part[i].z), v[4 * i + 3] = __uint_as_float(raw.part[i].w);
  }
}

// A matrix as it lies in memory.
template <typename A, bool Vector>
struct PlainSource {
  static constexpr bool kVector = Vector, kPair = false;
  static constexpr int kBlocks = 3;
  using Raw = Raw8<A>;
  const A* data;
  std::int64_t rows, cols, stride;

  __device__ const A* at(std::int64_t row, std::int64_t col) const { return data + row * stride + col; }
  __device__ Raw fetch(const A* at, int r) const { return fetch8(at + r * stride); }
  __device__ void values(const Raw& raw, std::int64_t, std::int64_t, float (&v)[8]) const { unpack8(raw, v); }
  __device__ float load1(std::int64_t row, std::int64_t col) const { return as_float(data[row * stride + col]); }
};

// Whether rows of a matrix can be taken as vectors of 8.
inline bool vectors_of_8(const void* data, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
  return aligned(data, 16) && cols % 8 == 0 && (stride % 8 == 0 || rows <= 1);
}

}  // namespace llmfp8::cuda
