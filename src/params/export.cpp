#include "params/export.h"

#include <algorithm>
#include <cstring>
#include <regex>
#include <system_error>

#include <nlohmann/json.hpp>

#include "hub/convert.h"
#include "hub/file_io.h"
#include "hub/safetensors.h"
#include "hub/safetensors_writer.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;

struct Piece {
  const ParamSpec* param = nullptr;
  const WeightSlice* slice = nullptr;
  DType dtype = DType::bf16;
  std::size_t bytes() const { return static_cast<std::size_t>(slice->shape.numel()) * size_bytes(dtype); }
};

struct ShardPlan {
  std::string file;
  std::vector<Piece> pieces;
};

std::map<std::string, Piece> pieces_by_name(const WeightTable& table) {
  std::map<std::string, Piece> pieces;
  for (const ParamSpec& param : table.params())
    for (const WeightSlice& slice : param.slices) pieces[slice.name] = {&param, &slice, DType::bf16};
  // A tied model whose source spells its head out gets it back.
  if (table.config().tie_word_embeddings) {
    const ParamSpec& embedding = table.find(ParamKind::embedding);
    pieces["lm_head.weight"] = {&embedding, &embedding.slices.front(), DType::bf16};
  }
  return pieces;
}

std::vector<ShardPlan> plan_shards(const ExportSpec& spec, const WeightTable& table) {
  const auto pieces = pieces_by_name(table);
  std::vector<ShardPlan> shards(1);
  std::size_t filled = 0;
  for (const ExportSpec::Entry& entry : spec.tensors) {
    Piece piece = pieces.at(entry.name);
    piece.dtype = entry.dtype;
    if (filled > 0 && filled + piece.bytes() > spec.max_shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    filled += piece.bytes();
    shards.back().pieces.push_back(piece);
  }
  for (std::size_t i = 0; i < shards.size(); ++i) {
    shards[i].file = shards.size() == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  }
  return shards;
}

// The slice's values in the piece's dtype, on the host.
std::vector<std::byte> host_values(const Piece& piece, const LocalParamStore& store, Backend& backend, Stream& stream) {
  const Tensor weight = store.weight(piece.param->index);
  const std::int64_t width = weight.shape.rank() == 1 ? 1 : weight.cols();
  const Tensor rows = weight.reshape(Shape{weight.numel() / width, width}).slice_rows(piece.slice->row_begin, piece.slice->shape[0]);
  const auto n = static_cast<std::size_t>(piece.slice->shape.numel());
  std::vector<std::byte> stored(rows.bytes());
  backend.copy_to_host(stored.data(), rows.data, stored.size(), stream);
  backend.synchronize(stream);
  if (piece.dtype == weight.dtype) return stored;
  std::vector<std::byte> converted(piece.bytes());
  convert_elements(stored.data(), weight.dtype, converted.data(), piece.dtype, n);
  return converted;
}

// name of the tensor as the export spells it: a tied head shares the embedding's slice.
std::string exported_name(const ExportSpec& spec, std::size_t index) { return spec.tensors[index].name; }

void check_space(const fs::path& folder, std::size_t bytes) {
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  CHECK(error || space.available >= bytes, "{}: {:.1f} GB free, the model needs {:.1f} GB", folder.string(),
        static_cast<double>(space.available) / 1e9, static_cast<double>(bytes) / 1e9);
}

void write_index(const std::vector<ShardPlan>& shards, const ExportSpec& spec, const fs::path& folder) {
  if (shards.size() == 1) return;
  nlohmann::ordered_json index;
  std::size_t total = 0, k = 0;
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  for (const ShardPlan& shard : shards) {
    for (const Piece& piece : shard.pieces) {
      total += piece.bytes();
      map[exported_name(spec, k++)] = shard.file;
    }
  }
  index["metadata"]["total_size"] = total;
  index["weight_map"] = map;
  write_file_atomically(folder / "model.safetensors.index.json", index.dump(2) + "\n");
}

// "model.safetensors", "model-00002-of-00007.safetensors" or the index of shards.
bool is_weight_file(const std::string& file) {
  static const std::regex kPattern(R"(model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?)");
  return std::regex_match(file, kPattern);
}

bool is_companion_file(const std::string& file) {
  return std::find(kCompanionFiles.begin(), kCompanionFiles.end(), file) != kCompanionFiles.end();
}

std::vector<std::string> files_in(const fs::path& folder) {
  std::vector<std::string> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    files.push_back(entry.path().filename().string());
  return files;
}

// Every file of `from` takes its place in `to`. What an earlier export left there and has no successor goes: an old index
// or shard beside a new single file would be read instead of it, and so would an old vocabulary or template.
void replace_files(const fs::path& from, const fs::path& to) {
  const std::vector<std::string> files = files_in(from), before = files_in(to);
  for (const std::string& file : files) {
    std::error_code error;
    fs::rename(from / file, to / file, error);
    CHECK(!error, "{}: cannot be replaced: {}", (to / file).string(), error.message());
  }
  if (std::none_of(before.begin(), before.end(), is_weight_file)) return;
  for (const std::string& file : before) {
    const bool is_stale = std::find(files.begin(), files.end(), file) == files.end();
    if (is_stale && (is_weight_file(file) || is_companion_file(file))) fs::remove(to / file);
  }
}

}  // namespace

ExportSpec ExportSpec::of(const WeightSource& source, const WeightTable& table) {
  ExportSpec spec;
  const auto pieces = pieces_by_name(table);
  const auto add = [&](const std::string& tensor) {
    if (!source.has(tensor)) return;
    spec.tensors.push_back({tensor, source.export_dtype(tensor)});
  };
  for (const ParamSpec& param : table.params())
    for (const WeightSlice& slice : param.slices) add(slice.name);
  if (table.config().tie_word_embeddings) add("lm_head.weight");
  spec.files = source.companion_files();
  return spec;
}

std::size_t ExportSpec::bytes(const WeightTable& table) const {
  std::size_t total = std::size_t{64} << 20;  // headers, and whoever else writes there
  for (const ShardPlan& shard : plan_shards(*this, table))
    for (const Piece& piece : shard.pieces) total += piece.bytes();
  for (const auto& [file, content] : files) total += content.size();
  return total;
}

void export_model(const ExportSpec& spec, const LocalParamStore& store, Backend& backend, Stream& stream, const fs::path& folder) {
  const std::vector<ShardPlan> shards = plan_shards(spec, store.table());
  const fs::path temporary = folder / ".model.incomplete";
  std::error_code ignored, error;
  fs::remove_all(temporary, ignored);
  fs::create_directories(temporary, error);
  CHECK(!error, "{}: the model cannot be written there: {}", folder.string(), error.message());
  check_space(folder, spec.bytes(store.table()));

  try {
    std::size_t k = 0;
    for (const ShardPlan& shard : shards) {
      std::vector<TensorDeclaration> declarations;
      for (std::size_t i = 0; i < shard.pieces.size(); ++i) {
        declarations.push_back({exported_name(spec, k + i), shard.pieces[i].dtype, shard.pieces[i].slice->shape});
      }
      SafetensorsWriter writer(temporary / shard.file, declarations);
      for (std::size_t i = 0; i < shard.pieces.size(); ++i) {
        const std::vector<std::byte> values = host_values(shard.pieces[i], store, backend, stream);
        writer.write(declarations[i].name, values.data(), values.size());
      }
      writer.finish();
      // Read back from the file that was written, before anything is replaced.
      const SafetensorsFile written = SafetensorsFile::open(temporary / shard.file);
      for (std::size_t i = 0; i < shard.pieces.size(); ++i) {
        const std::vector<std::byte> values = host_values(shard.pieces[i], store, backend, stream);
        const SafetensorsEntry& entry = written.at(declarations[i].name);
        CHECK(entry.tensor.bytes() == values.size() && std::memcmp(entry.tensor.data, values.data(), values.size()) == 0,
              "{}: tensor {} reads back differently from what was written", (temporary / shard.file).string(), declarations[i].name);
      }
      k += shard.pieces.size();
    }
    write_index(shards, spec, temporary);
    for (const auto& [file, content] : spec.files) write_file_atomically(temporary / file, content);
    replace_files(temporary, folder);
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
  fs::remove_all(temporary, ignored);
}

}  // namespace llmfp8
