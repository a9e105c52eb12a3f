// The model as an HF folder: the same keys and dtypes as its source, streamed shard by shard, read back and compared
// before it counts as saved.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "backend/host_bytes.h"
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
  // Of a model without a source: every weight in one dtype, and no other files.
  static ExportSpec of(const WeightTable& table, DType dtype);
};

// Writes the model's files into `folder`; the values are those that the model computes with (an exact-update remainder
// belongs to checkpoints). Each appears whole; files of an earlier export are replaced by renames once all
// new ones are written and verified. Throws Error: not writable, disk full, or a file that reads back differently.
void export_model(const ExportSpec& spec, const LocalParamStore& store, Backend& backend, Stream& stream,
                  const std::filesystem::path& folder);
// values: of the store's weights, asked for twice (written, compared); the store itself is only asked for its layout.
void export_model(const ExportSpec& spec, const LocalParamStore& store, HostBytes& values,
                  const std::filesystem::path& folder);

// Of all files together.
std::size_t export_bytes(const ExportSpec& spec, const WeightTable& table);
// Whether the exported files give every bit of a parameter of this dtype back.
bool export_is_exact(const ExportSpec& spec, const ParamSpec& param, DType dtype);

}  // namespace llmfp8
