// Seconds of two clocks: one for how long something took, one for when it was.
#pragma once

#include <chrono>

namespace llmfp8 {

// Of a clock that nobody sets, from an arbitrary moment.
inline double now_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Since 1970.
inline double unix_seconds() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace llmfp8
