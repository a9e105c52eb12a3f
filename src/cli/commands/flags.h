// The flags of one subcommand, written as those of train_fp8: --flag value, --flag=value, --switch, --no-switch. Each
// is declared once, with its default (what the variable holds), range and help. Called by the subcommands and by bench/.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/run_config.h"

namespace llmfp8 {

struct WholeRange {
  std::int64_t least = 0;
  std::int64_t most = std::numeric_limits<std::int64_t>::max();
};

struct RealRange {
  double least = 0.0;
  double most = std::numeric_limits<double>::max();
};

enum class Presence : std::uint8_t { optional, required };

class FlagSet {
 public:
  // usage: what follows the subcommand, "--model M [flags]". program: empty where the command is a program of its own.
  FlagSet(std::string command, std::string summary, std::string usage, std::string program = "llm-fp8");

  // The variables outlive parse().
  void text(std::string name, std::string value_name, std::string* value, std::string help,
            Presence presence = Presence::optional);
  void choice(std::string name, std::vector<std::string> choices, std::string* value, std::string help);
  void whole(std::string name, WholeRange range, std::int64_t* value, std::string help);
  void real(std::string name, RealRange range, double* value, std::string help);
  void on_off(std::string name, bool* value, std::string help);
  // A flag of the training programs, as they declare it. Throws Error where they have none of that name.
  void of_trainer(std::string_view name, RunConfig* config);
  // An argument that is no flag, in the order of declaration.
  void positional(std::string name, std::string* value, std::string help);
  // Every further argument that is no flag; declared after the positionals. required: at least one.
  void positionals(std::string name, std::vector<std::string>* values, std::string help, Presence presence);

  // True: go on. False: --help was there and has been printed on standard output.
  // Throws a usage Error: unknown flag (did you mean), value missing or not as wanted, missing or superfluous argument.
  bool parse(std::span<const std::string> args);

  bool is_set(std::string_view name) const;
  // Another default for a flag that was not typed, known only now. True where it changes the flag's value; false: it was
  // typed, has that value, or does not take this one.
  bool take_default(std::string_view name, const std::string& value);
  std::string help_text() const;

 private:
  struct Flag {
    std::string name, value_name;  // value_name empty: a switch
    std::string help, wanted, default_text;
    Presence presence = Presence::optional;
    std::function<bool(const std::string&)> assign;  // false: the text is not as wanted, and nothing has changed
    bool is_set = false;
  };
  struct Positional {
    std::string name, help;
    std::string* value = nullptr;
  };
  struct Rest {
    std::string name, help;
    std::vector<std::string>* values = nullptr;  // null: none are taken
    Presence presence = Presence::optional;
  };
  Flag* find(std::string_view name);
  std::string typed() const { return program_.empty() ? command_ : program_ + " " + command_; }
  [[noreturn]] void fail_unknown(std::string_view name) const;
  void read_flag(std::span<const std::string> args, std::size_t& i);

  std::string command_, summary_, usage_, program_;
  std::vector<Flag> flags_;
  std::vector<Positional> positionals_;
  Rest rest_;
};

}  // namespace llmfp8
