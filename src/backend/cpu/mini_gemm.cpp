// Compiled with -ffp-contract=fast (CMakeLists.txt): without fused multiply-add half of the machine is lost, and the sums
// here are compared with tolerances only. Tiles: as many accumulators as the registers hold.
#include "backend/cpu/mini_gemm.h"

#include <cstring>

namespace llmfp8::cpu {
namespace {

#define LLMFP8_INLINE inline __attribute__((always_inline))

// Spelt out: GCC 12 drops a vector_size that depends on a template parameter, and the type becomes float.
template <int Lanes>
struct Vector;
template <>
struct Vector<16> {
  typedef float Type __attribute__((vector_size(64)));
};
template <>
struct Vector<8> {
  typedef float Type __attribute__((vector_size(32)));
};
template <>
struct Vector<4> {
  typedef float Type __attribute__((vector_size(16)));
};

// c tile: Rows x (Columns * Lanes).
template <int Lanes, int Rows, int Columns>
LLMFP8_INLINE void tile(const MiniGemm& g, std::int64_t row, std::int64_t col) {
  using V = typename Vector<Lanes>::Type;
  static_assert(sizeof(V) == Lanes * sizeof(float));
  V sums[Rows][Columns];
  const float* a = g.a + row * g.a_row;
  const float* b = g.b + col;
  float* c = g.c + row * g.ldc + col;
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Columns; ++j) {
      if (g.accumulate) {
        std::memcpy(&sums[i][j], c + i * g.ldc + j * Lanes, sizeof(V));
      } else {
        sums[i][j] = V{};
      }
    }
  }
  const std::int64_t a_row = g.a_row, a_col = g.a_col, ldb = g.ldb;
  for (std::int64_t k = g.k; k > 0; --k) {
    V right[Columns];
    for (int j = 0; j < Columns; ++j) std::memcpy(&right[j], b + j * Lanes, sizeof(V));
    for (int i = 0; i < Rows; ++i) {
      for (int j = 0; j < Columns; ++j) sums[i][j] += a[i * a_row] * right[j];
    }
    a += a_col;
    b += ldb;
  }
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Columns; ++j) std::memcpy(c + i * g.ldc + j * Lanes, &sums[i][j], sizeof(V));
  }
}

template <int Lanes, int Rows, int Columns>
LLMFP8_INLINE void strip(const MiniGemm& g, std::int64_t col) {
  std::int64_t row = 0;
  for (; row + Rows <= g.m; row += Rows) tile<Lanes, Rows, Columns>(g, row, col);
  for (; row < g.m; ++row) tile<Lanes, 1, Columns>(g, row, col);
}

template <int Lanes, int Rows, int Columns>
LLMFP8_INLINE void all(const MiniGemm& g) {
  std::int64_t col = 0;
  for (; col + Lanes * Columns <= g.n; col += Lanes * Columns) strip<Lanes, Rows, Columns>(g, col);
  for (; col < g.n; col += Lanes) strip<Lanes, Rows, 1>(g, col);
}

using Kernel = void (*)(const MiniGemm&);

#if defined(__x86_64__)
__attribute__((target("arch=x86-64-v4"))) void kernel_v4(const MiniGemm& g) { all<16, 8, 2>(g); }
__attribute__((target("arch=x86-64-v3"))) void kernel_v3(const MiniGemm& g) { all<8, 4, 2>(g); }
#endif
void kernel_any(const MiniGemm& g) { all<4, 4, 2>(g); }

Kernel choose() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq")) {
    return kernel_v4;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kernel_v3;
#endif
  return kernel_any;
}

}  // namespace

void mini_gemm(const MiniGemm& call) {
  static const Kernel kernel = choose();
  kernel(call);
}

}  // namespace llmfp8::cpu
