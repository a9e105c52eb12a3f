// The table of flags: each is declared once, in options.cpp, with its default, range or choices, and help. The table
// drives parsing, --help, config files and run.json. Called by run_config.cpp.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/run_config.h"

namespace llmfp8 {

struct Choice {
  std::string name;
  std::string refusal;    // not empty: refused with this sentence when used
  bool is_listed = true;  // false: known only to be refused (fp16)
};

struct Option {
  std::string name = {};
  std::string group = {};
  std::string value_name = {};  // "N", "DIR"; "" for a switch
  std::string help = {};
  std::string wanted = {};         // "a whole number of at least 1", for errors and --help
  std::string range = {};          // "at least 1", for --help; empty where there are choices
  std::string default_text = {};   // for --help
  std::string implicit = {};       // not empty: the value may be left out, and is then this (--resume)
  std::string not_built_yet = {};  // not empty: any value but the default is refused with this sentence
  std::vector<Choice> choices = {};
  bool is_required = false;

  // Returns false when `text` is not `wanted`; config is then unchanged.
  std::function<bool(RunConfig& config, const std::string& text)> assign = {};
  std::function<nlohmann::ordered_json(const RunConfig& config)> value = {};

  bool is_switch() const { return value_name.empty(); }
};

// In the order of --help, grouped. The defaults are those of the program.
const std::vector<Option>& option_table(Program program);
const Option* find_option(Program program, std::string_view name);

// A config with every default of the table.
RunConfig default_config(Program program);

// A value as the user would type it.
std::string option_text(const Option& option, const RunConfig& config);

// At most 100 columns wide.
std::string help_text(Program program);

// Throws the usage Error of the first flag or choice whose feature is not built.
void refuse_what_is_not_built(const RunConfig& config);

}  // namespace llmfp8
