// Errors: what a user sees as `error: …`, and CHECK, which stays on in every build.
#pragma once

#include <stdexcept>
#include <string>

#include <fmt/format.h>

namespace llmfp8 {

// usage: the command line is wrong (exit code 2). run: everything else that the user can act on (exit code 1).
enum class ErrorKind { usage, run };

// message: one line that names the flag or file, the value found and the value wanted.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ErrorKind kind = ErrorKind::run) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
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
#define CHECK(condition, ...)                                                    \
  do {                                                                           \
    if (!(condition)) [[unlikely]]                                               \
      throw ::llmfp8::Error(::fmt::format(__VA_ARGS__));                         \
  } while (false)
