#include "measure.h"

#include <sched.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <thread>

#include "backend/cpu/matmul.h"
#include "backend/plan/plan_ops.h"
#include "backend/registry.h"
#include "core/bf16.h"
#include "core/error.h"

namespace llmfp8::bench {
namespace {

clockid_t chosen_clock = CLOCK_MONOTONIC;

}  // namespace

double now() {
  timespec t{};
  clock_gettime(chosen_clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

void use_processor_time() { chosen_clock = CLOCK_PROCESS_CPUTIME_ID; }

double best_seconds(const std::function<void()>& call, double least) {
  call();
  double best = std::numeric_limits<double>::infinity(), spent = 0;
  for (int i = 0; i < 3 || spent < least; ++i) {
    const double start = now();
    call();
    const double took = now() - start;
    best = std::min(best, took);
    spent += took;
  }
  return best;
}

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

double load_average() {
  double load[1] = {0};
  return getloadavg(load, 1) == 1 ? load[0] : 0.0;
}

std::size_t peak_memory_bytes() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  return 0;
}

Json machine() {
  std::ifstream in("/proc/cpuinfo");
  std::string processor = "unknown";
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(": ");
    if (!line.starts_with("model name") || colon == std::string::npos) continue;
    processor = line.substr(colon + 2);
    break;
  }
  return {{"processor", processor}, {"cores", available_cores()}, {"load_average", load_average()}};
}

Json in_child(const std::function<Json()>& body) {
  int ends[2];
  CHECK(pipe(ends) == 0, "cannot make a pipe");
  std::fflush(nullptr);
  const pid_t child = fork();
  CHECK(child >= 0, "cannot start a process");
  if (child == 0) {
    close(ends[0]);
    Json answer;
    try {
      answer["result"] = body();
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    const std::string text = answer.dump();
    for (std::size_t sent = 0; sent < text.size();) {
      const ssize_t n = write(ends[1], text.data() + sent, text.size() - sent);
      if (n <= 0) break;
      sent += static_cast<std::size_t>(n);
    }
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  waitpid(child, nullptr, 0);
  CHECK(!text.empty(), "a measurement ended without a result (out of memory?)");
  const Json answer = Json::parse(text);
  if (answer.contains("error")) throw Error(answer["error"].get<std::string>());
  return answer["result"];
}

double raw_product_seconds(const ProductShape& shape) {
  const cpu::MatmulEngine& engine = cpu::matmul_engine();
  const DType in = engine.image_dtype();
  const auto values = [&](std::int64_t count) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(count) * size_bytes(in));
    for (std::int64_t i = 0; i < count; ++i) {
      const float x = static_cast<float>(i * 2654435761u % 2048) / 1024.0f - 1.0f;
      if (in == DType::bf16) {
        reinterpret_cast<bf16*>(bytes.data())[i] = to_bf16(x);
      } else {
        reinterpret_cast<float*>(bytes.data())[i] = x;
      }
    }
    return bytes;
  };
  const std::vector<std::byte> a = values(shape.m * shape.k), b = values(shape.k * shape.n);
  std::vector<float> c(static_cast<std::size_t>(shape.m * shape.n));
  cpu::Matmul call;
  call.m = shape.m;
  call.n = shape.n;
  call.k = shape.k;
  call.a = a.data();
  call.b = b.data();
  call.c = c.data();
  call.a_transposed = shape.pass == GemmPass::wgrad;
  call.b_transposed = shape.pass == GemmPass::fprop;
  call.lda = call.a_transposed ? shape.m : shape.k;
  call.ldb = call.b_transposed ? shape.k : shape.n;
  call.ldc = shape.n;
  call.in = in;
  call.out = in == DType::bf16 ? shape.out : DType::f32;
  call.accumulate = shape.accumulate && call.out == DType::f32;
  return best_seconds([&] { engine.run(call); }, 0.05);
}

double op_seconds(Backend& backend, const std::function<void(Ops&)>& body) {
  const std::string phase = "bench";
  Arena planning;
  const std::unique_ptr<Stream> stream = backend.create_stream();
  const std::unique_ptr<Ops> real = backend.create_ops(*stream, planning);
  PlanOps plan(*real, planning);
  planning.begin_phase(phase);
  body(plan);
  planning.end_phase();
  const std::size_t bytes = std::max(planning.plan().peak_bytes(), kArenaAlignment);
  const Buffer memory = backend.allocate(bytes, "scratch");
  Arena arena(planning.plan(), memory.data(), bytes);
  const std::unique_ptr<Ops> ops = backend.create_ops(*stream, arena);
  return best_seconds([&] {
    arena.begin_phase(phase);
    body(*ops);
    arena.end_phase();
  });
}

}  // namespace llmfp8::bench
