// The matrix product of a machine without oneDNN: blocks packed to fp32, then mini_gemm. The result does not depend on the
// number of threads. Used through matmul.h.
#include <vector>

#include "backend/cpu/matmul.h"
#include "backend/cpu/mini_gemm.h"
#include "backend/cpu/simd.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

constexpr std::int64_t kRows = 128, kColumns = 256, kDepth = 256;  // of a block of c, and of k at a time

template <typename T>
LLMFP8_CLONES void pack_rows(const T* from, std::int64_t ld, std::int64_t rows, std::int64_t cols, float* to,
                             std::int64_t to_ld) {
  for (std::int64_t r = 0; r < rows; ++r) {
    load(from + r * ld, to + r * to_ld, cols);
    std::fill(to + r * to_ld + cols, to + (r + 1) * to_ld, 0.0f);
  }
}

// from is stored [cols, rows].
template <typename T>
LLMFP8_CLONES void pack_transposed(const T* from, std::int64_t ld, std::int64_t rows, std::int64_t cols, float* to,
                                   std::int64_t to_ld) {
  for (std::int64_t c = 0; c < cols; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) to[r * to_ld + c] = as_float(from[c * ld + r]);
  }
  for (std::int64_t r = 0; r < rows; ++r) std::fill(to + r * to_ld + cols, to + (r + 1) * to_ld, 0.0f);
}

struct Buffers {
  std::vector<float> a = std::vector<float>(kRows * kDepth), b = std::vector<float>(kDepth * kColumns),
                     c = std::vector<float>(kRows * kColumns);
};

template <typename In, typename Out>
void block(const Matmul& call, std::int64_t row, std::int64_t col, Buffers& buffers) {
  const std::int64_t rows = std::min(kRows, call.m - row), cols = std::min(kColumns, call.n - col),
                     padded = pad_columns(cols);
  const In* a = static_cast<const In*>(call.a);
  const In* b = static_cast<const In*>(call.b);
  Out* c = static_cast<Out*>(call.c) + row * call.ldc + col;
  float* sums = buffers.c.data();
  for (std::int64_t k = 0; k < call.k; k += kDepth) {
    const std::int64_t depth = std::min(kDepth, call.k - k);
    if (call.a_transposed) {
      pack_transposed(a + k * call.lda + row, call.lda, rows, depth, buffers.a.data(), kDepth);
    } else {
      pack_rows(a + row * call.lda + k, call.lda, rows, depth, buffers.a.data(), kDepth);
    }
    if (call.b_transposed) {
      pack_transposed(b + col * call.ldb + k, call.ldb, depth, cols, buffers.b.data(), padded);
    } else {
      pack_rows(b + k * call.ldb + col, call.ldb, depth, cols, buffers.b.data(), padded);
    }
    mini_gemm({rows, padded, depth, buffers.a.data(), kDepth, 1, buffers.b.data(), padded, sums, padded, k > 0});
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < cols; ++i) {
      const float sum = call.k > 0 ? sums[r * padded + i] : 0.0f;
      Out& out = c[r * call.ldc + i];
      out = from_float<Out>(call.accumulate ? as_float(out) + sum : sum);
    }
  }
}

class PortableMatmul : public MatmulEngine {
 public:
  std::string describe() const override { return "own loops, f32 (oneDNN is not there)"; }
  DType image_dtype() const override { return DType::f32; }

  void run(const Matmul& call) const override {
    const std::int64_t down = (call.m + kRows - 1) / kRows, across = (call.n + kColumns - 1) / kColumns;
    with_activation(call.in, [&](auto in) {
      with_activation(call.out, [&](auto out) {
        parallel_for(down * across, 1, [&](std::int64_t begin, std::int64_t end) {
          Buffers buffers;
          for (std::int64_t i = begin; i < end; ++i) {
            block<decltype(in), decltype(out)>(call, i / across * kRows, i % across * kColumns, buffers);
          }
        });
      });
    });
  }
};

}  // namespace

std::unique_ptr<MatmulEngine> create_portable_matmul() { return std::make_unique<PortableMatmul>(); }

}  // namespace llmfp8::cpu
