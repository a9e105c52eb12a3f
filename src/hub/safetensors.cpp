// The safetensors header is parsed by events, so that a hostile header cannot make us build a large tree first.
#include "hub/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace llmfp8 {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // as HF's library
constexpr std::size_t kMaxRankRead = 8;

struct DTypeName {
  const char* name;
  DType dtype;
};
constexpr std::array<DTypeName, 15> kDTypes{{{"F64", DType::f64},
                                             {"F32", DType::f32},
                                             {"F16", DType::f16},
                                             {"BF16", DType::bf16},
                                             {"F8_E4M3", DType::e4m3},
                                             {"F8_E5M2", DType::e5m2},
                                             {"F8_E8M0", DType::e8m0},
                                             {"I64", DType::i64},
                                             {"I32", DType::i32},
                                             {"I8", DType::i8},
                                             {"U64", DType::u64},
                                             {"U32", DType::u32},
                                             {"U16", DType::u16},
                                             {"U8", DType::u8},
                                             {"BOOL", DType::u8}}};

std::optional<DType> parse_dtype(std::string_view text) {
  for (const DTypeName& entry : kDTypes) {
    if (text == entry.name) return entry.dtype;
  }
  return std::nullopt;
}

// One tensor as the header states it, before any check.
struct RawEntry {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<std::uint64_t>> shape;
  std::optional<std::vector<std::uint64_t>> offsets;
};

// Accepts exactly {"__metadata__": {text: text}, name: {"dtype": text, "shape": [n…], "data_offsets": [n, n]}}.
class HeaderEvents final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<RawEntry> entries;
  std::map<std::string, std::string> metadata;
  std::string problem;

  bool null() override { return refuse("null"); }
  bool boolean(bool) override { return refuse("a boolean"); }
  bool number_integer(number_integer_t) override { return refuse("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return refuse("a fraction"); }
  bool binary(binary_t&) override { return refuse("binary data"); }
  bool number_unsigned(number_unsigned_t value) override {
    if (array_ == nullptr) return refuse("a number");
    if (array_->size() >= kMaxRankRead) return stop(fmt::format("more than 8 numbers in '{}' of '{}'", field_, name_));
    array_->push_back(value);
    return true;
  }
  bool string(string_t& value) override {
    if (depth_ == 2 && in_metadata_) {
      if (!metadata.emplace(field_, value).second) return stop(fmt::format("key '{}' twice in __metadata__", field_));
      return true;
    }
    if (depth_ != 2 || field_ != "dtype") return refuse("a string");
    if (entries.back().dtype) return stop(fmt::format("'dtype' twice for '{}'", name_));
    entries.back().dtype = value;
    return true;
  }
  bool start_object(std::size_t) override {
    if (array_ != nullptr || depth_ >= 2) return refuse("an object");
    if (++depth_ == 2 && !in_metadata_) {
      entries.emplace_back();
      entries.back().name = name_;
    }
    return true;
  }
  bool key(string_t& value) override {
    if (depth_ == 1) {
      name_ = value;
      in_metadata_ = value == "__metadata__";
      if (in_metadata_ && std::exchange(metadata_seen_, true)) return stop("__metadata__ twice");
    } else {
      field_ = value;
    }
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ != 2 || in_metadata_ || array_ != nullptr) return refuse("an array");
    if (field_ != "shape" && field_ != "data_offsets") return refuse("an array");
    auto& target = field_ == "shape" ? entries.back().shape : entries.back().offsets;
    if (target) return stop(fmt::format("'{}' twice for '{}'", field_, name_));
    array_ = &target.emplace();
    return true;
  }
  bool end_array() override {
    array_ = nullptr;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    return stop(error.what());
  }

 private:
  bool stop(std::string what) {
    if (problem.empty()) problem = std::move(what);
    return false;
  }
  bool refuse(const std::string& what) {
    return stop(depth_ == 2 ? fmt::format("unexpected {} at '{}' of '{}'", what, field_, name_)
                            : fmt::format("unexpected {}", what));
  }

  int depth_ = 0;
  bool in_metadata_ = false;
  bool metadata_seen_ = false;
  std::string name_;
  std::string field_;
  std::vector<std::uint64_t>* array_ = nullptr;  // into entries.back(), which stays while the array is open
};

struct CheckedEntry {
  SafetensorsEntry entry;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

CheckedEntry check_entry(const RawEntry& raw, const std::string& origin, std::uint64_t data_bytes) {
  CHECK(raw.dtype && raw.shape && raw.offsets, "'{}': tensor '{}' lacks dtype, shape or data_offsets", origin,
        raw.name);
  const std::optional<DType> dtype = parse_dtype(*raw.dtype);
  CHECK(dtype, "'{}': tensor '{}' has dtype {}, which is not supported", origin, raw.name, *raw.dtype);
  CHECK(raw.shape->size() <= Shape::kMaxRank, "'{}': tensor '{}' has {} dimensions, at most {} wanted", origin,
        raw.name, raw.shape->size(), Shape::kMaxRank);
  std::array<std::int64_t, Shape::kMaxRank> extents{};
  std::uint64_t bytes = size_bytes(*dtype);
  for (std::size_t i = 0; i < raw.shape->size(); ++i) {
    const std::uint64_t extent = (*raw.shape)[i];
    std::uint64_t product = 0;
    CHECK(extent <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) &&
              !__builtin_mul_overflow(bytes, extent, &product),
          "'{}': the shape of tensor '{}' overflows", origin, raw.name);
    bytes = product;
    extents[i] = static_cast<std::int64_t>(extent);
  }
  CHECK(raw.offsets->size() == 2, "'{}': tensor '{}' has {} data_offsets, 2 wanted", origin, raw.name,
        raw.offsets->size());
  const std::uint64_t begin = (*raw.offsets)[0];
  const std::uint64_t end = (*raw.offsets)[1];
  CHECK(begin <= end && end <= data_bytes, "'{}': tensor '{}' lies at bytes {}..{} of {} (truncated file?)", origin,
        raw.name, begin, end, data_bytes);
  CHECK(end - begin == bytes, "'{}': tensor '{}' has {} bytes, its shape and dtype want {}", origin, raw.name,
        end - begin, bytes);
  CheckedEntry checked;
  checked.begin = begin;
  checked.end = end;
  checked.entry.name = raw.name;
  checked.entry.dtype = *dtype;
  switch (raw.shape->size()) {
    case 0: checked.entry.shape = Shape{1}; break;
    case 1: checked.entry.shape = Shape{extents[0]}; break;
    case 2: checked.entry.shape = Shape{extents[0], extents[1]}; break;
    case 3: checked.entry.shape = Shape{extents[0], extents[1], extents[2]}; break;
    default: checked.entry.shape = Shape{extents[0], extents[1], extents[2], extents[3]}; break;
  }
  return checked;
}

}  // namespace

std::string_view safetensors_dtype_name(DType dtype) {
  for (const DTypeName& entry : kDTypes) {
    if (entry.dtype == dtype) return entry.name;
  }
  fail("dtype {} has no name in safetensors", name(dtype));
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile file;
  file.origin_ = path.string();
  file.mapping_ = std::make_shared<MappedFile>(path);
  file.parse(file.mapping_->bytes());
  return file;
}

SafetensorsFile SafetensorsFile::from_bytes(ByteSpan bytes, const std::string& origin) {
  SafetensorsFile file;
  file.origin_ = origin;
  file.parse(bytes);
  return file;
}

void SafetensorsFile::parse(ByteSpan bytes) {
  CHECK(bytes.size() >= 8, "'{}': {} bytes are too few for a safetensors file", origin_, bytes.size());
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  CHECK(header_bytes <= kMaxHeaderBytes, "'{}': header of {} bytes, at most {} wanted (not a safetensors file?)",
        origin_, header_bytes, kMaxHeaderBytes);
  CHECK(header_bytes <= bytes.size() - 8, "'{}': header of {} bytes in a file of {} (truncated file?)", origin_,
        header_bytes, bytes.size());
  const char* text = reinterpret_cast<const char*>(bytes.data() + 8);
  CHECK(header_bytes >= 2 && text[0] == '{', "'{}': the header is not a JSON object (not a safetensors file?)",
        origin_);
  HeaderEvents events;
  const bool parsed = nlohmann::json::sax_parse(text, text + header_bytes, &events);
  CHECK(parsed && events.problem.empty(), "'{}': bad safetensors header: {}", origin_, events.problem);
  metadata_ = std::move(events.metadata);

  const ByteSpan data = bytes.subspan(8 + header_bytes);
  std::vector<CheckedEntry> checked;
  checked.reserve(events.entries.size());
  for (const RawEntry& raw : events.entries) checked.push_back(check_entry(raw, origin_, data.size()));
  std::sort(checked.begin(), checked.end(), [](const CheckedEntry& a, const CheckedEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  std::uint64_t covered = 0;
  for (CheckedEntry& item : checked) {
    CHECK(item.begin == covered, "'{}': tensor '{}' begins at byte {}, {} wanted ({} in the data)", origin_,
          item.entry.name, item.begin, covered, item.begin < covered ? "overlap" : "gap");
    covered = item.end;
    std::byte* address = const_cast<std::byte*>(data.data()) + item.begin;  // Tensor has no const form; see the header
    item.entry.tensor = Tensor(address, item.entry.dtype, item.entry.shape);
    item.entry.aligned = reinterpret_cast<std::uintptr_t>(address) % size_bytes(item.entry.dtype) == 0;
    std::string key = item.entry.name;
    CHECK(!entries_.contains(key), "'{}': tensor '{}' appears twice", origin_, key);
    names_.push_back(key);
    entries_.emplace(std::move(key), std::move(item.entry));
  }
  CHECK(covered == data.size(), "'{}': {} bytes of data, the header describes {}", origin_, data.size(), covered);
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto found = entries_.find(std::string(name));
  return found == entries_.end() ? nullptr : &found->second;
}

const SafetensorsEntry& SafetensorsFile::at(std::string_view name) const {
  const SafetensorsEntry* entry = find(name);
  CHECK(entry != nullptr, "'{}' has no tensor '{}'", origin_, name);
  return *entry;
}

namespace {

// A shard must be a plain file name: an index could otherwise make us open any file of the machine.
void check_shard_name(const std::string& shard, const std::string& index) {
  const bool plain = !shard.empty() && shard != "." && shard != ".." && shard.find('/') == std::string::npos &&
                     shard.find('\\') == std::string::npos && shard.find('\0') == std::string::npos;
  CHECK(plain, "'{}': shard name '{}' is not a file name inside the folder", index, shard);
}

}  // namespace

SafetensorsModel SafetensorsModel::open(const std::filesystem::path& folder) {
  SafetensorsModel model;
  model.origin_ = folder.string();
  const std::filesystem::path single = folder / "model.safetensors";
  if (std::filesystem::exists(single)) {
    model.shards_.push_back(SafetensorsFile::open(single));
    for (const std::string& tensor : model.shards_[0].names()) model.shard_of_.emplace(tensor, 0);
    return model;
  }
  const std::filesystem::path index_path = folder / "model.safetensors.index.json";
  if (!std::filesystem::exists(index_path)) {
    const bool pickled = std::filesystem::exists(folder / "pytorch_model.bin") ||
                         std::filesystem::exists(folder / "pytorch_model.bin.index.json");
    fail("'{}' holds neither model.safetensors nor model.safetensors.index.json{}", folder.string(),
         pickled ? " (pytorch_model.bin is not read: save the model with safe_serialization=True)" : "");
  }
  const std::string origin = index_path.string();
  const nlohmann::json index = parse_json_object(read_text_file(index_path), origin);
  const auto map = index.find("weight_map");
  CHECK(map != index.end() && map->is_object(), "'{}' has no weight_map", origin);
  std::map<std::string, std::size_t> opened;
  for (const auto& [tensor, value] : map->items()) {
    CHECK(value.is_string(), "'{}': the shard of tensor '{}' is not a string", origin, tensor);
    const std::string shard = value.get<std::string>();
    check_shard_name(shard, origin);
    auto found = opened.find(shard);
    if (found == opened.end()) {
      CHECK(std::filesystem::exists(folder / shard), "shard '{}' is missing, which '{}' names for tensor '{}'",
            (folder / shard).string(), origin, tensor);
      model.shards_.push_back(SafetensorsFile::open(folder / shard));
      found = opened.emplace(shard, model.shards_.size() - 1).first;
    }
    CHECK(model.shards_[found->second].find(tensor) != nullptr, "'{}' has no tensor '{}', which '{}' places there",
          (folder / shard).string(), tensor, origin);
    model.shard_of_.emplace(tensor, found->second);
  }
  return model;
}

std::vector<std::string> SafetensorsModel::names() const {
  std::vector<std::string> names;
  names.reserve(shard_of_.size());
  for (const auto& [name, shard] : shard_of_) names.push_back(name);
  return names;
}

const SafetensorsEntry* SafetensorsModel::find(std::string_view name) const {
  const auto found = shard_of_.find(name);
  return found == shard_of_.end() ? nullptr : shards_[found->second].find(name);
}

const SafetensorsEntry& SafetensorsModel::at(std::string_view name) const {
  const SafetensorsEntry* entry = find(name);
  CHECK(entry != nullptr, "'{}' has no tensor '{}'", origin_, name);
  return *entry;
}

}  // namespace llmfp8
