// What goes wrong inside a template, before the line is known; the interpreter makes an Error of it. Thrown by
// everything in text/jinja.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include <fmt/format.h>

namespace llmfp8::jinja {

class Problem : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <typename... Args>
[[noreturn]] void problem(fmt::format_string<Args...> format, Args&&... args) {
  throw Problem(fmt::format(format, std::forward<Args>(args)...));
}

// A template may come from anywhere: none of these is met by one that is meant well.
struct Limits {
  std::size_t source_bytes = std::size_t{1} << 20;
  std::size_t text_bytes = std::size_t{64} << 20;  // of one string and of the output
  std::size_t steps = 40'000'000;                  // evaluated nodes; made bytes count an eighth
  int expression_depth = 200;                      // of a tree in the source
  int statement_depth = 60;
  std::size_t value_weight = std::size_t{1} << 24;  // values inside one value
  int value_depth = 120;                            // containers inside containers
  int evaluation_depth = 400;                       // macros that call macros, and the trees inside them
  std::int64_t range = 100'000;                     // jinja2's own, of range()
};
inline constexpr Limits kLimits;

}  // namespace llmfp8::jinja
