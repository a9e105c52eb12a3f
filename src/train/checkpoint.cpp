#include "train/checkpoint.h"

#include <algorithm>
#include <map>
#include <set>
#include <system_error>

#include "core/crc32c.h"
#include "hub/file_io.h"
#include "hub/safetensors.h"
#include "hub/safetensors_writer.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kChecksums = "checksums.json";
constexpr const char* kStateFolder = "state";
constexpr const char* kStateFile = "state/state.json";
constexpr std::size_t kSpareBytes = std::size_t{64} << 20;  // JSON, the file system's own

std::string hex(std::uint32_t crc) { return fmt::format("{:08x}", crc); }

std::uint32_t file_crc(const fs::path& file) {
  if (fs::file_size(file) == 0) return 0;
  const MappedFile mapped(file);
  return crc32c(mapped.bytes().data(), mapped.bytes().size());
}

using Shards = std::vector<std::vector<NamedTensor>>;

Shards cut_into_shards(const std::vector<NamedTensor>& tensors, std::size_t max_bytes) {
  Shards shards(1);
  std::size_t filled = 0;
  for (const NamedTensor& entry : tensors) {
    if (filled > 0 && filled + entry.tensor.bytes() > max_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    filled += entry.tensor.bytes();
    shards.back().push_back(entry);
  }
  return shards;
}

// Returns the shards' names, relative to the checkpoint.
std::vector<std::string> write_tensors(const CheckpointContent& content, HostBytes& values, const fs::path& folder) {
  std::vector<std::string> files;
  const Shards shards = cut_into_shards(content.tensors, content.max_shard_bytes);
  for (std::size_t i = 0; i < shards.size(); ++i) {
    if (shards[i].empty()) continue;
    files.push_back(shards.size() == 1 ? fmt::format("{}/training_state.safetensors", kStateFolder)
                                       : fmt::format("{}/training_state-{:05}-of-{:05}.safetensors", kStateFolder,
                                                     i + 1, shards.size()));
    std::vector<TensorDeclaration> declarations;
    for (const NamedTensor& entry : shards[i])
      declarations.push_back({entry.name, entry.tensor.dtype, entry.tensor.shape});
    write_verified_safetensors(folder / files.back(), declarations, [&](std::size_t k, const PutBytes& put) {
      const Tensor& tensor = shards[i][k].tensor;
      for_each_piece(tensor.bytes(),
                     [&](std::size_t offset, std::size_t bytes) { put(values.read(tensor, offset, bytes)); });
    });
  }
  return files;
}

std::map<std::string, SafetensorsFile> open_shards(const fs::path& folder, const Json& state) {
  std::map<std::string, SafetensorsFile> shards;
  for (const Json& file : state.at("shards")) {
    const std::string name = file;
    shards.emplace(name, SafetensorsFile::open(folder / name));
  }
  return shards;
}

}  // namespace

std::vector<NamedTensor> tensors_beside_model(const Engine& engine, const ExportSpec& model) {
  std::set<const void*> in_model;
  const LocalParamStore& store = engine.params();
  for (const ParamSpec& param : store.table().params())
    if (export_is_exact(model, param, store.dtype())) in_model.insert(store.weight(param.index).data);
  std::vector<NamedTensor> tensors = engine.state_tensors();
  std::erase_if(tensors, [&](const NamedTensor& entry) { return in_model.contains(entry.tensor.data); });
  return tensors;
}

std::size_t checkpoint_bytes(const CheckpointContent& content) {
  std::size_t bytes = export_bytes(*content.model, content.store->table());
  for (const NamedTensor& entry : content.tensors) bytes += entry.tensor.bytes();
  return bytes;
}

void write_checkpoint(const CheckpointContent& content, HostBytes& values, const fs::path& folder) {
  check_space(folder.parent_path(), checkpoint_bytes(content) + kSpareBytes, "the checkpoint");
  std::error_code error;
  fs::create_directories(folder / kStateFolder, error);
  CHECK(!error, "{}: cannot be created: {}", (folder / kStateFolder).string(), error.message());
  export_model(*content.model, *content.store, values, folder);
  Json state;
  state["format"] = kCheckpointFormat;
  state.update(content.state);
  state["shards"] = write_tensors(content, values, folder);
  write_file_atomically(folder / kStateFile, state.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
  write_checksums(folder);
}

void write_checksums(const fs::path& folder) {
  std::set<fs::path> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files.insert(entry.path());
  Json checksums = {{"checksum", "CRC-32C"}, {"files", Json::object()}};
  for (const fs::path& file : files) {
    const std::string name = fs::relative(file, folder).generic_string();
    if (name != kChecksums)
      checksums["files"][name] = {{"bytes", fs::file_size(file)}, {"crc32c", hex(file_crc(file))}};
  }
  write_file_atomically(folder / kChecksums, checksums.dump(1) + "\n");
}

void verify_checksums(const fs::path& folder) {
  const fs::path list = folder / kChecksums;
  const nlohmann::json checksums = parse_json_object(read_text_file(list), list.string());
  CHECK(checksums.contains("files") && checksums["files"].is_object(), "'{}': no list of files", list.string());
  for (const auto& [name, wanted] : checksums["files"].items()) {
    const fs::path file = folder / name;
    std::error_code error;
    const std::uintmax_t bytes = fs::file_size(file, error);
    CHECK(!error, "'{}': {}", file.string(), error.message());
    const bool is_entry = wanted.is_object() && wanted.contains("bytes") && wanted["bytes"].is_number_unsigned() &&
                          wanted.contains("crc32c") && wanted["crc32c"].is_string();
    CHECK(is_entry, "'{}': no size and checksum of {}", list.string(), name);
    CHECK(bytes == wanted["bytes"].get<std::uintmax_t>(), "'{}': {} bytes found, {} wanted", file.string(), bytes,
          wanted["bytes"].get<std::uintmax_t>());
    const std::string found = hex(file_crc(file)), crc = wanted["crc32c"];
    CHECK(found == crc, "'{}': checksum {} found, {} wanted", file.string(), found, crc);
  }
}

Checkpoint Checkpoint::open(const fs::path& folder) {
  std::error_code ignored;
  CHECK(fs::is_directory(folder, ignored), "'{}': no such folder", folder.string());
  CHECK(fs::exists(folder / kStateFile, ignored), "'{}': holds no training state ({} is missing)", folder.string(),
        kStateFile);
  verify_checksums(folder);
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  const fs::path file = folder / kStateFile;
  try {
    // Ordered, since it is written back in parts.
    checkpoint.state_ = Json::parse(read_text_file(file));
    const std::int64_t format = checkpoint.state_.at("format");
    CHECK(format == kCheckpointFormat, "'{}': format {} found, {} wanted (written by llm-fp8 {})", file.string(),
          format, kCheckpointFormat, checkpoint.state_.value("version", std::string("?")));
    checkpoint.step_ = checkpoint.state_.at("step");
  } catch (const Json::exception& error) {
    fail("'{}': {}", file.string(), error.what());
  }
  return checkpoint;
}

void Checkpoint::load(Engine& engine, const ExportSpec& model) const {
  engine.load(*open_model(folder_));
  const auto shards = open_shards(folder_, state_);
  std::map<std::string, const SafetensorsEntry*> found;
  for (const auto& [file, shard] : shards)
    for (const std::string& name : shard.names()) found[name] = &shard.at(name);
  Backend& backend = engine.backend();
  for (const NamedTensor& wanted : tensors_beside_model(engine, model)) {
    const auto at = found.find(wanted.name);
    CHECK(at != found.end(), "'{}': tensor {} is missing", folder_.string(), wanted.name);
    const SafetensorsEntry& entry = *at->second;
    CHECK(entry.dtype == wanted.tensor.dtype && entry.shape == wanted.tensor.shape,
          "'{}': tensor {}: {} {} found, {} {} wanted", folder_.string(), wanted.name, name(entry.dtype),
          to_string(entry.shape), name(wanted.tensor.dtype), to_string(wanted.tensor.shape));
    backend.copy_to_device(wanted.tensor.data, entry.tensor.data, entry.tensor.bytes(), engine.stream());
    backend.synchronize(engine.stream());
    found.erase(at);
  }
  CHECK(found.empty(), "'{}': tensor {} is none of this run's", folder_.string(), found.begin()->first);
  const Json& counters = state_.at("engine");
  engine.resume({counters.at("steps_done"), counters.at("calibrated")});
}

}  // namespace llmfp8
