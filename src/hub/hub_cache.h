// From what a user types after --model_name or --dataset_name to a path on this machine.
// Called by cli/ before anything is loaded.
#pragma once

#include <filesystem>
#include <string>

namespace llmfp8 {

// A folder in HF layout, a .gguf file, or a hub name "org/name" found in a local HF cache. cache_dir (the flag
// --weights_cache_dir) is looked in first if it is not empty, then HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub.
// Error: one line that says where it looked; a usage error if the name is neither a path nor of the form org/name.
std::filesystem::path resolve_model(const std::string& name, const std::string& cache_dir = "");

// A folder, a .parquet or .jsonl file, or a hub name "org/name".
std::filesystem::path resolve_dataset(const std::string& name, const std::string& cache_dir = "");

}  // namespace llmfp8
