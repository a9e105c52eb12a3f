// Operations timed alone, on operands of their own. Used by `llm-fp8 bench` and by the measure of utilisation.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/plan/planned_ops.h"

namespace llmfp8 {

// Device memory with a matrix of random values, or codes.
class RandomMatrix {
 public:
  RandomMatrix(Backend& backend, Stream& stream, DType dtype, Shape shape);
  const Tensor& tensor() const { return tensor_; }

 private:
  Buffer buffer_;
  Tensor tensor_;
};

class AloneClock {
 public:
  AloneClock(Backend& backend, Stream& stream) : backend_(backend), stream_(stream) {}

  // Least time of a call, after a first one.
  template <typename Run>
  double least_ms(int repeats, Run&& run) {
    run();
    double best = 1e30;
    std::vector<std::unique_ptr<Event>> events;
    for (int i = 0; i <= repeats; ++i) events.push_back(backend_.create_event(EventKind::timed));
    backend_.record(*events[0], stream_);
    for (int i = 1; i <= repeats; ++i) {
      run();
      backend_.record(*events[static_cast<std::size_t>(i)], stream_);
    }
    backend_.synchronize(stream_);
    for (std::size_t i = 1; i < events.size(); ++i) best = std::min(best, backend_.elapsed_ms(*events[i - 1], *events[i]));
    return best;
  }

 private:
  Backend& backend_;
  Stream& stream_;
};

// Least time of an operation that may take scratch from an arena.
template <typename Run>
double planned_least_ms(Backend& backend, Stream& stream, Run&& run, int repeats = 10) {
  const auto phase = [&](Ops& ops) {
    ops.arena().begin_phase("alone");
    run(ops);
    ops.arena().end_phase();
  };
  PlannedOps planned(backend, stream, "scratch of one operation", phase);
  return AloneClock(backend, stream).least_ms(repeats, [&] { phase(planned.ops()); });
}

}  // namespace llmfp8
