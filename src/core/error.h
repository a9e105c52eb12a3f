// Errors: what a user sees as `error: …`, and CHECK, which stays on in every build.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace llmfp8 {

// usage: the command line is wrong (exit code 2). run: everything else that the user can act on (exit code 1).
enum class ErrorKind { usage, run };

// message: one line that names the flag or file, the value found and the value wanted.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ErrorKind kind = ErrorKind::run)
      : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// An allocation that a device refused.
struct MemoryRequest {
  std::string memory;  // whose: "GPU", "host"
  std::string what;    // what it was for, a line of the memory table where it is one
  std::size_t bytes = 0;
  std::size_t free_bytes = 0;  // of the device at that moment
  std::size_t total_bytes = 0;
};

inline std::string refusal_text(const MemoryRequest& r) {
  const auto gb = [](std::size_t bytes) { return static_cast<double>(bytes) / 1e9; };
  return fmt::format("out of {} memory: {:.2f} GB wanted for {}, {:.2f} GB of {:.2f} GB are free", r.memory,
                     gb(r.bytes), r.what, gb(r.free_bytes), gb(r.total_bytes));
}

class OutOfMemory : public Error {
 public:
  explicit OutOfMemory(const MemoryRequest& request) : OutOfMemory(request, refusal_text(request)) {}
  OutOfMemory(MemoryRequest request, const std::string& message) : Error(message), request_(std::move(request)) {}
  const MemoryRequest& request() const { return request_; }

 private:
  MemoryRequest request_;
};

// The device does not answer any more, and nothing that lies in its memory can be read again.
class DeviceFailed : public Error {
 public:
  using Error::Error;
};

template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...), ErrorKind::usage);
}

}  // namespace llmfp8

// CHECK(a == b, "rows {} of x, rows {} of y", a, b): throws Error with the text and the values.
#define CHECK(condition, ...)                            \
  do {                                                   \
    if (!(condition)) [[unlikely]]                       \
      throw ::llmfp8::Error(::fmt::format(__VA_ARGS__)); \
  } while (false)
