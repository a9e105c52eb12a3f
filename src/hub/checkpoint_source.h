// One view of a model's weights, whether they lie in an HF folder or in a GGUF file: HF tensor names, row-major shapes,
// values converted on the way out. Called by params/ (loading) and by the exports of train/.
#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/model_config.h"
#include "core/tensor.h"

namespace llmfp8 {

// What belongs to a model beside its weights. The licence goes with it too, but says nothing about how it computes.
inline constexpr std::array<const char*, 10> kCompanionFiles = {"config.json",
                                                                "generation_config.json",
                                                                "tokenizer.json",
                                                                "tokenizer_config.json",
                                                                "special_tokens_map.json",
                                                                "added_tokens.json",
                                                                "vocab.json",
                                                                "merges.txt",
                                                                "chat_template.jinja",
                                                                "chat_template.json"};
inline constexpr const char* kLicenseFile = "LICENSE";

// Reading is thread-safe: parameters may be loaded by several threads.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  const ModelConfig& config() const { return config_; }  // dtype: of the embedding as stored; bf16 where quantised
  const std::string& origin() const { return origin_; }  // the folder or file, for messages
  virtual std::vector<std::string> names() const = 0;    // HF names, sorted
  virtual bool has(std::string_view name) const = 0;     // tied models: lm_head.weight is usually absent
  virtual Shape shape(std::string_view name) const = 0;
  virtual DType dtype(std::string_view name) const = 0;  // as stored; bf16 for a quantised tensor
  // What an HF folder made from this source stores it as: dtype(name), but a GGUF file's mixture becomes config().dtype.
  virtual DType export_dtype(std::string_view name) const { return dtype(name); }
  virtual std::string stored_as() const = 0;  // for the user: "BF16", "Q4_1 (210), F32 (61), Q8_0 (1)"
  // dst: host memory for shape(name).numel() elements of dst_dtype (f32, bf16 or f16, rounded to nearest even).
  virtual void read(std::string_view name, DType dst_dtype, void* dst) const = 0;
  // The files that go with the weights into an export, by file name: config.json, generation_config.json, tokenizer.json,
  // tokenizer_config.json, … Byte for byte those of a folder; written anew from the metadata of a GGUF file.
  virtual std::map<std::string, std::string> companion_files() const = 0;

  // Error that names the file, the tensor, the shape found and the shape wanted.
  void check(std::string_view name, const Shape& expected) const;
  void read_checked(std::string_view name, const Shape& expected, DType dst_dtype, void* dst) const;

 protected:
  ModelConfig config_;
  std::string origin_;
};

// path: a folder in HF layout, or a .gguf file (see hub_cache.h for names).
std::unique_ptr<WeightSource> open_model(const std::filesystem::path& path);

}  // namespace llmfp8
