// The flags of one subcommand of llm-fp8.
#include "cli/commands/flags.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <utility>

#include <fmt/ranges.h>

#include "cli/did_you_mean.h"
#include "cli/options.h"
#include "core/error.h"
#include "report/text_table.h"

namespace llmfp8 {
namespace {

constexpr std::size_t kWidth = 100;
constexpr std::size_t kIndent = 32;  // where the help of a flag begins

template <typename Number>
bool parse_number(const std::string& text, Number& value) {
  Number parsed{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  value = parsed;
  return true;
}

std::string laid_out(const std::string& left, const std::string& help) {
  const std::vector<std::string> lines = wrap_text(help, kWidth - kIndent);
  std::string out;
  std::size_t first = 0;
  if (display_width(left) + 2 <= kIndent) {
    out = left + std::string(kIndent - display_width(left), ' ') + lines[0] + "\n";
    first = 1;
  } else {
    out = left + "\n";
  }
  for (std::size_t i = first; i < lines.size(); ++i) out += std::string(kIndent, ' ') + lines[i] + "\n";
  return out;
}

}  // namespace

FlagSet::FlagSet(std::string command, std::string summary, std::string usage, std::string program)
    : command_(std::move(command)), summary_(std::move(summary)), usage_(std::move(usage)), program_(std::move(program)) {}

void FlagSet::text(std::string name, std::string value_name, std::string* value, std::string help, Presence presence) {
  const std::string wanted = "a value: " + help;
  flags_.push_back({std::move(name), std::move(value_name), std::move(help), wanted, *value, presence,
                    [value](const std::string& text) {
                      *value = text;
                      return true;
                    }});
}

void FlagSet::choice(std::string name, std::vector<std::string> choices, std::string* value, std::string help) {
  const std::string joined = fmt::format("{}", fmt::join(choices, "|"));
  const std::string wanted = fmt::format("one of {}", fmt::join(choices, ", "));
  flags_.push_back({std::move(name), joined, std::move(help), wanted, *value, Presence::optional,
                    [value, choices = std::move(choices)](const std::string& text) {
                      if (std::find(choices.begin(), choices.end(), text) == choices.end()) return false;
                      *value = text;
                      return true;
                    }});
}

void FlagSet::whole(std::string name, WholeRange range, std::int64_t* value, std::string help) {
  std::string wanted = fmt::format("a whole number of at least {}", range.least);
  if (range.most != WholeRange().most) wanted += fmt::format(" and at most {}", range.most);
  flags_.push_back({std::move(name), "N", std::move(help), wanted, std::to_string(*value), Presence::optional,
                    [value, range](const std::string& text) {
                      std::int64_t parsed = 0;
                      if (!parse_number(text, parsed) || parsed < range.least || parsed > range.most) return false;
                      *value = parsed;
                      return true;
                    }});
}

void FlagSet::real(std::string name, RealRange range, double* value, std::string help) {
  std::string wanted = fmt::format("a number of at least {}", range.least);
  if (range.most != RealRange().most) wanted += fmt::format(" and at most {}", range.most);
  flags_.push_back({std::move(name), "X", std::move(help), wanted, fmt::format("{}", *value), Presence::optional,
                    [value, range](const std::string& text) {
                      double parsed = 0;
                      // Not (parsed >= …) alone: from_chars reads "nan".
                      if (!parse_number(text, parsed) || !(parsed >= range.least && parsed <= range.most)) return false;
                      *value = parsed;
                      return true;
                    }});
}

void FlagSet::on_off(std::string name, bool* value, std::string help) {
  flags_.push_back({std::move(name), "", std::move(help), "true or false", *value ? "on" : "off", Presence::optional,
                    [value](const std::string& text) {
                      if (text != "true" && text != "false") return false;
                      *value = text == "true";
                      return true;
                    }});
}

void FlagSet::of_trainer(std::string_view name, RunConfig* config) {
  const Option* const option = find_option(config->program, name);
  CHECK(option != nullptr, "the training programs have no flag --{}", name);
  flags_.push_back({option->name, option->value_name, option->help, option->wanted, option->default_text,
                    option->is_required ? Presence::required : Presence::optional,
                    [option, config](const std::string& text) { return option->assign(*config, text); }});
}

void FlagSet::positional(std::string name, std::string* value, std::string help) {
  positionals_.push_back({std::move(name), std::move(help), value});
}

void FlagSet::positionals(std::string name, std::vector<std::string>* values, std::string help, Presence presence) {
  rest_ = {std::move(name), std::move(help), values, presence};
}

FlagSet::Flag* FlagSet::find(std::string_view name) {
  const auto it = std::find_if(flags_.begin(), flags_.end(), [&](const Flag& flag) { return flag.name == name; });
  return it == flags_.end() ? nullptr : &*it;
}

bool FlagSet::is_set(std::string_view name) const {
  return std::any_of(flags_.begin(), flags_.end(), [&](const Flag& flag) { return flag.name == name && flag.is_set; });
}

bool FlagSet::take_default(std::string_view name, const std::string& value) {
  Flag* const flag = find(name);
  CHECK(flag != nullptr, "{}: there is no flag --{}", command_, name);
  if (flag->is_set || value == flag->default_text || !flag->assign(value)) return false;
  flag->default_text = value;
  return true;
}

void FlagSet::fail_unknown(std::string_view name) const {
  std::vector<std::string> names = {"help"};
  for (const Flag& flag : flags_) names.push_back(flag.name);
  const std::string nearest = nearest_name(name, names);
  if (nearest.empty()) fail_usage("{}: unknown flag --{} ({} --help lists all)", command_, name, typed());
  fail_usage("{}: unknown flag --{}, did you mean --{}?", command_, name, nearest);
}

void FlagSet::read_flag(std::span<const std::string> args, std::size_t& i) {
  const std::string& argument = args[i];
  const std::size_t equals = argument.find('=');
  const std::string name = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
  Flag* flag = find(name);
  std::string value = "true";
  if (flag == nullptr && (name.starts_with("no-") || name.starts_with("no_"))) {
    flag = find(std::string_view(name).substr(3));
    if (flag != nullptr && (!flag->value_name.empty() || equals != std::string::npos)) flag = nullptr;
    value = "false";
  }
  if (flag == nullptr) fail_unknown(name);
  if (equals != std::string::npos) {
    value = argument.substr(equals + 1);
  } else if (!flag->value_name.empty()) {
    // A value may begin with a dash (a prompt, a negative number), but not with two.
    if (i + 1 >= args.size() || args[i + 1].starts_with("--")) {
      fail_usage("{}: --{}: the value is missing, wanted {}", command_, name, flag->wanted);
    }
    value = args[++i];
  }
  if (!flag->assign(value)) {
    fail_usage("{}: --{} {}: wanted {}", command_, name, value.empty() ? "\"\"" : value, flag->wanted);
  }
  flag->is_set = true;
}

bool FlagSet::parse(std::span<const std::string> args) {
  std::size_t given = 0;
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--help" || args[i] == "-h") {
      std::fputs(help_text().c_str(), stdout);
      return false;
    }
    if (args[i].starts_with("--")) {
      read_flag(args, i);
      continue;
    }
    if (given == positionals_.size() && rest_.values != nullptr) {
      rest_.values->push_back(args[i]);
      continue;
    }
    if (given == positionals_.size())
      fail_usage("{}: unexpected argument {} (a flag begins with --)", command_, args[i]);
    *positionals_[given++].value = args[i];
  }
  if (given < positionals_.size()) {
    fail_usage("{}: {} is missing: {}", command_, positionals_[given].name, positionals_[given].help);
  }
  if (rest_.values != nullptr && rest_.presence == Presence::required && rest_.values->empty()) {
    fail_usage("{}: {} is missing: {}", command_, rest_.name, rest_.help);
  }
  for (const Flag& flag : flags_) {
    if (flag.presence == Presence::required && !flag.is_set)
      fail_usage("{}: --{} is missing: {}", command_, flag.name, flag.help);
  }
  return true;
}

std::string FlagSet::help_text() const {
  std::string out = fmt::format("{}: {}\n\nusage: {} {}\n\n", typed(), summary_, typed(), usage_);
  for (const Positional& p : positionals_) out += laid_out("  " + p.name, p.help);
  if (rest_.values != nullptr) out += laid_out("  " + rest_.name + "…", rest_.help);
  for (const Flag& flag : flags_) {
    std::string remarks;
    if (flag.presence == Presence::required) {
      remarks = " (required)";
    } else if (!flag.default_text.empty()) {
      remarks = fmt::format(" (default {})", flag.default_text);
    }
    const std::string value = flag.value_name.empty() ? "" : " " + flag.value_name;
    out += laid_out("  --" + flag.name + value, flag.help + remarks);
  }
  out += laid_out("  --help", "print this text");
  return out;
}

}  // namespace llmfp8
