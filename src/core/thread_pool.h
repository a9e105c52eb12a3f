// Parallel loops over all cores. A pool of our own rather than OpenMP's: its threads look for work for some microseconds
// and then sleep, where OpenMP's spin for milliseconds and starve whatever else runs.
#pragma once

#include <cstdint>
#include <functional>

namespace llmfp8 {

int num_threads();             // LLMFP8_NUM_THREADS, else OMP_NUM_THREADS (unless torchrun set it to 1), else the cores available
void set_num_threads(int n);

// Calls body(begin, end) on disjoint ranges that cover [0, count); each range has at least `grain` items (or all of them).
// The cut depends on count, grain and num_threads() alone: deterministic for a fixed number of threads. The first
// exception thrown by a body is rethrown to the caller.
void parallel_for(std::int64_t count, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body);

}  // namespace llmfp8
