// The rules of docs/architecture.md that can be read off the source text. Called by structure_test.cpp alone.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace llmfp8::structure {

// path: relative to the repository, for example "src/model/linear.cpp". text: the file's. Each result is one line
// "path:line: what is wrong"; none means that the file keeps the rule.
std::vector<std::string> module_order_violations(const std::string& path, const std::string& text);
std::vector<std::string> vendor_header_violations(const std::string& path, const std::string& text);
std::vector<std::string> machine_name_violations(const std::string& path, const std::string& text);

// Files of the repository that a person wrote as text, relative to root; build folders and golden files are not among them.
std::vector<std::string> source_files(const std::filesystem::path& root);

}  // namespace llmfp8::structure
