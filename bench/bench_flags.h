// The flags that tools/bench.sh gives to every benchmark program, declared as those of the llm-fp8 commands.
#pragma once

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/commands/flags.h"
#include "core/error.h"
#include "measure.h"

namespace llmfp8::bench {

// "a,b" -> a, b.
inline std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == ',') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

// What the user typed; finish_common_flags makes CommonFlags of it.
struct TypedFlags {
  CommonFlags common;
  std::string threads;
};

inline void declare_common_flags(FlagSet& flags, TypedFlags& typed) {
  flags.text("model", "FILE", &typed.common.model, "a folder in HF layout or a .gguf file; else $LLMFP8_BENCH_MODEL");
  flags.text("threads", "N,N", &typed.threads, "core counts to measure; else 1 and all");
  flags.on_off("cpu-time", &typed.common.cpu_time,
               "measure processor time, on one core: for a machine that is busy otherwise");
  flags.on_off("json", &typed.common.json, "one JSON document instead of tables");
}

inline void finish_common_flags(TypedFlags& typed) {
  CommonFlags& flags = typed.common;
  if (flags.model.empty()) {
    const char* model = std::getenv("LLMFP8_BENCH_MODEL");
    flags.model = model != nullptr ? model : "models/SmolLM2-135M-Instruct.Q4_1.gguf";
  }
  if (!std::filesystem::exists(flags.model)) {
    fail_usage("--model {}: no such file or folder (`make bench` fetches the demo's model)", flags.model);
  }
  const int cores = available_cores();
  if (!typed.threads.empty()) {
    for (const std::string& text : split_list(typed.threads)) {
      int n = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
      if (error != std::errc() || end != text.data() + text.size() || n < 1 || n > cores) {
        fail_usage("--threads {}: wanted 1 to {}, the cores there are", text, cores);
      }
      flags.threads.push_back(n);
    }
  }
  if (flags.cpu_time) {
    if (flags.threads.empty()) flags.threads = {1};
    if (flags.threads != std::vector<int>{1})
      fail_usage("--cpu-time: wanted --threads 1, waiting threads use processor time too");
    use_processor_time();
  }
  if (flags.threads.empty()) flags.threads = cores > 1 ? std::vector<int>{1, cores} : std::vector<int>{1};
}

}  // namespace llmfp8::bench
