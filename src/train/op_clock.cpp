#include "train/op_clock.h"

#include <string>

#include <nlohmann/json.hpp>

#include "hub/file_io.h"

namespace llmfp8 {

Event& OpClock::record() {
  if (used_ == events_.size()) events_.push_back(backend_.create_event(EventKind::timed));
  Event& event = *events_[used_++];
  backend_.record(event, stream_);
  return event;
}

void OpClock::begin(const OpInfo& info) {
  pending_.push_back({info, used_});
  record();
}

void OpClock::end() { record(); }

std::vector<TimedOp> OpClock::collect() {
  backend_.synchronize(stream_);
  std::vector<TimedOp> ops;
  for (const Pending& p : pending_) {
    ops.push_back({p.info, backend_.elapsed_ms(*events_.front(), *events_[p.first]),
                   backend_.elapsed_ms(*events_[p.first], *events_[p.first + 1])});
  }
  pending_.clear();
  used_ = 0;
  return ops;
}

void write_chrome_trace(const std::vector<TimedOp>& ops, const std::filesystem::path& path) {
  static constexpr const char* kPasses[] = {"fprop", "dgrad", "wgrad"};
  nlohmann::ordered_json events = nlohmann::ordered_json::array();
  for (const TimedOp& op : ops) {
    nlohmann::ordered_json event;
    const bool product = op.info.contraction > 0;
    event["name"] = product ? fmt::format("{} {}{}", op.info.name, kPasses[static_cast<int>(op.info.pass)],
                                          op.info.fp8 ? " fp8" : "")
                            : std::string(op.info.name);
    event["ph"] = "X";
    event["pid"] = 0;
    event["tid"] = 0;
    event["ts"] = op.start_ms * 1e3;  // microseconds
    event["dur"] = op.duration_ms * 1e3;
    event["args"] = {{"rows", op.info.rows}, {"cols", op.info.cols}};
    if (product) {
      event["args"]["contraction"] = op.info.contraction;
      event["args"]["tflops"] = 2.0 * static_cast<double>(op.info.rows) * static_cast<double>(op.info.cols) *
                                static_cast<double>(op.info.contraction) / (op.duration_ms * 1e9);
    }
    events.push_back(std::move(event));
  }
  write_file_atomically(path, nlohmann::ordered_json{{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}}.dump());
}

}  // namespace llmfp8
