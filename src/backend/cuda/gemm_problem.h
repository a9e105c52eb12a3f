// One product as cuBLASLt sees it, and the objects that describe it. Shared by gemm.cpp (makes them) and
// gemm_algorithms.cpp (chooses how it runs).
//
// Column-major: out [m, n] = op(left) · op(right). A row-major matrix is the transpose of a column-major one, so our
// out = a · b runs as out^T = b^T · a^T: left is b, right is a, m is the number of columns of out.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

#include "backend/cuda/handles.h"
#include "backend/op_args.h"

namespace llmfp8::cuda {

// Everything that an algorithm depends on: the key of the plans.
struct GemmProblem {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t ld_left = 0, ld_right = 0, ld_addend = 0, ld_out = 0;  // elements
  DType left = DType::bf16, right = DType::bf16, out = DType::bf16;   // addend is like out
  bool transpose_left = false, transpose_right = false;
  bool addend = false;
  bool sums_in_place = false;  // the addend is out, and bf16: see GemmPlan::device_one
  bool bias = false;  // of out's dtype
  bool mx = false;    // MXFP8: a scale per 32 elements of the contraction, in tiles of 128 x 4
  Accumulation accumulation = Accumulation::precise;
  // Largest power of two up to 256 that divides every address.
  std::uint32_t alignment = 256;

  auto operator<=>(const GemmProblem&) const = default;
};

struct GemmOperands {
  const void* left = nullptr;
  const void* right = nullptr;
  const void* bias = nullptr;
  const void* addend = nullptr;  // may be out
  void* out = nullptr;
  const void* left_scale_inv = nullptr;  // device; FP8 only: one f32, or e8m0 of MXFP8
  const void* right_scale_inv = nullptr;
};

struct GemmPlan {
  MatmulDescHandle desc;
  MatrixLayoutHandle left, right, addend, out;
  // With sums_in_place: 1.0f in device memory, read as alpha and beta; else null, and both are host values. Where cuBLASLt
  // sees on the host that beta is 1 and the addend is out, Hopper's kernels round the product to bf16 and let the memory
  // add it: two roundings in place of one (29 % of random sums came out otherwise than rounded once).
  const float* device_one = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool final = false;  // algorithm is set and will not be improved: timed, read from disk, or timing is off
};

// Device memory that a product may use while it runs. One per stream.
struct GemmWorkspace {
  void* data = nullptr;
  std::size_t bytes = 0;
};

// A name for messages and for the file of algorithms; without blanks.
std::string to_string(const GemmProblem& problem);

// Runs the plan's product with `algorithm` on the stream.
cublasStatus_t launch(cublasLtHandle_t lt, const GemmPlan& plan, const cublasLtMatmulAlgo_t& algorithm,
                      const GemmOperands& operands, const GemmWorkspace& workspace, cudaStream_t stream);

}  // namespace llmfp8::cuda
