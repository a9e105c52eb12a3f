// The table of subcommands, and --help and --version of llm-fp8.
#include "cli/commands/commands.h"

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "cli/did_you_mean.h"
#include "core/error.h"

namespace llmfp8 {
namespace {

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(CommandArgs args);
};

constexpr Command kCommands[] = {
    {"info", "what a model is made of", run_info},
    {"data", "what a data set is made of, and its rows as the model sees them", run_data},
    {"tokenize", "text to token ids and back, JSON Lines on standard input and output", run_tokenize},
    {"generate", "text from a model, greedy or sampled", run_generate},
    {"eval", "loss and perplexity of a model, accuracy of its answers to math problems", run_eval},
    {"compare", "the paired difference between two files of answers", run_compare},
    {"parity", "forward, backward and steps on a given batch, to compare with PyTorch", run_parity},
    {"report", "one HTML page of a run, or of several side by side", run_report},
    {"runs", "the runs in a folder, as a table", run_runs},
    {"bench", "how fast a model of a given shape trains here", run_bench},
    {"wandb-sync", "hand a run that lies on disk to Weights & Biases", run_wandb_sync},
    {"doctor", "what this machine and build can do", run_doctor},
};

std::string help_text() {
  std::string out =
      "llm-fp8: looks at, runs and checks models. Fine-tuning is ./train_fp8.\n\n"
      "usage: llm-fp8 COMMAND [flags]\n\n";
  for (const Command& command : kCommands) out += fmt::format("  {:<12}{}\n", command.name, command.summary);
  out += "\nllm-fp8 COMMAND --help lists a command's flags; llm-fp8 --version prints the version.\n";
  return out;
}

}  // namespace

int run_llm_fp8(std::span<const std::string> args) {
  if (args.empty()) fail_usage("a command is missing (llm-fp8 --help lists them)");
  const std::string& name = args[0];
  if (name == "--help" || name == "-h" || name == "help") {
    std::fputs(help_text().c_str(), stdout);
    return 0;
  }
  if (name == "--version") {
    fmt::print("llm-fp8 {}\n", LLMFP8_VERSION);
    return 0;
  }
  std::vector<std::string> names;
  for (const Command& command : kCommands) {
    if (name == command.name) return command.run(args.subspan(1));
    names.emplace_back(command.name);
  }
  const std::string nearest = nearest_name(name, names);
  if (nearest.empty()) fail_usage("unknown command {} (llm-fp8 --help lists them)", name);
  fail_usage("unknown command {}, did you mean {}?", name, nearest);
}

}  // namespace llmfp8
