#include "params/export.h"

#include <algorithm>
#include <regex>
#include <system_error>

#include <nlohmann/json.hpp>

#include "hub/convert.h"
#include "hub/file_io.h"
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

// Hands the slice's values over in the piece's dtype.
void stream_piece(const Piece& piece, const LocalParamStore& store, HostBytes& values, const PutBytes& put) {
  const Tensor& weight = store.weight(piece.param->index);
  const std::size_t width = weight.shape.rank() == 1 ? 1 : static_cast<std::size_t>(weight.cols());
  const std::size_t element = size_bytes(weight.dtype);
  const std::size_t begin = static_cast<std::size_t>(piece.slice->row_begin) * width * element;
  const std::size_t total = static_cast<std::size_t>(piece.slice->shape.numel()) * element;
  std::vector<std::byte> converted;
  for_each_piece(total, [&](std::size_t offset, std::size_t bytes) {
    const std::span<const std::byte> stored = values.read(weight, begin + offset, bytes);
    if (piece.dtype == weight.dtype) return put(stored);
    const std::size_t n = bytes / element;
    converted.resize(n * size_bytes(piece.dtype));
    convert_elements(stored.data(), weight.dtype, converted.data(), piece.dtype, n);
    put(converted);
  });
}

void write_index(const std::vector<ShardPlan>& shards, const ExportSpec& spec, const fs::path& folder) {
  if (shards.size() == 1) return;
  nlohmann::ordered_json index;
  std::size_t total = 0, k = 0;
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  for (const ShardPlan& shard : shards) {
    for (const Piece& piece : shard.pieces) {
      total += piece.bytes();
      map[spec.tensors[k++].name] = shard.file;
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

ExportSpec ExportSpec::of(const WeightTable& table, DType dtype) {
  ExportSpec spec;
  for (const ParamSpec& param : table.params())
    for (const WeightSlice& slice : param.slices) spec.tensors.push_back({slice.name, dtype});
  return spec;
}

std::size_t export_bytes(const ExportSpec& spec, const WeightTable& table) {
  std::size_t total = 0;
  for (const ShardPlan& shard : plan_shards(spec, table))
    for (const Piece& piece : shard.pieces) total += piece.bytes();
  for (const auto& [file, content] : spec.files) total += content.size();
  return total;
}

bool export_is_exact(const ExportSpec& spec, const ParamSpec& param, DType dtype) {
  return std::all_of(param.slices.begin(), param.slices.end(), [&](const WeightSlice& slice) {
    return std::any_of(spec.tensors.begin(), spec.tensors.end(), [&](const ExportSpec::Entry& entry) {
      return entry.name == slice.name && (entry.dtype == dtype || entry.dtype == DType::f32);
    });
  });
}

void export_model(const ExportSpec& spec, const LocalParamStore& store, Backend& backend, Stream& stream, const fs::path& folder) {
  DeviceBytes values(backend, stream);
  export_model(spec, store, values, folder);
}

void export_model(const ExportSpec& spec, const LocalParamStore& store, HostBytes& values, const fs::path& folder) {
  const std::vector<ShardPlan> shards = plan_shards(spec, store.table());
  const fs::path temporary = folder / ".model.incomplete";
  std::error_code ignored, error;
  fs::remove_all(temporary, ignored);
  fs::create_directories(temporary, error);
  CHECK(!error, "{}: the model cannot be written there: {}", folder.string(), error.message());
  check_space(folder, export_bytes(spec, store.table()) + (std::size_t{64} << 20), "the model");

  try {
    std::size_t k = 0;
    for (const ShardPlan& shard : shards) {
      std::vector<TensorDeclaration> declarations;
      for (std::size_t i = 0; i < shard.pieces.size(); ++i) {
        declarations.push_back({spec.tensors[k + i].name, shard.pieces[i].dtype, shard.pieces[i].slice->shape});
      }
      write_verified_safetensors(temporary / shard.file, declarations, [&](std::size_t i, const PutBytes& put) {
        stream_piece(shard.pieces[i], store, values, put);
      });
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
