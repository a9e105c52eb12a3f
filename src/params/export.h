// The model as an HF folder: the same keys and dtypes as its source, streamed shard by shard, read back and compared
// before it counts as saved.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "hub/checkpoint_source.h"
#include "params/param_store.h"

namespace llmfp8 {

// What an export has to look like, taken from the source before training.
struct ExportSpec {
  struct Entry {
    std::string name;  // HF name
    DType dtype = DType::bf16;
  };
  std::vector<Entry> tensors;                  // in the table's order
  std::map<std::string, std::string> files;    // config.json, tokenizer.json, …: byte for byte those of the source
  std::size_t max_shard_bytes = std::size_t{5} << 30;

  static ExportSpec of(const WeightSource& source, const WeightTable& table);
  // What an export takes on disk.
  std::size_t bytes(const WeightTable& table) const;
};

// Writes the model's files into `folder`; the values are those that the model computes with (an exact-update remainder
// belongs to checkpoints). Each appears whole; files of an earlier export are replaced by renames once all
// new ones are written and verified. Throws Error: not writable, disk full, or a file that reads back differently.
void export_model(const ExportSpec& spec, const LocalParamStore& store, Backend& backend, Stream& stream,
                  const std::filesystem::path& folder);

}  // namespace llmfp8
