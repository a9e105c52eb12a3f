// One line to the user on standard error: info, note (a consequence the user should know), warning.
#pragma once

#include <string>

#include <fmt/format.h>

namespace llmfp8::log {

enum class Level { info, warning };

void set_quiet(bool quiet);                          // drops info; warnings stay
void write(Level level, const std::string& message);  // thread-safe; a warning begins with "warning: "

template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace llmfp8::log
