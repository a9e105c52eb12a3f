// The flags that tools/bench.sh gives to every benchmark program, and errors as the other programs print them.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <CLI/CLI.hpp>

#include "core/error.h"
#include "measure.h"

namespace llmfp8::bench {

inline void add_common_flags(CLI::App& app, CommonFlags& flags) {
  app.add_option("--model", flags.model, "a folder in HF layout or a .gguf file (default: $LLMFP8_BENCH_MODEL)");
  app.add_option("--threads", flags.threads, "core counts to measure (default: 1 and all)")->delimiter(',');
  app.add_flag("--cpu-time", flags.cpu_time,
               "measure processor time, on one core: for a machine that is busy otherwise");
  app.add_flag("--json", flags.json, "one JSON document instead of tables");
}

// -1: go on; else the exit code.
inline int parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& error) {
    fail_usage("{}", error.what());
  }
  return -1;
}

inline void finish_common_flags(CommonFlags& flags) {
  if (flags.model.empty()) {
    const char* model = std::getenv("LLMFP8_BENCH_MODEL");
    flags.model = model != nullptr ? model : "models/SmolLM2-135M-Instruct.Q4_1.gguf";
  }
  if (!std::filesystem::exists(flags.model)) {
    fail_usage("--model {}: no such file or folder (`make bench` fetches the demo's model)", flags.model);
  }
  const int cores = available_cores();
  if (flags.cpu_time) {
    if (flags.threads.empty()) flags.threads = {1};
    if (flags.threads != std::vector<int>{1})
      fail_usage("--cpu-time: wanted --threads 1, waiting threads use processor time too");
    use_processor_time();
  }
  if (flags.threads.empty()) flags.threads = cores > 1 ? std::vector<int>{1, cores} : std::vector<int>{1};
  for (int n : flags.threads) {
    if (n < 1 || n > cores) fail_usage("--threads {}: wanted 1 to {}, the cores there are", n, cores);
  }
}

inline int guarded(int (*run)(int, char**), int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return error.kind() == ErrorKind::usage ? 2 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}

}  // namespace llmfp8::bench
