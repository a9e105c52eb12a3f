// A small single-thread fp32 matrix product on packed operands, register-tiled for each instruction set. Attention is
// made of it, and so is the portable matmul.
#pragma once

#include <cstdint>

namespace llmfp8::cpu {

inline constexpr std::int64_t kMiniColumns = 16;  // n is a multiple of it

constexpr std::int64_t pad_columns(std::int64_t n) { return (n + kMiniColumns - 1) / kMiniColumns * kMiniColumns; }

// c [m, n] (+)= a [m, k] · b [k, n]. Element (i, j) of a is a[i * a_row + j * a_col]: a transposed a costs nothing.
// Every element of c is a sum over k in ascending order, whatever the instruction set.
struct MiniGemm {
  std::int64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;
  std::int64_t a_row = 0, a_col = 1;
  const float* b = nullptr;
  std::int64_t ldb = 0;
  float* c = nullptr;
  std::int64_t ldc = 0;
  bool accumulate = false;
};

void mini_gemm(const MiniGemm& call);

}  // namespace llmfp8::cpu
