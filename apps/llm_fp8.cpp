// llm-fp8: the subcommands of src/cli/commands.
#include <string>
#include <vector>

#include "cli/commands/commands.h"
#include "cli/run_main.h"

int main(int argc, char** argv) {
  return llmfp8::run_main([&] {
    const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
    return llmfp8::run_llm_fp8(args);
  });
}
