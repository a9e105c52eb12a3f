// llm-fp8: the subcommands of src/cli/commands, and the only place that turns errors into exit codes.
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "cli/commands/commands.h"
#include "core/error.h"

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
    return llmfp8::run_llm_fp8(args);
  } catch (const llmfp8::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return error.kind() == llmfp8::ErrorKind::usage ? 2 : 1;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: out of memory\n");
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
