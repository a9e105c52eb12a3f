// Where files lie that can be made again: the tokens of data sets, the timed choices of a GPU's algorithms.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace llmfp8 {

// LLMFP8_CACHE_DIR, else $XDG_CACHE_HOME/llm-fp8, else ~/.cache/llm-fp8; empty where none of the variables is set. It may not
// be there yet.
inline std::filesystem::path user_cache_folder() {
  const auto variable = [](const char* name) -> std::filesystem::path {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const auto own = variable("LLMFP8_CACHE_DIR"); !own.empty()) return own;
  if (const auto caches = variable("XDG_CACHE_HOME"); !caches.empty()) return caches / "llm-fp8";
  if (const auto home = variable("HOME"); !home.empty()) return home / ".cache" / "llm-fp8";
  return {};
}

}  // namespace llmfp8
