// Reads a config file, YAML (.yaml, .yml) or TOML (.toml), into pairs of flag and text. Called by run_config.cpp.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace llmfp8 {

struct ConfigEntry {
  std::string key;
  std::string value;
  int line = 0;  // 1-based
};

// Flat files only: nested values, lists and a key that stands twice are refused. Throws a usage Error that names the
// file and line.
std::vector<ConfigEntry> read_config_file(const std::filesystem::path& path);

}  // namespace llmfp8
