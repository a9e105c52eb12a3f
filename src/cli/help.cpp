// --help, laid out from the table of flags.
#include <algorithm>
#include <string>
#include <vector>

#include "cli/options.h"
#include "report/text_table.h"
#include "core/error.h"

namespace llmfp8 {
namespace {

constexpr std::size_t kWidth = 100;
constexpr std::size_t kIndent = 34;  // where the help of a flag begins

std::string flag_column(const Option& option) {
  std::string out = "  --" + option.name;
  if (option.is_switch()) return out;
  return out + (option.implicit.empty() ? " " + option.value_name : " [" + option.value_name + "]");
}

// "(default 8; at least 1)", and what is not built.
std::string remarks(const Option& option) {
  std::string refused;
  for (const Choice& choice : option.choices) {
    if (choice.is_listed && !choice.refusal.empty()) refused += (refused.empty() ? "" : ", ") + choice.name;
  }
  std::string out;
  if (option.is_required) out += " (required)";
  if (!option.range.empty()) {
    out += fmt::format(" (default {}; {})", option.default_text, option.range);
  } else if (!option.default_text.empty()) {
    out += fmt::format(" (default {})", option.default_text);
  }
  if (!option.not_built_yet.empty()) out += " [not built yet]";
  if (!refused.empty()) out += fmt::format(" [not built yet: {}]", refused);
  return out;
}

}  // namespace

std::string help_text(Program program) {
  const std::string_view name = program_rules(program).name;
  std::string out = fmt::format(
      "{}: fine-tunes Llama and Qwen models in FP8.\n\n"
      "usage: {} --model_name NAME --dataset_name NAME [flags]\n\n"
      "Flags are written --flag value or --flag=value; switches --flag, --no-flag or --flag=true|false.\n"
      "--help prints this text, --version the version.\n",
      name, name);
  std::string_view group;
  for (const Option& option : option_table(program)) {
    if (option.group != group) {
      group = option.group;
      out += fmt::format("\n{}\n", group);
    }
    const std::string left = flag_column(option);
    const std::vector<std::string> lines = wrap_text(option.help + remarks(option), kWidth - kIndent);
    std::size_t first = 0;
    if (display_width(left) + 2 <= kIndent) {
      out += left + std::string(kIndent - display_width(left), ' ') + lines[0] + "\n";
      first = 1;
    } else {
      out += left + "\n";
    }
    for (std::size_t i = first; i < lines.size(); ++i) out += std::string(kIndent, ' ') + lines[i] + "\n";
  }
  return out;
}

}  // namespace llmfp8
