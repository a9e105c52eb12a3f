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
std::atomic<void (*)(Level, const std::string&)> forward{nullptr};
}  // namespace

void set_quiet(bool quiet) { is_quiet = quiet; }

void set_writer(std::function<void(const std::string&)> message_writer) {
  const std::lock_guard lock(mutex);
  writer = std::move(message_writer);
}

void forward_to(void (*program_write)(Level level, const std::string& message)) { forward = program_write; }

void write(Level level, const std::string& message) {
  if (const auto program_write = forward.load()) return program_write(level, message);
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
