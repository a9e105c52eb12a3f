// The hub's two ways to lay out splits: patterns in the README's front matter, else names of files. Called by dataset.
#include "data/dataset_files.h"

#include <fnmatch.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <regex>

#include <yaml-cpp/yaml.h>

#include "core/error.h"

namespace llmfp8 {

namespace fs = std::filesystem;

namespace {

using SplitFiles = std::map<std::string, std::vector<fs::path>>;

constexpr std::size_t kMaxFiles = 100000;

bool is_data_file(const fs::path& path) { return path.extension() == ".parquet" || path.extension() == ".jsonl"; }

// Every file below the folder, relative to it, sorted; hidden files and folders left out.
std::vector<std::string> relative_files(const fs::path& folder) {
  std::vector<std::string> files;
  const auto options = fs::directory_options::follow_directory_symlink | fs::directory_options::skip_permission_denied;
  for (auto entry = fs::recursive_directory_iterator(folder, options); entry != fs::recursive_directory_iterator(); ++entry) {
    if (entry.depth() > 8 || entry->path().filename().string().starts_with('.')) {
      if (entry->is_directory()) entry.disable_recursion_pending();
      continue;
    }
    if (entry->is_regular_file()) files.push_back(entry->path().lexically_relative(folder).generic_string());
    CHECK(files.size() <= kMaxFiles, "{}: more than {} files; a data set's folder is wanted", folder.string(), kMaxFiles);
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string joined(const std::vector<std::string>& names) { return fmt::format("{}", fmt::join(names, ", ")); }

// "data/**" reaches into folders, "data/*" does not.
bool matches(const std::string& pattern, const std::string& file) {
  const bool deep = pattern.find("**") != std::string::npos;
  return fnmatch(pattern.c_str(), file.c_str(), deep ? 0 : FNM_PATHNAME) == 0;
}

void add_pattern(const std::string& pattern, const std::vector<std::string>& files, std::vector<std::string>& out) {
  for (const std::string& file : files)
    if (matches(pattern, file) && std::find(out.begin(), out.end(), file) == out.end()) out.push_back(file);
}

std::vector<std::string> patterns_of(const YAML::Node& node) {
  if (node.IsScalar()) return {node.as<std::string>()};
  std::vector<std::string> patterns;
  if (node.IsSequence())
    for (const auto& item : node) patterns.push_back(item.as<std::string>());
  return patterns;
}

// data_files is a pattern, a list of patterns (both: split train), a list of {split, path}, or a map split → patterns.
std::map<std::string, std::vector<std::string>> split_patterns(const YAML::Node& data_files) {
  std::map<std::string, std::vector<std::string>> patterns;
  if (data_files.IsMap()) {
    for (const auto& item : data_files) patterns[item.first.as<std::string>()] = patterns_of(item.second);
  } else if (data_files.IsSequence() && data_files.size() > 0 && data_files[0].IsMap()) {
    for (const auto& item : data_files) {
      const std::string split = item["split"] ? item["split"].as<std::string>() : "train";
      for (const std::string& pattern : patterns_of(item["path"])) patterns[split].push_back(pattern);
    }
  } else {
    patterns["train"] = patterns_of(data_files);
  }
  return patterns;
}

YAML::Node choose_config(const YAML::Node& configs, const std::string& wanted, const std::string& readme) {
  std::vector<std::string> names;
  YAML::Node chosen;
  for (const auto& config : configs) {
    const std::string name = config["config_name"] ? config["config_name"].as<std::string>() : "default";
    names.push_back(name);
    const bool preferred = name == "default" || (config["default"] && config["default"].as<bool>(false));
    if (wanted.empty() ? preferred || configs.size() == 1 : name == wanted) chosen.reset(config);
  }
  if (!chosen.IsMap())
    fail("{}: {}; it has the configurations {}", readme,
         wanted.empty() ? std::string("several configurations and none is the default") : "no configuration \"" + wanted + "\"",
         joined(names));
  return chosen;
}

// Splits by the front matter; empty if it names no data files.
SplitFiles splits_by_front_matter(const fs::path& folder, const std::string& config, const std::vector<std::string>& files) {
  const fs::path readme = folder / "README.md";
  std::ifstream in(readme, std::ios::binary);
  if (!in) return {};
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  SplitFiles splits;
  try {
    const YAML::Node root = YAML::Load(front_matter(text));
    if (!root.IsMap() || !root["configs"] || !root["configs"].IsSequence() || root["configs"].size() == 0) return {};
    const YAML::Node chosen = choose_config(root["configs"], config, readme.string());
    if (!chosen["data_files"]) return {};
    for (const auto& [split, patterns] : split_patterns(chosen["data_files"])) {
      std::vector<std::string> found;
      for (const std::string& pattern : patterns) add_pattern(pattern, files, found);
      // A split that was not downloaded is not there.
      for (const std::string& file : found) splits[split].push_back(folder / file);
    }
  } catch (const YAML::Exception& error) {
    fail("{}: broken front matter, line {}: {}", readme.string(), error.mark.line + 1, error.msg);
  }
  return splits;
}

const std::regex& shard_pattern() {
  static const std::regex pattern("(.+?)-(\\d{5})-of-(\\d{5})(?:-[0-9a-f]+)?");
  return pattern;
}

SplitFiles splits_by_name(const fs::path& folder, const std::vector<std::string>& files) {
  SplitFiles splits;
  static const std::regex numbered("(.+?)[-_.]\\d+");
  for (const std::string& file : files) {
    const fs::path path(file);
    if (!is_data_file(path) || (path.has_parent_path() && path.parent_path() != "data")) continue;
    const std::string stem = path.stem().string();
    std::smatch parts;
    const bool matched = std::regex_match(stem, parts, shard_pattern()) || std::regex_match(stem, parts, numbered);
    splits[matched ? parts[1].str() : stem].push_back(folder / path);
  }
  return splits;
}

// A download that was cut short would silently be a smaller data set.
void check_shards(const std::vector<fs::path>& files) {
  std::map<std::string, std::pair<std::size_t, std::vector<std::size_t>>> shards;  // stem → of how many, which are there
  for (const fs::path& file : files) {
    const std::string stem = file.stem().string();
    std::smatch parts;
    if (!std::regex_match(stem, parts, shard_pattern())) continue;
    auto& [count, present] = shards[(file.parent_path() / parts[1].str()).string() + "|" + parts[3].str()];
    count = std::stoul(parts[3]);
    present.push_back(std::stoul(parts[2]));
  }
  for (auto& [key, shard] : shards) {
    auto& [count, present] = shard;
    std::sort(present.begin(), present.end());
    for (std::size_t i = 0; i < count; ++i)
      if (i >= present.size() || present[i] != i)
        fail("{}: shard {:05} of {:05} is missing; the data set is not complete", key.substr(0, key.find('|')), i, count);
  }
}

}  // namespace

std::string front_matter(const std::string& readme) {
  if (!readme.starts_with("---\n") && !readme.starts_with("---\r\n")) return "";
  const std::size_t start = readme.find('\n') + 1, end = readme.find("\n---", start - 1);
  return end == std::string::npos ? "" : readme.substr(start, end + 1 - start);
}

SplitFiles find_split_files(const fs::path& folder, const std::string& config) {
  const std::vector<std::string> files = relative_files(folder);
  SplitFiles splits = splits_by_front_matter(folder, config, files);
  if (splits.empty()) splits = splits_by_name(folder, files);
  if (splits.empty()) {
    std::vector<std::string> some(files.begin(), files.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(5, files.size())));
    fail("{}: no .parquet or .jsonl files of a data set (found: {})", folder.string(), some.empty() ? "nothing" : joined(some));
  }
  for (const auto& [split, split_files] : splits) {
    for (const fs::path& file : split_files)
      CHECK(is_data_file(file), "{}: a {} file; .parquet and .jsonl can be read", file.string(),
            file.extension().empty() ? "nameless" : file.extension().string());
    check_shards(split_files);
  }
  return splits;
}

}  // namespace llmfp8
