#include "core/log.h"

#include <atomic>
#include <cstdio>
#include <mutex>
#include <utility>

namespace llmfp8::log {
namespace {
std::atomic<bool> is_quiet{false};
std::mutex mutex;
std::function<void(const std::string&)> writer;
}  // namespace

void set_quiet(bool quiet) { is_quiet = quiet; }

void set_writer(std::function<void(const std::string&)> message_writer) {
  const std::lock_guard lock(mutex);
  writer = std::move(message_writer);
}

void write(Level level, const std::string& message) {
  if (level == Level::info && is_quiet) return;
  const std::string line = (level == Level::warning ? "warning: " : "") + message;
  const std::lock_guard lock(mutex);
  if (writer) {
    writer(line);
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
}

}  // namespace llmfp8::log
