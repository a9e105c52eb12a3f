// The subcommands of llm-fp8. apps/llm_fp8.cpp calls run_llm_fp8; a new subcommand is a function here and a line of the
// table in commands.cpp.
#pragma once

#include <span>
#include <string>

namespace llmfp8 {

// args: what follows the program's name. Returns the exit code; throws Error (usage: 2, run: 1).
int run_llm_fp8(std::span<const std::string> args);

// args: what follows the subcommand.
using CommandArgs = std::span<const std::string>;
int run_data(CommandArgs args);
int run_tokenize(CommandArgs args);
int run_generate(CommandArgs args);
int run_eval(CommandArgs args);
int run_compare(CommandArgs args);
int run_info(CommandArgs args);
int run_bench(CommandArgs args);
int run_doctor(CommandArgs args);
int run_parity(CommandArgs args);
int run_report(CommandArgs args);
int run_runs(CommandArgs args);
int run_wandb_sync(CommandArgs args);

}  // namespace llmfp8
