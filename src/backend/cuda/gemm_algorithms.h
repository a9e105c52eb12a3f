// Which of cuBLASLt's algorithms runs a product: the heuristic's first, or the fastest of its candidates by timing, kept
// in a file of the user's cache folder. Called by gemm.cpp.
//
// Environment: LLMFP8_CUDA_TUNE=0 takes the heuristic's first choice always; LLMFP8_CACHE_DIR is where the file lies (else XDG_CACHE_HOME or
// ~/.cache, in llm-fp8). The file belongs to one GPU model, driver and library version: name and first line say which.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "backend/cuda/gemm_problem.h"

namespace llmfp8::cuda {

// timed: each product's candidates are timed when it first runs. first: cuBLASLt's first choice, the same in every run.
enum class AlgorithmChoice : std::uint8_t { timed, first };

class GemmAlgorithms {
 public:
  // machine: one line that names GPU, driver and library.
  GemmAlgorithms(const std::string& machine, AlgorithmChoice choice);

  // Sets plan.algorithm and plan.final. Timing uses the operands given and an output of its own, and waits
  // for the device; while the stream is capturing the heuristic's first choice is taken and final stays false.
  void choose(cublasLtHandle_t lt, const GemmProblem& problem, const GemmOperands& operands,
              const GemmWorkspace& workspace, cudaStream_t stream, GemmPlan& plan);

 private:
  using Words = std::array<std::uint64_t, 8>;  // cublasLtMatmulAlgo_t

  void read_file();
  void write_file() const;  // a failure is a warning: the run goes on

  bool timing_ = false;
  std::string machine_;
  std::filesystem::path file_;          // empty: no folder to keep it in
  std::map<std::string, Words> known_;  // by to_string(problem)
};

}  // namespace llmfp8::cuda
