// The layout of huggingface_hub's cache: models--org--name/refs/main holds a hash, snapshots/<hash> the files.
#include "hub/hub_cache.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <vector>

#include "core/error.h"
#include "hub/file_io.h"

namespace llmfp8 {
namespace fs = std::filesystem;
namespace {

struct Kind {
  const char* flag;
  const char* noun;
  const char* prefix;
  std::vector<std::string> extensions;  // of the files that may be named directly
};

const Kind& model_kind() {
  static const Kind kind{"--model_name", "model", "models--", {".gguf"}};
  return kind;
}

const Kind& dataset_kind() {
  static const Kind kind{"--dataset_name", "dataset", "datasets--", {".parquet", ".jsonl"}};
  return kind;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::vector<fs::path> cache_folders(const std::string& cache_dir) {
  std::vector<fs::path> folders;
  if (!cache_dir.empty()) folders.emplace_back(cache_dir);
  if (const std::string hub = environment("HF_HUB_CACHE"); !hub.empty()) {
    folders.emplace_back(hub);
  } else if (const std::string home = environment("HF_HOME"); !home.empty()) {
    folders.push_back(fs::path(home) / "hub");
  } else if (const std::string cache = environment("XDG_CACHE_HOME"); !cache.empty()) {
    folders.push_back(fs::path(cache) / "huggingface" / "hub");
  } else if (const std::string user = environment("HOME"); !user.empty()) {
    folders.push_back(fs::path(user) / ".cache" / "huggingface" / "hub");
  }
  return folders;
}

// org/name of letters, digits, '.', '_' and '-', without "..": what the hub allows, and nothing that leaves the cache.
bool is_hub_name(const std::string& name) {
  const std::size_t slash = name.find('/');
  if (slash == std::string::npos || slash == 0 || slash + 1 == name.size() || name.size() > 200) return false;
  if (name.find('/', slash + 1) != std::string::npos || name.find("..") != std::string::npos) return false;
  if (name[0] == '.' || name[slash + 1] == '.') return false;
  return std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) || c == '.' || c == '_' || c == '-' || c == '/'; });
}

// The hub answers to both spellings of this one.
std::vector<std::string> spellings(const std::string& name) {
  const std::string org = "meta-llama/";
  const std::string plain = org + "Llama-3.1-";
  const std::string meta = org + "Meta-Llama-3.1-";
  if (name.starts_with(plain)) return {name, meta + name.substr(plain.size())};
  if (name.starts_with(meta)) return {name, plain + name.substr(meta.size())};
  return {name};
}

std::string trimmed(std::string text) {
  const auto blank = [](unsigned char c) { return std::isspace(c) != 0; };
  while (!text.empty() && blank(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

std::optional<fs::path> find_snapshot(const fs::path& repository, const Kind& kind) {
  std::error_code ignored;
  const fs::path snapshots = repository / "snapshots";
  if (!fs::is_directory(snapshots, ignored)) return std::nullopt;
  const fs::path ref = repository / "refs" / "main";
  if (fs::is_regular_file(ref, ignored)) {
    const std::string hash = trimmed(read_text_file(ref, 4096));
    const bool plain =
        !hash.empty() && std::all_of(hash.begin(), hash.end(), [](unsigned char c) { return std::isalnum(c); });
    CHECK(plain, "'{}' holds '{}', a commit hash wanted", ref.string(), hash.substr(0, 80));
    const fs::path snapshot = snapshots / hash;
    CHECK(fs::is_directory(snapshot, ignored), "{} '{}' is not completely in the cache: '{}' is missing", kind.noun,
          repository.filename().string(), snapshot.string());
    return snapshot;
  }
  std::vector<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(snapshots, ignored)) {
    if (entry.is_directory(ignored)) found.push_back(entry.path());
  }
  if (found.empty()) return std::nullopt;
  CHECK(found.size() == 1, "'{}' holds {} snapshots and no refs/main: give the folder of one of them",
        snapshots.string(), found.size());
  return found[0];
}

fs::path resolve(const std::string& name, const std::string& cache_dir, const Kind& kind) {
  CHECK(!name.empty() && name.find('\0') == std::string::npos, "{} is empty", kind.flag);
  std::error_code ignored;
  const fs::path path(name);
  if (fs::is_directory(path, ignored)) return path;
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  const bool named_file = std::find(kind.extensions.begin(), kind.extensions.end(), extension) != kind.extensions.end();
  if (fs::exists(path, ignored)) {
    if (!named_file)
      fail_usage("{} '{}' is a file; a folder or a {} file wanted", kind.flag, name,
                 fmt::join(kind.extensions, " or "));
    return path;
  }
  if (named_file) fail("{} '{}' does not exist", kind.flag, name);
  if (!is_hub_name(name)) {
    fail_usage("{} '{}' is neither a folder, nor a {} file, nor a hub name like org/name", kind.flag, name,
               fmt::join(kind.extensions, " or "));
  }
  std::string looked;
  for (const fs::path& cache : cache_folders(cache_dir)) {
    for (const std::string& spelling : spellings(name)) {
      std::string folder = kind.prefix + spelling;
      folder.replace(folder.find('/'), 1, "--");
      if (const std::optional<fs::path> snapshot = find_snapshot(cache / folder, kind)) return *snapshot;
    }
    looked += (looked.empty() ? "'" : ", '") + cache.string() + "'";
  }
  fail(
      "{} '{}' is not in the local Hugging Face cache (looked in {}); downloading is not built yet: give a folder with "
      "{} <path>",
      kind.noun, name, looked.empty() ? "no folder, HOME is not set" : looked, kind.flag);
}

}  // namespace

fs::path resolve_model(const std::string& name, const std::string& cache_dir) {
  return resolve(name, cache_dir, model_kind());
}

fs::path resolve_dataset(const std::string& name, const std::string& cache_dir) {
  return resolve(name, cache_dir, dataset_kind());
}

}  // namespace llmfp8
