// A checkpoint: a folder with the model as transformers reads it, and beside it everything else that a run needs to go
// on bit for bit. Written by CheckpointSaver, opened by --resume; docs/checkpoints.md describes the files.
//
//   model.safetensors, config.json, …        the model (params/export.h)
//   state/training_state*.safetensors        device tensors that the model's files do not hold (Engine::state_tensors)
//   state/state.json                         counters, data cursor, statistics, flags, what really ran
//   checksums.json                           size and CRC-32C of every file above
#pragma once

#include <cstddef>
#include <filesystem>
#include <vector>

#include <nlohmann/json.hpp>

#include "params/export.h"
#include "train/engine.h"

namespace llmfp8 {

inline constexpr std::int64_t kCheckpointFormat = 1;  // state.json's "format"; others are refused

// What is written. The pointers outlive the write; neither is asked for values.
struct CheckpointContent {
  const ExportSpec* model = nullptr;
  const LocalParamStore* store = nullptr;
  std::vector<NamedTensor> tensors;  // for state/
  nlohmann::ordered_json state;      // for state.json, without "format"
  std::size_t max_shard_bytes = std::size_t{5} << 30;
};

// The engine's state tensors without the weights that the model's files hold exactly.
std::vector<NamedTensor> tensors_beside_model(const Engine& engine, const ExportSpec& model);

// Of all files, to within the JSON's size.
std::size_t checkpoint_bytes(const CheckpointContent& content);

// Writes everything into an empty folder and reads it back. values: of the tensors and of the store's weights. Throws
// Error: too little room on the disk (looked at first), not writable, or a file that reads back differently.
void write_checkpoint(const CheckpointContent& content, HostBytes& values, const std::filesystem::path& folder);

// A checkpoint whose files have all been read and are as they were written.
class Checkpoint {
 public:
  // Throws Error that names the folder, the file and what is wrong: missing, other size, other checksum, another
  // format.
  static Checkpoint open(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  const nlohmann::ordered_json& state() const { return state_; }
  std::int64_t step() const { return step_; }

  // Weights and state tensors into an engine of the same model and options, and its counters. Throws Error: a tensor is
  // missing, too many, or of another dtype or shape (name, found, wanted).
  void load(Engine& engine, const ExportSpec& model) const;

 private:
  std::filesystem::path folder_;
  nlohmann::ordered_json state_;
  std::int64_t step_ = 0;
};

// The checksums of all files below a folder, and their test. Throws Error that names the file.
void write_checksums(const std::filesystem::path& folder);
void verify_checksums(const std::filesystem::path& folder);

}  // namespace llmfp8
