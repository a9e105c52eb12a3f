// One line to the user on standard error. Called by everything.
#pragma once

#include <functional>
#include <string>

#include <fmt/format.h>

namespace llmfp8::log {

enum class Level { info, warning, result };  // result: how a run ended

void set_quiet(bool quiet);                          // drops info; the others stay
// Where messages go instead of standard error (a progress bar that must stay below them); null: standard error.
void set_writer(std::function<void(const std::string& message)> writer);
// For a module, which has a copy of this file: its messages go to the program's write(), which is quiet where it must be.
void forward_to(void (*program_write)(Level level, const std::string& message));
void write(Level level, const std::string& message);  // thread-safe; a warning begins with "warning: "

template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void result(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::result, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace llmfp8::log
