// Where the modules lie: libraries of our own, libllmfp8_*.so, which a program opens on first use. Called by
// whoever opens one.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace llmfp8 {

// The folder of the running program.
std::filesystem::path program_folder();

// LLMFP8_LIB_DIR alone where it is set; else lib/ beside the program's folder (bin/ and lib/ of a build or a bundle),
// lib/ in it, and the folder itself.
std::vector<std::filesystem::path> module_folders();

// The first file of that name; empty where there is none.
std::filesystem::path find_module(std::string_view name);

// Where find_module looked, for the message of one that is missing: "LLMFP8_LIB_DIR=x", or the folders that exist.
std::string module_places();

// "a, b and c"
std::string folder_list(const std::vector<std::filesystem::path>& folders);

}  // namespace llmfp8
