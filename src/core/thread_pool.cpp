#include "core/thread_pool.h"

#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

namespace llmfp8 {
namespace {

int default_threads() {
  if (const char* text = std::getenv("LLMFP8_NUM_THREADS"); text != nullptr && std::atoi(text) > 0) return std::atoi(text);
  // torchrun sets OMP_NUM_THREADS=1 in every rank when the user did not: that would idle the machine.
  const bool under_torchrun = std::getenv("TORCHELASTIC_RUN_ID") != nullptr;
  const char* omp = std::getenv("OMP_NUM_THREADS");
  if (omp != nullptr && std::atoi(omp) > 0 && !(under_torchrun && std::string(omp) == "1")) return std::atoi(omp);
  const int cores = std::max(1, omp_get_num_procs());
  const char* local = std::getenv("LOCAL_WORLD_SIZE");
  return under_torchrun && local != nullptr ? std::max(1, cores / std::max(1, std::atoi(local))) : cores;
}

int& thread_count() {
  static int count = [] {
    const int n = default_threads();
    omp_set_num_threads(n);
    return n;
  }();
  return count;
}

}  // namespace

int num_threads() { return thread_count(); }

void set_num_threads(int n) {
  thread_count() = std::max(1, n);
  omp_set_num_threads(thread_count());
}

void parallel_for(std::int64_t count, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body) {
  if (count <= 0) return;
  const std::int64_t pieces = std::min<std::int64_t>(num_threads(), count / std::max<std::int64_t>(1, grain));
  if (pieces <= 1 || omp_in_parallel()) {
    body(0, count);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for schedule(static, 1) num_threads(static_cast<int>(pieces))
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    try {
      body(count * piece / pieces, count * (piece + 1) / pieces);
    } catch (...) {
#pragma omp critical
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace llmfp8
