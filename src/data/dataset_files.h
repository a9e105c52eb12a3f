// Which files of a data set's folder belong to which split. Called by dataset.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace llmfp8 {

// Split → its files in the order of their shards. config: as DatasetOptions::config.
// Throws Error: no folder, no data files, broken front matter, unknown configuration, a missing shard.
std::map<std::string, std::vector<std::filesystem::path>> find_split_files(const std::filesystem::path& folder,
                                                                           const std::string& config);

// The YAML between the first two "---" lines of a README; empty if there is none.
std::string front_matter(const std::string& readme);

}  // namespace llmfp8
