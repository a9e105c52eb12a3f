// Which files of a data set belong to which split, by their names and the README alone. Called by dataset and dataset_source.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace llmfp8 {

// A data set's files, here or on the hub, before any but the README is read.
struct DatasetListing {
  std::string origin;              // for messages
  std::vector<std::string> files;  // relative, sorted
  std::string readme;              // its text; empty where there is none
};

DatasetListing list_folder(const std::filesystem::path& folder);

// Split → its files in the order of their shards. config: as DatasetOptions::config.
// Throws Error: no data files, broken front matter, unknown configuration.
std::map<std::string, std::vector<std::string>> split_files(const DatasetListing& listing, const std::string& config);

// Of one split. Throws Error too where there is no such split (names those that are), where it is of a kind that is not read,
// where a shard is missing.
std::vector<std::string> files_of_split(const DatasetListing& listing, const std::string& config, const std::string& split);

// "data/train-00000-of-00002.jsonl.gz" → "train-00000-of-00002" and ".jsonl.gz". suffix: empty where it is of no kind
// that is read.
struct DataFileName {
  std::string stem, suffix;
};
DataFileName data_file_name(const std::filesystem::path& file);

// What is read, for messages.
inline constexpr const char* kDataFiles = ".parquet, .jsonl or .json (of JSON Lines; these two also as .gz or .zst)";

// The YAML between the first two "---" lines of a README; empty if there is none.
std::string front_matter(const std::string& readme);

}  // namespace llmfp8
