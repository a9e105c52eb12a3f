// OpClock: the time of every operation of a stretch of work on one stream, measured on the device. The host never waits
// while it listens. Called by the bench; the trace shows in chrome://tracing and Perfetto.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "backend/backend.h"

namespace llmfp8 {

struct TimedOp {
  OpInfo info;
  double start_ms = 0;     // since the first operation began
  double duration_ms = 0;
};

class OpClock : public OpObserver {
 public:
  // Both outlive the clock. stream: the one whose operations are observed.
  OpClock(Backend& backend, Stream& stream) : backend_(backend), stream_(stream) {}

  void begin(const OpInfo& info) override;
  void end() override;

  // Waits for the stream; forgets what it has heard.
  std::vector<TimedOp> collect();

 private:
  struct Pending {
    OpInfo info;
    std::size_t first = 0;  // of two events
  };
  Event& record();

  Backend& backend_;
  Stream& stream_;
  std::vector<std::unique_ptr<Event>> events_;  // reused
  std::size_t used_ = 0;
  std::vector<Pending> pending_;
};

// A trace in the format of Chrome's event viewer. Replaces the file whole.
void write_chrome_trace(const std::vector<TimedOp>& ops, const std::filesystem::path& path);

}  // namespace llmfp8
