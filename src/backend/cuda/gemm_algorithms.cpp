#include "backend/cuda/gemm_algorithms.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <vector>

#include "core/log.h"
#include "core/user_cache.h"

namespace llmfp8::cuda {
namespace {

namespace fs = std::filesystem;

constexpr int kCandidates = 16;
constexpr int kRepeats = 5;
constexpr std::size_t kFlushBytes = std::size_t{256} << 20;  // several times the L2: operands are cold in a step too
constexpr std::size_t kMaxFileEntries = 100000;
constexpr std::size_t kMaxLine = 1024;

std::string file_name(const std::string& machine) {
  std::string name = "gemm " + machine + ".txt";
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '-') c = '_';
  }
  return name;
}

std::vector<cublasLtMatmulHeuristicResult_t> candidates(cublasLtHandle_t lt, const GemmProblem& problem,
                                                        const GemmPlan& plan, std::size_t workspace_bytes) {
  const MatmulPreferenceHandle preference = make_preference();
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_bytes));
  // Partial sums stay in fp32, in the workspace: the result is rounded once, and in the same order every time.
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                         CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(preference, attribute, problem.alignment);
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(kCandidates);
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(lt, plan.desc.get(), plan.left.get(), plan.right.get(), plan.addend.get(),
                                     plan.out.get(), preference.get(), kCandidates, results.data(), &found);
  CHECK(status == CUBLAS_STATUS_SUCCESS && found > 0, "cuBLASLt has no algorithm for the product {}: {}",
        to_string(problem), cublasLtGetStatusString(status));
  results.resize(static_cast<std::size_t>(found));
  std::erase_if(results, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
  CHECK(!results.empty(), "cuBLASLt has no usable algorithm for the product {}", to_string(problem));
  return results;
}

bool capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  LLMFP8_CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
  return status != cudaStreamCaptureStatusNone;
}

// nullopt: no memory free. Timing is no reason to fail a run that fits.
std::optional<DeviceMemory> try_allocate(std::size_t bytes) {
  void* raw = nullptr;
  if (cudaMalloc(&raw, bytes) != cudaSuccess) {
    cudaGetLastError();
    return std::nullopt;
  }
  return DeviceMemory(raw);
}

// Times algorithms of one product, each time with cold caches.
class Stopwatch {
 public:
  Stopwatch(const GemmOperands& operands, DeviceMemory out, DeviceMemory flush)
      : operands_(operands), out_(std::move(out)), flush_(std::move(flush)) {
    operands_.out = out_.get();  // the caller's out must not be added to again and again
  }

  // Milliseconds, the least of several runs; nullopt: cuBLASLt refuses to run it.
  std::optional<float> measure(cublasLtHandle_t lt, const GemmPlan& plan, const cublasLtMatmulAlgo_t& algorithm,
                               const GemmWorkspace& workspace, cudaStream_t stream) const {
    float best = std::numeric_limits<float>::max();
    for (int i = 0; i < kRepeats + 1; ++i) {  // the first loads the kernel
      LLMFP8_CUDA_CHECK(cudaMemsetAsync(flush_.get(), i, kFlushBytes, stream));
      LLMFP8_CUDA_CHECK(cudaEventRecord(start_.get(), stream));
      if (launch(lt, plan, algorithm, operands_, workspace, stream) != CUBLAS_STATUS_SUCCESS) return std::nullopt;
      LLMFP8_CUDA_CHECK(cudaEventRecord(stop_.get(), stream));
      LLMFP8_CUDA_CHECK(cudaEventSynchronize(stop_.get()));
      float milliseconds = 0.0f;
      LLMFP8_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start_.get(), stop_.get()));
      if (i > 0) best = std::min(best, milliseconds);
    }
    return best;
  }

 private:
  GemmOperands operands_;
  DeviceMemory out_, flush_;
  EventHandle start_ = make_event(EventKind::timed), stop_ = make_event(EventKind::timed);
};

}  // namespace

GemmAlgorithms::GemmAlgorithms(const std::string& machine, AlgorithmChoice choice) : machine_(machine) {
  const char* tune = std::getenv("LLMFP8_CUDA_TUNE");
  timing_ = choice == AlgorithmChoice::timed && (tune == nullptr || std::strcmp(tune, "0") != 0);
  if (!timing_) return;
  const fs::path folder = user_cache_folder();
  if (folder.empty()) return;
  file_ = folder / file_name(machine);
  read_file();
}

void GemmAlgorithms::choose(cublasLtHandle_t lt, const GemmProblem& problem, const GemmOperands& operands,
                            const GemmWorkspace& workspace, cudaStream_t stream, GemmPlan& plan) {
  const std::string key = timing_ ? to_string(problem) : std::string();
  if (const auto known = known_.find(key); known != known_.end()) {
    cublasLtMatmulAlgo_t algorithm{};
    static_assert(sizeof algorithm == sizeof known->second);
    std::memcpy(&algorithm, known->second.data(), sizeof algorithm);
    cublasLtMatmulHeuristicResult_t result{};
    const cublasStatus_t status = cublasLtMatmulAlgoCheck(lt, plan.desc.get(), plan.left.get(), plan.right.get(),
                                                          plan.addend.get(), plan.out.get(), &algorithm, &result);
    if (status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= workspace.bytes) {
      plan.algorithm = algorithm;
      plan.final = true;
      return;
    }
  }
  const auto results = candidates(lt, problem, plan, workspace.bytes);
  plan.algorithm = results.front().algo;
  plan.final = !timing_;
  if (!timing_ || capturing(stream)) return;

  plan.final = true;
  const std::size_t out_bytes =
      static_cast<std::size_t>((problem.n - 1) * problem.ld_out + problem.m) * size_bytes(problem.out);
  std::optional<DeviceMemory> out = try_allocate(out_bytes), flush = try_allocate(kFlushBytes);
  if (!out || !flush) {
    log::warning("no GPU memory is left to time the product {}: cuBLASLt's first choice is taken", key);
    return;
  }
  const Stopwatch stopwatch(operands, std::move(*out), std::move(*flush));
  float best = std::numeric_limits<float>::max();
  for (const auto& result : results) {
    const std::optional<float> time = stopwatch.measure(lt, plan, result.algo, workspace, stream);
    if (!time || *time >= best) continue;
    best = *time;
    plan.algorithm = result.algo;
  }
  Words words{};
  std::memcpy(words.data(), &plan.algorithm, sizeof words);
  known_[key] = words;
  write_file();
}

// First line: the machine. Then one line each: the problem, and eight hexadecimal words of the algorithm. Lines of
// another form are passed over, and cuBLASLt checks what is read before it runs.
void GemmAlgorithms::read_file() {
  std::ifstream in(file_);
  std::string line;
  if (!std::getline(in, line) || line != machine_) return;
  while (known_.size() < kMaxFileEntries && std::getline(in, line)) {
    if (line.size() > kMaxLine) continue;
    std::istringstream fields(line);
    std::string key;
    Words words{};
    fields >> key >> std::hex;
    for (std::uint64_t& word : words) fields >> word;
    if (fields) known_[key] = words;
  }
}

void GemmAlgorithms::write_file() const {
  if (file_.empty()) return;
  std::error_code error;
  fs::create_directories(file_.parent_path(), error);
  // Written beside and renamed: several ranks may write at once, and a reader never sees half a file.
  fs::path temporary = file_;
  temporary += fmt::format(".{}", getpid());
  {
    std::ofstream out(temporary);
    out << machine_ << "\n";
    for (const auto& [key, words] : known_) {
      out << key;
      for (std::uint64_t word : words) out << fmt::format(" {:x}", word);
      out << "\n";
    }
    if (!out.flush()) error = std::make_error_code(std::errc::io_error);
  }
  if (!error) fs::rename(temporary, file_, error);
  if (error) {
    log::warning("cannot write {}: {}; the timed algorithms are not kept", file_.string(), error.message());
    fs::remove(temporary, error);
  }
}

}  // namespace llmfp8::cuda
