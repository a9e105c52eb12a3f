// From arguments and a config file to a RunConfig, and from there to run.json.
#include "cli/run_config.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "cli/config_file.h"
#include "cli/did_you_mean.h"
#include "cli/options.h"
#include "core/error.h"
#include "report/text_table.h"
#include "text/own_template.h"

namespace llmfp8 {
namespace {

struct Assignment {
  const Option* option;
  std::string value;
};

std::vector<std::string> flag_names(Program program) {
  std::vector<std::string> names;
  for (const Option& option : option_table(program)) names.push_back(option.name);
  return names;
}

[[noreturn]] void fail_unknown_flag(Program program, std::string_view name) {
  std::vector<std::string> names = flag_names(program);
  names.insert(names.end(), {"help", "version"});
  const std::string nearest = nearest_name(name, names);
  if (!name.empty() && nearest == name) fail_usage("--{} takes no value", name);
  if (nearest.empty()) fail_usage("unknown flag --{} (--help lists all flags)", name);
  fail_usage("unknown flag --{}, did you mean --{}?", name, nearest);
}

bool is_flag(const std::string& argument) { return argument.starts_with("--"); }

bool is_truth_value(const std::string& text) {
  return text == "true" || text == "false" || text == "True" || text == "False";
}

// The switch that --no-NAME or --no_NAME turns off, or nullptr.
const Option* negated_switch(Program program, std::string_view name) {
  if (!name.starts_with("no-") && !name.starts_with("no_")) return nullptr;
  const Option* option = find_option(program, name.substr(3));
  return option && option->is_switch() ? option : nullptr;
}

// Reads one flag at args[i] and moves i to its last argument.
Assignment read_flag(Program program, std::span<const std::string> args, std::size_t& i) {
  const std::string& argument = args[i];
  const std::size_t equals = argument.find('=');
  const std::string name = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
  const bool has_next = i + 1 < args.size() && !is_flag(args[i + 1]);
  const Option* option = find_option(program, name);
  if (!option) {
    option = negated_switch(program, name);
    if (!option) fail_unknown_flag(program, name);
    if (equals != std::string::npos) fail_usage("--{} takes no value, found {}", name, argument.substr(equals + 1));
    return {option, "false"};
  }
  if (equals != std::string::npos) return {option, argument.substr(equals + 1)};
  if (option->is_switch()) {
    // `--use_te true` is common with argparse's type=bool.
    const bool is_given = has_next && is_truth_value(args[i + 1]);
    return {option, is_given ? args[++i] : "true"};
  }
  if (has_next) return {option, args[++i]};
  if (option->implicit.empty()) fail_usage("--{}: the value is missing, wanted {}", name, option->wanted);
  return {option, option->implicit};
}

void apply_config_file(RunConfig& config) {
  for (const ConfigEntry& entry : read_config_file(config.config)) {
    const std::string where = fmt::format("{}:{}", config.config, entry.line);
    const Option* option = find_option(config.program, entry.key);
    if (!option) {
      const std::string nearest = nearest_name(entry.key, flag_names(config.program));
      if (nearest.empty()) fail_usage("{}: unknown key {}", where, entry.key);
      fail_usage("{}: unknown key {}, did you mean {}?", where, entry.key, nearest);
    }
    if (entry.key == "config") fail_usage("{}: config: a config file cannot name another", where);
    if (!option->assign(config, entry.value))
      fail_usage("{}: {} is \"{}\", wanted {}", where, entry.key, entry.value, option->wanted);
    config.sources[entry.key] = ValueSource::config_file;
  }
}

void resolve(RunConfig& config) {
  for (const Option& option : option_table(config.program)) {
    if (option.is_required && option_text(option, config).empty())
      fail_usage("--{} is missing: {}", option.name, option.help);
  }
  if (config.eval_batch_size == 0) config.eval_batch_size = config.batch_size;
  if (config.gradient_checkpointing) {
    if (config.is_set("recompute") && config.recompute != Recompute::block) {
      fail_usage("--gradient_checkpointing means --recompute block, found --recompute {}",
                 flag_text(config, "recompute"));
    }
    config.recompute = Recompute::block;
  }
  config.gradient_checkpointing = config.recompute == Recompute::block;
  if (config.overwrite && !config.resume.empty()) fail_usage("--overwrite and --resume exclude each other");
  TemplateDate::parse(config.template_date);  // refuses what is no date
}

// What was asked for and has no effect must not pass in silence.
std::vector<std::string> warnings_of(const RunConfig& config) {
  std::vector<std::string> warnings;
  if (config.mixed_precision == MixedPrecision::fp32 && config.grad_dtype == GradPrecision::bf16) {
    warnings.push_back("--grad_dtype bf16 has no effect with --mixed_precision fp32: gradients are fp32 then");
  }
  if (config.mixed_precision == MixedPrecision::fp32 && config.weight_update != WeightUpdate::exact) {
    warnings.push_back(fmt::format("--weight_update {} has no effect with --mixed_precision fp32: the weights have "
                                   "all bits",
                                   flag_text(config, "weight_update")));
  }
  std::error_code ignored;
  if (config.is_set("split_name") && std::filesystem::is_regular_file(config.dataset_name, ignored)) {
    warnings.push_back(fmt::format("--split_name {} has no effect: --dataset_name {} is a single file, all its rows "
                                   "are taken",
                                   config.split_name, config.dataset_name));
  }
  if (config.mixed_precision == MixedPrecision::fp8) return warnings;
  for (const char* flag :
       {"fp8_scenario", "fp8_strict", "fp8_emulate", "fp8_lm_head", "fp8_start", "shadow_check_interval"}) {
    if (!config.is_set(flag) || flag_text(config, flag) == flag_text(default_config(config.program), flag)) continue;
    warnings.push_back(fmt::format("--{} {} has no effect with --mixed_precision {}", flag, flag_text(config, flag),
                                   flag_text(config, "mixed_precision")));
  }
  return warnings;
}

std::string_view source_name(ValueSource source) {
  switch (source) {
    case ValueSource::command_line: return "command line";
    case ValueSource::config_file: return "config file";
    case ValueSource::default_: return "default";
  }
  return "";
}

CommandLine parse(Program program, std::span<const std::string> args) {
  CommandLine result{.config = default_config(program)};
  RunConfig& config = result.config;
  std::vector<Assignment> assignments;
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--help" || args[i] == "-h") {
      result.print = help_text(program);
      return result;
    }
    if (args[i] == "--version") {
      result.print = fmt::format("{} {}\n", program_rules(program).name, LLMFP8_VERSION);
      return result;
    }
    if (!is_flag(args[i])) fail_usage("unexpected argument {} (a flag begins with --)", args[i]);
    assignments.push_back(read_flag(program, args, i));
  }
  // The file comes first, wherever --config stands, so that the command line wins.
  for (const Assignment& given : assignments) {
    if (given.option->name == "config") config.config = given.value;
  }
  if (!config.config.empty()) apply_config_file(config);
  for (const Assignment& given : assignments) {
    const Option& option = *given.option;
    if (!option.assign(config, given.value)) {
      fail_usage("--{} {}: wanted {}", option.name, given.value.empty() ? "\"\"" : given.value, option.wanted);
    }
    config.sources[option.name] = ValueSource::command_line;
  }
  resolve(config);
  refuse_what_is_not_built(config);
  result.warnings = warnings_of(config);
  return result;
}

}  // namespace

CommandLine parse_command_line(Program program, std::span<const std::string> args) {
  try {
    return parse(program, args);
  } catch (const Error& error) {
    // The message quotes what the user typed or what stood in a file.
    throw Error(one_line(error.what()), error.kind());
  }
}

CommandLine parse_command_line(Program program, int argc, const char* const* argv) {
  const std::vector<std::string> args(argv + std::min(argc, 1), argv + argc);
  return parse_command_line(program, args);
}

nlohmann::ordered_json flags_to_json(const RunConfig& config) {
  nlohmann::ordered_json flags = nlohmann::ordered_json::object();
  for (const Option& option : option_table(config.program)) {
    const auto it = config.sources.find(option.name);
    const ValueSource source = it == config.sources.end() ? ValueSource::default_ : it->second;
    flags[option.name] = {{"value", option.value(config)}, {"from", source_name(source)}};
  }
  return flags;
}

std::string flag_text(const RunConfig& config, std::string_view flag) {
  const Option* option = find_option(config.program, flag);
  if (!option) fail("{} is no flag", flag);
  return option_text(*option, config);
}

}  // namespace llmfp8
