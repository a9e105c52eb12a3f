// What the benchmarks share: clocks, memory, the machine's state, measurements in a process of their own, and a CPU
// backend that says where its time went. Used by the programs of this folder only.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "backend/cpu/matmul.h"

namespace llmfp8::bench {

using Json = nlohmann::ordered_json;

// Seconds of wall time, or of this process's processor time once use_processor_time() was called: on a busy machine that
// is what a single thread needs, whatever else runs.
double now();
void use_processor_time();

// Seconds of the fastest call: other programs only ever make a call slower. At least 3 calls, more until `least` seconds.
double best_seconds(const std::function<void()>& call, double least = 0.2);

// Flags that tools/bench.sh passes to every program.
struct CommonFlags {
  std::string model;         // a folder in HF layout or a .gguf file
  std::vector<int> threads;  // core counts to measure
  bool cpu_time = false;     // processor time of one core
  bool json = false;         // one JSON document on standard output instead of tables
};

int available_cores();
double load_average();            // of the last minute
std::size_t peak_memory_bytes();  // of this process
Json machine();                   // processor, cores, load average

// What body returns, run in a child process: with fresh thread teams and caches, and a peak memory of its own. Must be
// called before this process has started threads. Throws Error with the child's message.
Json in_child(const std::function<Json()>& body);

// Seconds by operation, named as in backend/ops.h.
using Seconds = std::map<std::string, double>;

// A product as it was asked of the backend, without its formats.
struct ProductShape {
  GemmPass pass = GemmPass::fprop;
  std::int64_t m = 0, n = 0, k = 0;  // of out = a [m, k] · b [k, n]
  DType out = DType::bf16;
  bool accumulate = false;
  auto operator<=>(const ProductShape&) const = default;
  double flops() const { return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }
};

struct Timings {
  Seconds seconds;
  double engine_seconds = 0;                      // inside the matrix engine, a part of seconds["gemm"]
  std::map<ProductShape, std::int64_t> products;  // calls

  void clear() { *this = Timings(); }
};

// The CPU backend with a clock around every operation; a step has some thousands, which costs far below a per mille.
// timings outlives the backend.
std::unique_ptr<Backend> create_timed_cpu_backend(Timings& timings);

// Seconds that the matrix engine needs for one such product on plain matrices of its own type: no quantisation, no
// scales, no bias. The raw rate that everything else is held against.
double raw_product_seconds(const ProductShape& shape);

// Seconds of one call of body on the backend, with its scratch planned as in a training step.
double op_seconds(Backend& backend, const std::function<void(Ops&)>& body);

}  // namespace llmfp8::bench
