// How RunConfig is filled from the command line and from --config FILE. The mains call parse_command_line.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/run_config.h"

namespace llmfp8 {

struct CommandLine {
  RunConfig config;
  std::optional<std::string> print = {};   // set by --help and --version: print this on standard output and exit 0
  std::vector<std::string> warnings = {};  // flags that have no effect beside the others; the caller logs them
};

// args: without the program's name. The command line wins over --config FILE, which wins over the defaults.
// Throws a usage Error (one line: flag, value found, value wanted), also for what is not built yet.
CommandLine parse_command_line(Program program, std::span<const std::string> args);
CommandLine parse_command_line(Program program, int argc, const char* const* argv);

// {"batch_size": {"value": 12, "from": "command line"}, …} in the order of --help.
nlohmann::ordered_json flags_to_json(const RunConfig& config);

// The value of one flag as the user would type it: "fp8", "12", "true". Throws Error for a name that is no flag.
std::string flag_text(const RunConfig& config, std::string_view flag);

}  // namespace llmfp8
