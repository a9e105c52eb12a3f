#include "structure/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <sstream>

namespace llmfp8::structure {
namespace {

namespace fs = std::filesystem;

// A room may include itself and rooms of a smaller rank. Rooms of one rank do not know each other.
const std::map<std::string, int> kRanks = {{"core", 0},  {"report", 1}, {"hub", 1},    {"text", 1},  {"backend", 1},
                                           {"data", 2},  {"fp8", 2},    {"params", 3}, {"model", 4}, {"dist", 4},
                                           {"optim", 5}, {"train", 6},  {"cli", 7}};

// "src/model/linear.cpp" -> "model"; nothing for a file outside src/.
std::optional<std::string> room_of(const std::string& path) {
  if (!path.starts_with("src/")) return std::nullopt;
  const std::size_t end = path.find('/', 4);
  if (end == std::string::npos) return std::nullopt;
  return path.substr(4, end - 4);
}

struct Include {
  int line;
  std::string target;
  bool quoted;
};

std::vector<Include> includes_of(const std::string& text) {
  static const std::regex pattern(R"(^\s*#\s*include\s*([<"])([^>"]+)[>"])");
  std::vector<Include> found;
  std::istringstream in(text);
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    std::smatch match;
    if (std::regex_search(line, match, pattern)) found.push_back({number, match[2], match[1] == "\""});
  }
  return found;
}

bool under_any(const std::string& path, const std::vector<std::string>& folders) {
  return std::any_of(folders.begin(), folders.end(),
                     [&](const std::string& folder) { return path.starts_with(folder); });
}

}  // namespace

std::vector<std::string> module_order_violations(const std::string& path, const std::string& text) {
  std::vector<std::string> wrong;
  const std::optional<std::string> room = room_of(path);
  if (!room) return wrong;
  const auto own = kRanks.find(*room);
  if (own == kRanks.end()) return {fmt::format("{}:1: src/{} is no room of docs/architecture.md", path, *room)};
  for (const Include& include : includes_of(text)) {
    if (!include.quoted) continue;
    const std::string other = include.target.substr(0, include.target.find('/'));
    if (other == include.target || !kRanks.contains(other)) {
      wrong.push_back(
          fmt::format("{}:{}: \"{}\" does not begin with a room of src/", path, include.line, include.target));
    } else if (other != *room && kRanks.at(other) >= own->second) {
      wrong.push_back(
          fmt::format("{}:{}: {} may not include {} ({})", path, include.line, *room, other, include.target));
    }
  }
  return wrong;
}

std::vector<std::string> vendor_header_violations(const std::string& path, const std::string& text) {
  struct Vendor {
    std::regex header;
    std::vector<std::string> homes;
  };
  static const std::vector<std::string> kGpu = {"src/backend/cuda/", "src/backend/te/", "src/dist/nccl",
                                                "tests/backend/cuda/", "bench/cuda/"};
  static const std::array<Vendor, 3> vendors = {
      Vendor{std::regex(
                 R"(^(cuda|cublas|cudnn|curand|nvrtc|nvml|nvtx3?[/.]|cub/|cute/|cutlass/|thrust/|cooperative_groups))"),
             kGpu},
      Vendor{std::regex(R"(^nccl)"), kGpu},
      Vendor{std::regex(R"(^transformer_engine/)"), {"src/backend/te/"}},
  };
  std::vector<std::string> wrong;
  for (const Include& include : includes_of(text)) {
    for (const Vendor& vendor : vendors) {
      if (std::regex_search(include.target, vendor.header) && !under_any(path, vendor.homes)) {
        wrong.push_back(
            fmt::format("{}:{}: {} stays under {}", path, include.line, include.target, fmt::join(vendor.homes, ", ")));
      }
    }
  }
  return wrong;
}

std::vector<std::string> machine_name_violations(const std::string& path, const std::string& text) {
  // Written in pieces, so that this file keeps its own rule. A folder counts where no name stands before it, so that
  // source_dir() / "tmp/x" and ${root}/ stay possible.
  static const std::regex folder(std::string("(^|[^A-Za-z0-9_.})/-])/(wo") + "rk|ro" + "ot|tm" + "p|ho" + "me)(/|\\b)");
  static const std::vector<std::string> hosts = {
      std::string("pypi.") + "org",       std::string("pythonhosted.") + "org",
      std::string("deb.debian.") + "org", std::string("security.debian.") + "org",
      std::string("--index-") + "url",    std::string("PIP_INDEX_") + "URL"};
  std::vector<std::string> wrong;
  std::istringstream in(text);
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    std::smatch match;
    if (std::regex_search(line, match, folder)) {
      wrong.push_back(fmt::format("{}:{}: names a folder of one machine: {}", path, number, match.str()));
    }
    for (const std::string& host : hosts) {
      if (line.find(host) != std::string::npos)
        wrong.push_back(fmt::format("{}:{}: names the registry {}", path, number, host));
    }
  }
  return wrong;
}

std::vector<std::string> source_files(const fs::path& root) {
  static const std::set<std::string> folders = {"apps", "bench", "cmake", "docs", "src", "tests", "tools", ".ci"};
  static const std::set<std::string> suffixes = {".h",     ".cpp", ".cc", ".cu", ".cuh",  ".txt",
                                                 ".cmake", ".md",  ".sh", ".py", ".json", ""};
  std::vector<std::string> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    // Git's own: a file in a linked worktree, which says where on this machine the repository lies.
    if (name == ".git") continue;
    // The links to built programs in the root are no source.
    if (entry.is_regular_file() && !entry.is_symlink() && suffixes.contains(entry.path().extension().string()))
      files.push_back(name);
    if (!entry.is_directory() || !folders.contains(name)) continue;
    for (const fs::directory_entry& file : fs::recursive_directory_iterator(entry)) {
      const std::string path = fs::relative(file.path(), root).generic_string();
      if (!file.is_regular_file() || path.starts_with("tests/golden/") || path.find("__pycache__") != std::string::npos)
        continue;
      if (path.find("/corpus/") != std::string::npos) continue;
      if (suffixes.contains(file.path().extension().string())) files.push_back(path);
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace llmfp8::structure
