// Matrix products through cuBLASLt: the three passes in f32, bf16, per-tensor FP8 and MXFP8. Called by CudaOps.
//
// FP8 reads the same forms everywhere: fprop a.rowwise and b.rowwise, dgrad a.rowwise and b.columnwise, wgrad
// a.columnwise and b.columnwise. Per-tensor FP8 runs with both operands K-major (TN), the one layout that compute
// capability 8.9, 9.0 and 12.x multiply; its columnwise codes are the transpose. Those of MXFP8 are not transposed, so
// its dgrad is NN and its wgrad NT, which 10.x multiplies; it is refused elsewhere, and Capabilities says so.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <string>

#include "backend/cuda/gemm_algorithms.h"
#include "backend/cuda/gemm_problem.h"

namespace llmfp8::cuda {

inline constexpr std::size_t kGemmWorkspaceBytes = std::size_t{64} << 20;

// From shapes and dtypes alone.
std::size_t gemm_scratch_bytes(const GemmArgs& args);

// The cuBLASLt handle and a plan for each shape seen. One per backend; calls may come from several threads.
class GemmEngine {
 public:
  // machine: names GPU, driver and library; algorithms found on another are not used.
  GemmEngine(const std::string& machine, AlgorithmChoice choice);

  // scratch: gemm_scratch_bytes(args), 256-byte aligned. The first call of a shape builds its plan and, where
  // algorithms are timed (LLMFP8_CUDA_TUNE=1) and the stream is not capturing, waits for the device.
  void gemm(const GemmArgs& args, const GemmWorkspace& workspace, void* scratch, cudaStream_t stream);

 private:
  void multiply(const GemmProblem& problem, const GemmOperands& operands, const GemmWorkspace& workspace,
                cudaStream_t stream);

  LtHandle lt_;
  DeviceMemory one_;  // GemmPlan::device_one
  std::mutex mutex_;  // plans_ and the descriptors in it
  std::map<GemmProblem, GemmPlan> plans_;
  GemmAlgorithms algorithms_;
};

}  // namespace llmfp8::cuda
