// Reading GGUF v2 and v3: metadata of every type, tensors, and their dequantisation.
// Called by gguf_source (weights) and gguf_tokenizer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "core/dtype.h"
#include "core/shape.h"
#include "hub/file_io.h"

namespace llmfp8 {

enum class GgufType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

// An array's elements: strings as views into the file, numbers as raw little-endian bytes.
struct GgufArray {
  GgufType type = GgufType::u8;
  std::uint64_t count = 0;
  ByteSpan numbers;
  std::vector<std::string_view> strings;

  std::int64_t integer(std::uint64_t i) const;  // for arrays of integers and booleans
};

struct GgufValue {
  GgufType type = GgufType::u8;
  // u64 for unsigned types and booleans, i64 for signed ones, double for f32 and f64
  std::variant<std::uint64_t, std::int64_t, double, std::string_view, GgufArray> value;
};

// The encodings that are read; their numbers are those of the file format.
enum class GgmlType : std::uint32_t { f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q8_0 = 8, bf16 = 30 };

std::string ggml_type_name(std::uint32_t type);  // any number: "Q4_K", "type 99"

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::f32;
  Shape shape;  // row-major, the last dimension contiguous: GGUF's own order reversed
  ByteSpan data;
};

// A file whose whole structure has been checked. Views point into the mapping and live as long as the GgufFile.
class GgufFile {
 public:
  static GgufFile open(const std::filesystem::path& path);
  static GgufFile from_bytes(ByteSpan bytes, const std::string& origin);  // bytes must outlive the result

  const std::string& origin() const { return origin_; }
  const std::vector<std::string>& names() const { return names_; }  // in file order
  const GgufTensor* find(std::string_view name) const;

  const GgufValue* metadata(std::string_view key) const;  // null if there is none
  // Typed access. Without a value for absent keys: Error that names file and key. Wrong type: Error.
  std::int64_t integer(std::string_view key, std::optional<std::int64_t> absent = std::nullopt) const;
  double number(std::string_view key, std::optional<double> absent = std::nullopt) const;
  bool boolean(std::string_view key, bool absent) const;
  std::string_view text(std::string_view key, std::optional<std::string_view> absent = std::nullopt) const;
  const GgufArray& array(std::string_view key, GgufType type) const;

 private:
  friend class GgufParser;
  const GgufValue* required(std::string_view key, bool optional) const;

  std::string origin_;
  std::shared_ptr<MappedFile> mapping_;
  std::unordered_map<std::string, GgufValue> metadata_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, GgufTensor> tensors_;
};

// Row `row` of the tensor seen as [rows, cols] = [numel / last extent, last extent], as fp32 into dst [cols].
void dequantize_row(const GgufTensor& tensor, std::int64_t row, float* dst);

}  // namespace llmfp8
