// Runs the built programs as a user would, and says what they printed and how they ended. Used by the tests of this
// folder.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace llmfp8::testing {

using Args = std::vector<std::string>;

struct RunOptions {
  std::map<std::string, std::string> environment = {};  // beside the test's own; "" removes a variable
  unsigned long max_file_bytes = 0;           // RLIMIT_FSIZE: a disk that is full for files above it; 0: no limit
  std::function<bool()> interrupt_when = {};  // `signal` is sent as soon as this is true; asked every 2 ms
  int signal = 2;                             // SIGINT
  int times = 1;                              // so often, 2 ms apart, while interrupt_when holds
};

struct Finished {
  int code = -1;  // 128 + signal where the program was ended by one
  std::string out, err;

  // The lines of standard error that begin with "error:", or that a crash would leave.
  std::vector<std::string> errors() const;
  bool says(const std::string& text) const { return err.find(text) != std::string::npos; }
  std::size_t count(const std::string& text) const;  // in standard error
};

// Ends the program after ten minutes (code 124).
Finished run_program(const std::string& name, const Args& args, const RunOptions& options = {});

}  // namespace llmfp8::testing
