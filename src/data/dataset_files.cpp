// The hub's two ways to lay out splits: patterns in the README's front matter, else names of files and folders.
#include "data/dataset_files.h"

#include <fnmatch.h>

#include <algorithm>
#include <regex>
#include <set>

#include <yaml-cpp/yaml.h>

#include "core/error.h"
#include "hub/file_io.h"
#include "hub/hub_repository.h"

namespace llmfp8 {

namespace fs = std::filesystem;

namespace {

using SplitFiles = std::map<std::string, std::vector<std::string>>;

constexpr std::size_t kMaxFiles = 100000;

bool is_data_file(const fs::path& path) { return !data_file_name(path).suffix.empty(); }

// Of those that no pattern names. A .json file holds rows only where nothing else does: beside .parquet and .jsonl it is
// about them; and under these names `datasets` writes what is about the files of a folder.
std::vector<std::string> files_with_rows(const std::vector<std::string>& files) {
  static const std::set<std::string> about = {"config.json", "dataset_info.json", "dataset_infos.json",
                                              "dataset_dict.json", "state.json"};
  std::vector<std::string> rows, json;
  for (const std::string& file : files) {
    const std::string suffix = data_file_name(file).suffix;
    if (suffix.starts_with(".json") && !suffix.starts_with(".jsonl")) {
      if (!about.contains(fs::path(file).filename().string())) json.push_back(file);
    } else if (!suffix.empty()) {
      rows.push_back(file);
    }
  }
  return rows.empty() ? json : rows;
}

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

// "data/**" reaches into folders, "data/*" does not; "data/**/x" takes data/x too.
bool matches(std::string pattern, const std::string& file) {
  if (pattern.starts_with("./")) pattern = pattern.substr(2);
  const std::size_t deep = pattern.find("**");
  if (fnmatch(pattern.c_str(), file.c_str(), deep == std::string::npos ? FNM_PATHNAME : 0) == 0) return true;
  const std::size_t folders = pattern.find("**/");
  return folders != std::string::npos && matches(pattern.substr(0, folders) + pattern.substr(folders + 3), file);
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
         wanted.empty() ? std::string("several configurations and none is the default; --dataset_config names one") : "no configuration \"" + wanted + "\"",
         joined(names));
  return chosen;
}

const std::regex& shard_pattern() {
  static const std::regex pattern("(.+?)-(\\d{5})-of-(\\d{5})(?:-[0-9a-f]+)?");
  return pattern;
}

// What `datasets` takes for a split: one of these words in a file's or folder's name, with nothing but - . _ blanks and digits
// around it.
const std::vector<std::pair<std::string, std::regex>>& split_words() {
  static const auto pattern = [](const char* words) { return std::regex(fmt::format("(^|.*[-._ 0-9])({})($|[-._ 0-9].*)", words)); };
  static const std::vector<std::pair<std::string, std::regex>> words = {
      {"train", pattern("train|training")}, {"validation", pattern("validation|valid|dev|val")}, {"test", pattern("test|testing|eval|evaluation")}};
  return words;
}

enum class Named { folder, file };

SplitFiles splits_by_words(const std::vector<std::string>& files, Named which) {
  SplitFiles splits;
  for (const std::string& file : files) {
    const fs::path path(file);
    std::vector<std::string> names;
    if (which == Named::file) names.push_back(path.filename().string());
    else for (const fs::path& part : path.parent_path()) names.push_back(part.string());
    for (const auto& [split, pattern] : split_words()) {
      const bool named = std::any_of(names.begin(), names.end(), [&p = pattern](const std::string& name) { return std::regex_match(name, p); });
      if (named) splits[split].push_back(file);
    }
  }
  return splits;
}

// Every name before "-00000-of-00002" or a number is a split. Where there is no data/<split>-00000-of-00001, so are the words of
// `datasets`, first of folders, else of files, else everything is "train".
SplitFiles splits_by_name(const std::vector<std::string>& all_files) {
  const std::vector<std::string> files = files_with_rows(all_files);
  SplitFiles splits;
  bool is_sharded = false;
  static const std::regex numbered("(.+?)[-_.]\\d+");
  for (const std::string& file : files) {
    const fs::path path(file);
    if (path.has_parent_path() && path.parent_path() != "data") continue;
    const std::string stem = data_file_name(path).stem;
    std::smatch parts;
    const bool is_shard = std::regex_match(stem, parts, shard_pattern());
    is_sharded = is_sharded || (is_shard && path.has_parent_path());
    splits[is_shard || std::regex_match(stem, parts, numbered) ? parts[1].str() : stem].push_back(file);
  }
  if (is_sharded || files.empty()) return splits;
  SplitFiles words = splits_by_words(files, Named::folder);
  if (words.empty()) words = splits_by_words(files, Named::file);
  if (words.empty()) words["train"] = files;
  splits.merge(words);  // what is there already stays
  return splits;
}

// Splits by the front matter; empty if it names no data files.
SplitFiles splits_by_front_matter(const DatasetListing& listing, const std::string& config) {
  const std::string readme = listing.origin + "/README.md";
  SplitFiles splits;
  try {
    const YAML::Node root = YAML::Load(front_matter(listing.readme));
    if (!root.IsMap() || !root["configs"] || !root["configs"].IsSequence() || root["configs"].size() == 0) return {};
    const YAML::Node chosen = choose_config(root["configs"], config, readme);
    if (chosen["data_dir"] && !chosen["data_files"]) {
      std::vector<std::string> inside;
      const std::string folder = fs::path(chosen["data_dir"].as<std::string>()).lexically_normal().generic_string() + "/";
      for (const std::string& file : listing.files)
        if (file.starts_with(folder)) inside.push_back(file.substr(folder.size()));
      for (auto& [split, files] : splits_by_name(inside))
        for (const std::string& file : files) splits[split].push_back(folder + file);
      return splits;
    }
    if (!chosen["data_files"]) return {};
    for (const auto& [split, patterns] : split_patterns(chosen["data_files"])) {
      std::vector<std::string> found;
      for (const std::string& pattern : patterns) add_pattern(pattern, listing.files, found);
      if (!found.empty()) splits[split] = std::move(found);  // a split that was not downloaded is not there
    }
  } catch (const YAML::Exception& error) {
    fail("{}: broken front matter, line {}: {}", readme, error.mark.line + 1, error.msg);
  }
  return splits;
}

// `gunzip -k` leaves both, which would be every row twice.
void check_packed_twice(const std::vector<std::string>& files, const std::string& origin) {
  std::map<std::string, std::string> by_name;  // without .gz and .zst
  for (const std::string& file : files) {
    const fs::path path(file);
    const bool is_packed = path.extension() == ".gz" || path.extension() == ".zst";
    const auto [other, is_new] =
        by_name.emplace(is_packed ? file.substr(0, file.size() - path.extension().string().size()) : file, file);
    CHECK(is_new, "{}: both {} and {}, which by their names hold the same rows; one of them is wanted", origin,
          other->second, file);
  }
}

// A download that was cut short would silently be a smaller data set.
void check_shards(const std::vector<std::string>& files, const std::string& origin) {
  std::map<std::string, std::pair<std::size_t, std::vector<std::size_t>>> shards;  // stem → of how many, which are there
  for (const std::string& name : files) {
    const fs::path file(name);
    const std::string stem = data_file_name(file).stem;
    std::smatch parts;
    if (!std::regex_match(stem, parts, shard_pattern())) continue;
    auto& [count, present] = shards[(origin / file.parent_path() / parts[1].str()).string() + "|" + parts[3].str()];
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

DataFileName data_file_name(const fs::path& file) {
  const std::string name = file.filename().string();
  for (const std::string& suffix : file_kinds(RepoKind::dataset))
    if (name.size() > suffix.size() && name.ends_with(suffix))
      return {name.substr(0, name.size() - suffix.size()), suffix};
  return {file.stem().string(), ""};
}

std::string front_matter(const std::string& readme) {
  if (!readme.starts_with("---\n") && !readme.starts_with("---\r\n")) return "";
  const std::size_t start = readme.find('\n') + 1, end = readme.find("\n---", start - 1);
  return end == std::string::npos ? "" : readme.substr(start, end + 1 - start);
}

SplitFiles split_files(const DatasetListing& listing, const std::string& config) {
  SplitFiles splits = splits_by_front_matter(listing, config);
  if (splits.empty()) splits = splits_by_name(listing.files);
  if (splits.empty()) {
    const std::vector<std::string>& files = listing.files;
    std::vector<std::string> some(files.begin(), files.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(5, files.size())));
    fail("{}: no files {} of a data set (found: {})", listing.origin, kDataFiles,
         some.empty() ? "nothing" : joined(some));
  }
  return splits;
}

std::vector<std::string> files_of_split(const DatasetListing& listing, const std::string& config, const std::string& split) {
  const SplitFiles splits = split_files(listing, config);
  const auto found = splits.find(split);
  if (found == splits.end()) {
    std::vector<std::string> names;
    for (const auto& [name, files] : splits) names.push_back(name);
    fail("dataset {}: no split \"{}\"; it has {}", listing.origin, split, joined(names));
  }
  for (const std::string& file : found->second)
    CHECK(is_data_file(file), "{}/{}: a {} file; {} can be read", listing.origin, file,
          fs::path(file).extension().empty() ? "nameless" : fs::path(file).extension().string(), kDataFiles);
  check_packed_twice(found->second, listing.origin);
  check_shards(found->second, listing.origin);
  return found->second;
}

DatasetListing list_folder(const fs::path& folder) {
  DatasetListing listing{folder.string(), relative_files(folder), {}};
  std::error_code ignored;
  if (fs::is_regular_file(folder / "README.md", ignored)) listing.readme = read_text_file(folder / "README.md");
  return listing;
}

}  // namespace llmfp8
