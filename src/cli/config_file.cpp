// YAML through yaml-cpp. TOML by hand: a flat file is lines of key = value, and none of our libraries reads TOML.
#include "cli/config_file.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>

#include <yaml-cpp/yaml.h>

#include "core/error.h"

namespace llmfp8 {
namespace {

constexpr std::uintmax_t kLargestFile = 1 << 20;

std::string read_text(const std::filesystem::path& path) {
  std::error_code status;
  if (!std::filesystem::is_regular_file(path, status)) fail_usage("--config {}: no such file", path.string());
  const std::uintmax_t size = std::filesystem::file_size(path, status);
  if (status || size > kLargestFile) fail_usage("--config {}: wanted a file of at most 1 MiB", path.string());
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) {
    if (size == 0) return {};
    fail_usage("--config {}: cannot be read", path.string());
  }
  return std::move(text).str();
}

std::vector<ConfigEntry> parse_yaml(const std::string& file, const std::string& text) {
  std::vector<ConfigEntry> entries;
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.size() > 1) fail_usage("{}: wanted one YAML document, found {}", file, documents.size());
    if (documents.empty() || documents[0].IsNull()) return entries;
    const YAML::Node& root = documents[0];
    if (!root.IsMap()) fail_usage("{}: wanted lines of the form key: value", file);
    for (const auto& item : root) {
      const int line = item.first.Mark().line + 1;
      if (!item.first.IsScalar()) fail_usage("{}:{}: wanted a flag's name as the key", file, line);
      const std::string& key = item.first.Scalar();
      if (!item.second.IsScalar())
        fail_usage("{}:{}: {}: wanted one value, not a list, a section or nothing", file, line, key);
      entries.push_back({key, item.second.Scalar(), line});
    }
  } catch (const YAML::Exception& error) {
    fail_usage("{}:{}: not valid YAML: {}", file, error.mark.line + 1, error.msg);
  }
  return entries;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const auto first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

// rest: what stands after the opening quote. Returns the string and leaves in `rest` what follows the closing quote.
std::optional<std::string> quoted_string(std::string_view& rest, char quote) {
  std::string out;
  for (std::size_t i = 0; i < rest.size(); ++i) {
    if (rest[i] == quote) {
      rest = rest.substr(i + 1);
      return out;
    }
    if (quote == '"' && rest[i] == '\\') {
      constexpr std::string_view kNames = "\"\\tnr";
      constexpr std::string_view kMeanings = "\"\\\t\n\r";
      if (++i == rest.size()) return std::nullopt;
      const auto at = kNames.find(rest[i]);
      if (at == std::string_view::npos) return std::nullopt;
      out += kMeanings[at];
    } else {
      out += rest[i];
    }
  }
  return std::nullopt;
}

bool is_blank_or_comment(std::string_view text) {
  text = trimmed(text);
  return text.empty() || text.front() == '#';
}

// A key or a value: quoted, or bare up to a blank, '=' or '#'.
std::optional<std::string> token(std::string_view& rest) {
  rest = trimmed(rest);
  if (rest.empty()) return std::nullopt;
  if (rest.front() == '"' || rest.front() == '\'') {
    const char quote = rest.front();
    rest.remove_prefix(1);
    return quoted_string(rest, quote);
  }
  const std::size_t end = std::min(rest.find_first_of(" \t=#,"), rest.size());
  std::string out(rest.substr(0, end));
  rest.remove_prefix(end);
  if (out.empty()) return std::nullopt;
  return out;
}

std::vector<ConfigEntry> parse_toml(const std::string& file, const std::string& text) {
  std::vector<ConfigEntry> entries;
  std::istringstream in(text);
  std::string raw;
  for (int line = 1; std::getline(in, raw); ++line) {
    std::string_view rest = raw;
    if (is_blank_or_comment(rest)) continue;
    if (trimmed(rest).front() == '[')
      fail_usage("{}:{}: wanted lines of the form key = value, not a section", file, line);
    const auto key = token(rest);
    rest = trimmed(rest);
    if (!key || rest.empty() || rest.front() != '=')
      fail_usage("{}:{}: wanted a line of the form key = value", file, line);
    rest = trimmed(rest.substr(1));
    if (!rest.empty() && (rest.front() == '[' || rest.front() == '{'))
      fail_usage("{}:{}: {}: wanted one value", file, line, *key);
    const bool is_bare = !rest.empty() && rest.front() != '"' && rest.front() != '\'';
    auto value = token(rest);
    if (!value || !is_blank_or_comment(rest)) {
      fail_usage("{}:{}: {}: wanted one number, true, false or a \"string\"", file, line, *key);
    }
    // TOML allows 1_000_000.
    if (is_bare && std::isdigit(static_cast<unsigned char>(value->front()))) std::erase(*value, '_');
    entries.push_back({*key, *value, line});
  }
  return entries;
}

}  // namespace

std::vector<ConfigEntry> read_config_file(const std::filesystem::path& path) {
  const std::string file = path.string();
  const std::string extension = path.extension().string();
  const bool is_yaml = extension == ".yaml" || extension == ".yml";
  if (!is_yaml && extension != ".toml")
    fail_usage("--config {}: wanted a file that ends in .yaml, .yml or .toml", file);
  const std::string text = read_text(path);
  std::vector<ConfigEntry> entries = is_yaml ? parse_yaml(file, text) : parse_toml(file, text);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (entries[i].key != entries[j].key) continue;
      fail_usage("{}:{}: {} stands twice (first in line {})", file, entries[i].line, entries[i].key, entries[j].line);
    }
  }
  return entries;
}

}  // namespace llmfp8
