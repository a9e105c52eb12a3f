#include "core/log.h"

#include <atomic>
#include <cstdio>
#include <mutex>

namespace llmfp8::log {
namespace {
std::atomic<bool> is_quiet{false};
std::mutex mutex;
}  // namespace

void set_quiet(bool quiet) { is_quiet = quiet; }

void write(Level level, const std::string& message) {
  if (level == Level::info && is_quiet) return;
  const std::lock_guard lock(mutex);
  std::fprintf(stderr, "%s%s\n", level == Level::warning ? "warning: " : "", message.c_str());
}

}  // namespace llmfp8::log
