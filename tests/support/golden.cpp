#include "support/golden.h"

#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include <gtest/gtest.h>

namespace llmfp8::testing {

namespace fs = std::filesystem;

fs::path golden_dir() {
  const char* other = std::getenv("LLMFP8_GOLDENS");
  return other != nullptr ? fs::path(other) : fs::path(LLMFP8_GOLDEN_DIR);
}

fs::path source_dir() { return LLMFP8_SOURCE_DIR; }

fs::path program(const std::string& name) { return fs::path(LLMFP8_BIN_DIR) / name; }

nlohmann::json read_json(const fs::path& path) {
  std::ifstream in(path);
  if (!in) throw std::runtime_error("cannot open " + path.string());
  return nlohmann::json::parse(in);
}

std::vector<nlohmann::json> read_jsonl(const fs::path& path) {
  std::ifstream in(path);
  if (!in) throw std::runtime_error("cannot open " + path.string());
  std::vector<nlohmann::json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(nlohmann::json::parse(line));
  return rows;
}

std::string test_python() {
  if (const char* given = std::getenv("LLMFP8_TEST_PYTHON"); given != nullptr && *given != '\0') return given;
  const fs::path venv = source_dir() / ".venv" / "bin" / "python";
  return fs::exists(venv) ? venv.string() : "python3";
}

std::string why_python_lacks(const std::string& modules) {
  if (std::system((test_python() + " -c 'import " + modules + "' >/dev/null 2>&1").c_str()) == 0) return "";
  return test_python() + " cannot import " + modules + " (LLMFP8_TEST_PYTHON names another Python)";
}

nlohmann::json read_with_python(const std::string& script, const fs::path& path, const fs::path& out) {
  const std::string command = test_python() + " '" + (source_dir() / "tests/report" / script).string() + "' '" + path.string() + "' >'" +
                              out.string() + "' 2>'" + out.string() + ".log'";
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  return read_json(out);
}

TempDir::TempDir() {
  std::string pattern = (fs::temp_directory_path() / "llmfp8_XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace llmfp8::testing
