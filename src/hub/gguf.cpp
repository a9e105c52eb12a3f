// Every length in the file is compared with what is left of it before it is used.
#include "hub/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "core/bf16.h"
#include "core/error.h"
#include "hub/convert.h"

namespace llmfp8 {
namespace {

constexpr std::uint64_t kMaxAlignment = std::uint64_t{1} << 20;
constexpr std::int64_t kBlock = 32;  // elements of a Q4_0, Q4_1 or Q8_0 block

// By number; null: never assigned, or removed from the format.
constexpr std::array<const char*, 41> kGgmlNames = {
    "F32",        "F16",        "Q4_0",       "Q4_1",  "Q4_2",     "Q4_3",     "Q5_0",     "Q5_1",    "Q8_0",
    "Q8_1",       "Q2_K",       "Q3_K",       "Q4_K",  "Q5_K",     "Q6_K",     "Q8_K",     "IQ2_XXS", "IQ2_XS",
    "IQ3_XXS",    "IQ1_S",      "IQ4_NL",     "IQ3_S", "IQ2_S",    "IQ4_XS",   "I8",       "I16",     "I32",
    "I64",        "F64",        "IQ1_M",      "BF16",  "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0",
    "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4", "NVFP4"};

bool is_readable(std::uint32_t type) {
  switch (static_cast<GgmlType>(type)) {
    case GgmlType::f32:
    case GgmlType::f16:
    case GgmlType::q4_0:
    case GgmlType::q4_1:
    case GgmlType::q8_0:
    case GgmlType::bf16: return true;
  }
  return false;
}

std::int64_t elements_per_block(GgmlType type) {
  return type == GgmlType::f32 || type == GgmlType::f16 || type == GgmlType::bf16 ? 1 : kBlock;
}

std::int64_t bytes_per_block(GgmlType type) {
  switch (type) {
    case GgmlType::f32: return 4;
    case GgmlType::f16:
    case GgmlType::bf16: return 2;
    case GgmlType::q4_0: return 2 + kBlock / 2;
    case GgmlType::q4_1: return 4 + kBlock / 2;
    case GgmlType::q8_0: return 2 + kBlock;
  }
  fail("unknown GGML type {}", static_cast<std::uint32_t>(type));
}

std::uint64_t element_bytes(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean: return 1;
    case GgufType::u16:
    case GgufType::i16: return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32: return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64: return 8;
    case GgufType::string:
    case GgufType::array: break;
  }
  return 0;
}

template <typename T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

std::variant<std::uint64_t, std::int64_t, double, std::string_view, GgufArray> load_number(GgufType type,
                                                                                           const std::byte* from) {
  switch (type) {
    case GgufType::u8: return std::uint64_t{load<std::uint8_t>(from)};
    case GgufType::boolean: return std::uint64_t{load<std::uint8_t>(from) != 0};
    case GgufType::u16: return std::uint64_t{load<std::uint16_t>(from)};
    case GgufType::u32: return std::uint64_t{load<std::uint32_t>(from)};
    case GgufType::u64: return load<std::uint64_t>(from);
    case GgufType::i8: return std::int64_t{load<std::int8_t>(from)};
    case GgufType::i16: return std::int64_t{load<std::int16_t>(from)};
    case GgufType::i32: return std::int64_t{load<std::int32_t>(from)};
    case GgufType::i64: return load<std::int64_t>(from);
    case GgufType::f32: return static_cast<double>(load<float>(from));
    default: return load<double>(from);
  }
}

struct TensorInfo {
  GgufTensor tensor;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

}  // namespace

// Walks the file once; every read asks for its bytes first.
class GgufParser {
 public:
  GgufParser(GgufFile& file, ByteSpan bytes) : file_(file), bytes_(bytes) {}

  void parse() {
    CHECK(bytes_.size() >= 24 && std::memcmp(bytes_.data(), "GGUF", 4) == 0, "'{}' is not a GGUF file", file_.origin_);
    at_ = 4;
    const auto version = number<std::uint32_t>();
    CHECK(version == 2 || version == 3, "'{}': GGUF version {} is not supported, 2 or 3 wanted", file_.origin_,
          (version & 0xFFFFu) == 0 ? "of a big-endian file" : std::to_string(version));
    const auto tensors = number<std::uint64_t>();
    const auto pairs = number<std::uint64_t>();
    // A pair takes at least 13 bytes and a tensor 24, so that a hostile count fails here and not after a long walk.
    CHECK(pairs <= bytes_.size() / 13 && tensors <= bytes_.size() / 24,
          "'{}': {} metadata entries and {} tensors in {} bytes", file_.origin_, pairs, tensors, bytes_.size());
    for (std::uint64_t i = 0; i < pairs; ++i) read_pair();
    std::vector<TensorInfo> infos;
    for (std::uint64_t i = 0; i < tensors; ++i) infos.push_back(read_tensor_info());
    place(infos);
  }

 private:
  ByteSpan take(std::uint64_t count) {
    CHECK(count <= bytes_.size() - at_, "'{}' is truncated: {} bytes wanted at byte {} of {}", file_.origin_, count,
          at_, bytes_.size());
    const ByteSpan taken = bytes_.subspan(at_, count);
    at_ += count;
    return taken;
  }
  template <typename T>
  T number() {
    return load<T>(take(sizeof(T)).data());
  }
  std::string_view string() {
    const auto length = number<std::uint64_t>();
    const ByteSpan text = take(length);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }
  GgufType type(std::string_view key) {
    const auto value = number<std::uint32_t>();
    CHECK(value <= static_cast<std::uint32_t>(GgufType::f64), "'{}': metadata '{}' has unknown type {}", file_.origin_,
          key, value);
    return static_cast<GgufType>(value);
  }

  void read_pair() {
    std::string key(string());
    GgufValue value;
    value.type = type(key);
    if (value.type == GgufType::string) {
      value.value = string();
    } else if (value.type == GgufType::array) {
      value.value = read_array(key);
    } else {
      value.value = load_number(value.type, take(element_bytes(value.type)).data());
    }
    CHECK(file_.metadata_.emplace(key, std::move(value)).second, "'{}': metadata '{}' appears twice", file_.origin_,
          key);
  }

  GgufArray read_array(const std::string& key) {
    GgufArray array;
    array.type = type(key);
    CHECK(array.type != GgufType::array, "'{}': metadata '{}' is an array of arrays, which is not supported",
          file_.origin_, key);
    array.count = number<std::uint64_t>();
    if (array.type == GgufType::string) {
      CHECK(array.count <= (bytes_.size() - at_) / 8, "'{}' is truncated: metadata '{}' has {} strings", file_.origin_,
            key, array.count);
      array.strings.reserve(array.count);
      for (std::uint64_t i = 0; i < array.count; ++i) array.strings.push_back(string());
    } else {
      const std::uint64_t width = element_bytes(array.type);
      CHECK(array.count <= (bytes_.size() - at_) / width, "'{}' is truncated: metadata '{}' has {} elements",
            file_.origin_, key, array.count);
      array.numbers = take(array.count * width);
    }
    return array;
  }

  TensorInfo read_tensor_info() {
    TensorInfo info;
    std::string& tensor_name = info.tensor.name;
    tensor_name = std::string(string());
    const auto rank = number<std::uint32_t>();
    CHECK(rank >= 1 && rank <= Shape::kMaxRank, "'{}': tensor '{}' has {} dimensions, 1 to {} wanted", file_.origin_,
          tensor_name, rank, Shape::kMaxRank);
    std::array<std::int64_t, Shape::kMaxRank> extents{1, 1, 1, 1};
    std::int64_t elements = 1;
    for (std::uint32_t i = 0; i < rank; ++i) {
      const auto extent = number<std::uint64_t>();
      CHECK(extent >= 1 && extent <= std::uint64_t{1} << 40 &&
                !__builtin_mul_overflow(elements, static_cast<std::int64_t>(extent), &elements),
            "'{}': tensor '{}' has extent {} (overflow)", file_.origin_, tensor_name, extent);
      extents[i] = static_cast<std::int64_t>(extent);
    }
    const auto type = number<std::uint32_t>();
    CHECK(is_readable(type),
          "'{}': tensor '{}' is stored as {}, which is not supported; F32, F16, BF16, Q8_0, Q4_0 or Q4_1 wanted",
          file_.origin_, tensor_name, ggml_type_name(type));
    info.tensor.type = static_cast<GgmlType>(type);
    const std::int64_t block = elements_per_block(info.tensor.type);
    CHECK(extents[0] % block == 0, "'{}': tensor '{}' has rows of {} elements, a multiple of {} wanted", file_.origin_,
          tensor_name, extents[0], block);
    std::int64_t bytes = 0;
    CHECK(!__builtin_mul_overflow(elements / block, bytes_per_block(info.tensor.type), &bytes),
          "'{}': tensor '{}' is too large", file_.origin_, tensor_name);
    info.bytes = static_cast<std::uint64_t>(bytes);
    switch (rank) {
      case 1: info.tensor.shape = Shape{extents[0]}; break;
      case 2: info.tensor.shape = Shape{extents[1], extents[0]}; break;
      case 3: info.tensor.shape = Shape{extents[2], extents[1], extents[0]}; break;
      default: info.tensor.shape = Shape{extents[3], extents[2], extents[1], extents[0]}; break;
    }
    info.offset = number<std::uint64_t>();
    return info;
  }

  // Tensors lie in the aligned rest of the file, apart from each other.
  void place(std::vector<TensorInfo>& infos) {
    const std::int64_t alignment = file_.integer("general.alignment", 32);
    CHECK(alignment >= 1 && static_cast<std::uint64_t>(alignment) <= kMaxAlignment &&
              std::has_single_bit(static_cast<std::uint64_t>(alignment)),
          "'{}': general.alignment is {}, a power of two wanted", file_.origin_, alignment);
    const auto step = static_cast<std::uint64_t>(alignment);
    const std::uint64_t begin = (at_ + step - 1) / step * step;
    const ByteSpan data = begin <= bytes_.size() ? bytes_.subspan(begin) : ByteSpan();
    for (TensorInfo& info : infos) {
      CHECK(info.offset % step == 0, "'{}': tensor '{}' lies at byte {}, a multiple of {} wanted", file_.origin_,
            info.tensor.name, info.offset, step);
      CHECK(info.offset <= data.size() && info.bytes <= data.size() - info.offset,
            "'{}' is truncated: tensor '{}' has {} bytes at {} of {}", file_.origin_, info.tensor.name, info.bytes,
            info.offset, data.size());
      info.tensor.data = data.subspan(info.offset, info.bytes);
    }
    std::vector<const TensorInfo*> order;
    for (const TensorInfo& info : infos) order.push_back(&info);
    std::sort(order.begin(), order.end(),
              [](const TensorInfo* a, const TensorInfo* b) { return a->offset < b->offset; });
    for (std::size_t i = 1; i < order.size(); ++i) {
      CHECK(order[i]->offset >= order[i - 1]->offset + order[i - 1]->bytes, "'{}': tensors '{}' and '{}' overlap",
            file_.origin_, order[i - 1]->tensor.name, order[i]->tensor.name);
    }
    for (TensorInfo& info : infos) {
      std::string key = info.tensor.name;
      CHECK(!file_.tensors_.contains(key), "'{}': tensor '{}' appears twice", file_.origin_, key);
      file_.names_.push_back(key);
      file_.tensors_.emplace(std::move(key), std::move(info.tensor));
    }
  }

  GgufFile& file_;
  ByteSpan bytes_;
  std::uint64_t at_ = 0;
};

std::string ggml_type_name(std::uint32_t type) {
  return type < kGgmlNames.size() ? kGgmlNames[type] : fmt::format("type {}", type);
}

std::int64_t GgufArray::integer(std::uint64_t i) const {
  CHECK(i < count, "element {} of {}", i, count);
  CHECK(type != GgufType::string && type != GgufType::f32 && type != GgufType::f64, "an array of integers wanted");
  const auto value = load_number(type, numbers.data() + i * element_bytes(type));
  if (const auto* is_signed = std::get_if<std::int64_t>(&value)) return *is_signed;
  const std::uint64_t unsigned_value = std::get<std::uint64_t>(value);
  CHECK(unsigned_value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()), "{} is too large",
        unsigned_value);
  return static_cast<std::int64_t>(unsigned_value);
}

GgufFile GgufFile::open(const std::filesystem::path& path) {
  GgufFile file;
  file.origin_ = path.string();
  file.mapping_ = std::make_shared<MappedFile>(path);
  GgufParser(file, file.mapping_->bytes()).parse();
  return file;
}

GgufFile GgufFile::from_bytes(ByteSpan bytes, const std::string& origin) {
  GgufFile file;
  file.origin_ = origin;
  GgufParser(file, bytes).parse();
  return file;
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto found = tensors_.find(std::string(name));
  return found == tensors_.end() ? nullptr : &found->second;
}

const GgufValue* GgufFile::metadata(std::string_view key) const {
  const auto found = metadata_.find(std::string(key));
  return found == metadata_.end() ? nullptr : &found->second;
}

const GgufValue* GgufFile::required(std::string_view key, bool optional) const {
  const GgufValue* value = metadata(key);
  CHECK(value != nullptr || optional, "'{}' has no metadata '{}'", origin_, key);
  return value;
}

std::int64_t GgufFile::integer(std::string_view key, std::optional<std::int64_t> absent) const {
  const GgufValue* value = required(key, absent.has_value());
  if (value == nullptr) return *absent;
  if (const auto* number = std::get_if<std::int64_t>(&value->value)) return *number;
  const auto* number = std::get_if<std::uint64_t>(&value->value);
  CHECK(number != nullptr && value->type != GgufType::boolean &&
            *number <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()),
        "'{}': metadata '{}' is not an integer in range", origin_, key);
  return static_cast<std::int64_t>(*number);
}

double GgufFile::number(std::string_view key, std::optional<double> absent) const {
  const GgufValue* value = required(key, absent.has_value());
  if (value == nullptr) return *absent;
  if (const auto* number = std::get_if<double>(&value->value)) {
    // 1e-05 stored as fp32 is 9.99999974e-06 as a double; the shortest decimal gives back what was meant.
    if (value->type == GgufType::f32)
      return std::strtod(fmt::format("{}", static_cast<float>(*number)).c_str(), nullptr);
    return *number;
  }
  return static_cast<double>(integer(key));
}

bool GgufFile::boolean(std::string_view key, bool absent) const {
  const GgufValue* value = metadata(key);
  if (value == nullptr) return absent;
  CHECK(value->type == GgufType::boolean, "'{}': metadata '{}' is not a boolean", origin_, key);
  return std::get<std::uint64_t>(value->value) != 0;
}

std::string_view GgufFile::text(std::string_view key, std::optional<std::string_view> absent) const {
  const GgufValue* value = required(key, absent.has_value());
  if (value == nullptr) return *absent;
  CHECK(value->type == GgufType::string, "'{}': metadata '{}' is not a string", origin_, key);
  return std::get<std::string_view>(value->value);
}

const GgufArray& GgufFile::array(std::string_view key, GgufType type) const {
  const GgufValue* value = required(key, false);
  CHECK(value->type == GgufType::array, "'{}': metadata '{}' is not an array", origin_, key);
  const auto& array = std::get<GgufArray>(value->value);
  CHECK(array.type == type, "'{}': metadata '{}' is an array of another type", origin_, key);
  return array;
}

namespace {

// A block: scale (f16), for Q4_1 also minimum (f16), then 32 codes; a byte of a 4-bit block holds elements i and i + 16.
void dequantize_block(GgmlType type, const std::byte* block, float* dst) {
  const float scale = f16_bits_to_float(load<std::uint16_t>(block));
  if (type == GgmlType::q8_0) {
    for (int i = 0; i < kBlock; ++i) dst[i] = scale * static_cast<float>(load<std::int8_t>(block + 2 + i));
    return;
  }
  const bool has_minimum = type == GgmlType::q4_1;
  const float minimum = has_minimum ? f16_bits_to_float(load<std::uint16_t>(block + 2)) : 0.0f;
  const std::byte* codes = block + (has_minimum ? 4 : 2);
  for (int i = 0; i < kBlock / 2; ++i) {
    const auto byte = std::to_integer<int>(codes[i]);
    if (has_minimum) {
      dst[i] = scale * static_cast<float>(byte & 15) + minimum;
      dst[i + kBlock / 2] = scale * static_cast<float>(byte >> 4) + minimum;
    } else {
      dst[i] = scale * static_cast<float>((byte & 15) - 8);
      dst[i + kBlock / 2] = scale * static_cast<float>((byte >> 4) - 8);
    }
  }
}

}  // namespace

void dequantize_row(const GgufTensor& tensor, std::int64_t row, float* dst) {
  const std::int64_t cols = tensor.shape[tensor.shape.rank() - 1];
  const std::int64_t blocks = cols / elements_per_block(tensor.type);
  const std::int64_t row_bytes = blocks * bytes_per_block(tensor.type);
  const std::byte* from = tensor.data.data() + row * row_bytes;
  switch (tensor.type) {
    case GgmlType::f32: convert_elements(from, DType::f32, dst, DType::f32, static_cast<std::size_t>(cols)); return;
    case GgmlType::f16: convert_elements(from, DType::f16, dst, DType::f32, static_cast<std::size_t>(cols)); return;
    case GgmlType::bf16: convert_elements(from, DType::bf16, dst, DType::f32, static_cast<std::size_t>(cols)); return;
    case GgmlType::q4_0:
    case GgmlType::q4_1:
    case GgmlType::q8_0:
      for (std::int64_t i = 0; i < blocks; ++i) {
        dequantize_block(tensor.type, from + i * bytes_per_block(tensor.type), dst + i * kBlock);
      }
      return;
  }
}

}  // namespace llmfp8
