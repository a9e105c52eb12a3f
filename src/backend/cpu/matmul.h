// What multiplies matrices on the CPU: oneDNN where its module can be opened, else our own loops. Used by gemm.cpp, which
// knows quantisation, bias and counts; an engine knows plain matrices only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/dtype.h"

namespace llmfp8::cpu {

// c [m, n] (+)= a [m, k] · b [k, n], accumulated in fp32 and rounded once. A transposed operand is stored as [k, m] or [n, k].
struct Matmul {
  std::int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  std::int64_t lda = 0;  // elements from one stored row to the next
  bool a_transposed = false;
  const void* b = nullptr;
  std::int64_t ldb = 0;
  bool b_transposed = false;
  void* c = nullptr;
  std::int64_t ldc = 0;
  bool accumulate = false;  // c f32 only
  DType in = DType::f32;    // of a and b: f32 | bf16
  DType out = DType::f32;   // of c: f32, or bf16 where in is bf16
};

class MatmulEngine {
 public:
  virtual ~MatmulEngine() = default;
  virtual std::string describe() const = 0;
  // The type that operands are best given in: bf16 where that is native and fast, else f32. f32 is always taken.
  virtual DType image_dtype() const = 0;
  virtual void run(const Matmul& call) const = 0;
};

std::unique_ptr<MatmulEngine> create_portable_matmul();
// nullptr where the module or the library is missing, with the reason. images: bf16 or f32, as image_dtype() tells.
std::unique_ptr<MatmulEngine> create_onednn_matmul(DType images, std::string* why_not);

// The engine of this process, chosen on first use: oneDNN, in bf16 where that is native or (timed once)
// faster than f32, else portable.
// LLMFP8_CPU_MATMUL=bf16|f32|portable forces one.
const MatmulEngine& matmul_engine();

}  // namespace llmfp8::cpu
