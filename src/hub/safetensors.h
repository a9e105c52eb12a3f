// Reading safetensors: one file, or a model folder (single file or shards with an index).
// Called by checkpoint_source, by the checkpoints of train/ and by tests.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/tensor.h"
#include "hub/file_io.h"

namespace llmfp8 {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;    // rank 1..4; a scalar (shape []) is read as [1]
  Tensor tensor;  // read-only view of the mapping; memcpy from it where a foreign file may be unaligned (see aligned)
  bool aligned = true;  // tensor.data is a multiple of its element size
};

std::string_view safetensors_dtype_name(DType dtype);  // "F32", "BF16", …

// A file whose header has been checked: sizes, dtypes, shapes, and offsets that cover the data without gap or overlap.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);
  static SafetensorsFile from_bytes(ByteSpan bytes, const std::string& origin);  // bytes must outlive the result

  const std::vector<std::string>& names() const { return names_; }  // in the order of the data
  const SafetensorsEntry* find(std::string_view name) const;        // null if there is none
  const SafetensorsEntry& at(std::string_view name) const;          // Error that names the file and the tensor
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& origin() const { return origin_; }

 private:
  void parse(ByteSpan bytes);

  std::string origin_;
  std::shared_ptr<MappedFile> mapping_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
};

// The weights of a model folder: model.safetensors, or model.safetensors.index.json and its shards.
class SafetensorsModel {
 public:
  static SafetensorsModel open(const std::filesystem::path& folder);

  std::vector<std::string> names() const;                     // sorted
  const SafetensorsEntry* find(std::string_view name) const;  // null if there is none
  const SafetensorsEntry& at(std::string_view name) const;
  const std::string& origin() const { return origin_; }

 private:
  std::string origin_;
  std::vector<SafetensorsFile> shards_;
  std::map<std::string, std::size_t, std::less<>> shard_of_;  // tensor name to index in shards_
};

}  // namespace llmfp8
