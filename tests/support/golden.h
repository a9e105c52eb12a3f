// Where tests find golden files, and small readers for them. LLMFP8_GOLDENS names another folder of the same layout.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace llmfp8::testing {

std::filesystem::path golden_dir();   // models/, packing/, fp8/, tokenizers/, chat/, split/, schedule/
std::filesystem::path source_dir();   // the repository
std::filesystem::path program(const std::string& name);  // a built program, for example "llm-fp8"
nlohmann::json read_json(const std::filesystem::path& path);
std::vector<nlohmann::json> read_jsonl(const std::filesystem::path& path);

// LLMFP8_TEST_PYTHON, else the project's .venv, else python3.
std::string test_python();
// Empty where test_python() can import all of "torch, transformers"; else the reason, for GTEST_SKIP().
std::string why_python_lacks(const std::string& modules);
// What a script of tests/report prints about a path, by test_python(); `out` takes its output. Fails the test where it fails.
nlohmann::json read_with_python(const std::string& script, const std::filesystem::path& path, const std::filesystem::path& out);

// A folder that is removed at the end of the test.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace llmfp8::testing
