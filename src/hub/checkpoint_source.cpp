// The HF folder as a WeightSource, and the choice between the two kinds.
#include "hub/checkpoint_source.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "hub/convert.h"
#include "hub/gguf_source.h"
#include "hub/hf_config.h"
#include "hub/safetensors.h"

namespace llmfp8 {
namespace {

// The embedding's name is the same for all supported architectures.
constexpr std::string_view kEmbedding = "model.embed_tokens.weight";

class FolderSource final : public WeightSource {
 public:
  explicit FolderSource(const std::filesystem::path& folder) : folder_(folder), model_(SafetensorsModel::open(folder)) {
    origin_ = folder.string();
    config_ = read_hf_config(folder);
    for (const std::string& name : model_.names()) {
      // rotary_emb.inv_freq: a buffer that old checkpoints carry; it follows from config.json.
      if (name.ends_with("rotary_emb.inv_freq")) continue;
      const DType dtype = model_.at(name).dtype;
      CHECK(is_weight_dtype(dtype), "'{}': tensor '{}' has dtype {}, F32, F16 or BF16 wanted", origin_, name,
            safetensors_dtype_name(dtype));
      names_.push_back(name);
    }
    if (const SafetensorsEntry* embedding = model_.find(kEmbedding)) config_.dtype = embedding->dtype;
  }

  std::vector<std::string> names() const override { return names_; }
  bool has(std::string_view name) const override { return model_.find(name) != nullptr; }
  Shape shape(std::string_view name) const override { return model_.at(name).shape; }
  DType dtype(std::string_view name) const override { return model_.at(name).dtype; }
  std::string stored_as() const override { return std::string(safetensors_dtype_name(config_.dtype)); }

  void read(std::string_view name, DType dst_dtype, void* dst) const override {
    const SafetensorsEntry& entry = model_.at(name);
    convert_elements(entry.tensor.data, entry.dtype, dst, dst_dtype, static_cast<std::size_t>(entry.shape.numel()));
  }

  std::map<std::string, std::string> companion_files() const override {
    std::map<std::string, std::string> files;
    for (const char* file : kCompanionFiles) {
      if (std::filesystem::exists(folder_ / file)) files[file] = read_text_file(folder_ / file);
    }
    if (std::filesystem::exists(folder_ / kLicenseFile)) files[kLicenseFile] = read_text_file(folder_ / kLicenseFile);
    return files;
  }

 private:
  std::filesystem::path folder_;
  SafetensorsModel model_;
  std::vector<std::string> names_;
};

}  // namespace

void WeightSource::check(std::string_view name, const Shape& expected) const {
  CHECK(has(name), "'{}' has no tensor '{}'", origin_, name);
  CHECK(shape(name) == expected, "'{}': tensor '{}' has shape {}, {} wanted by the model's configuration", origin_,
        name, to_string(shape(name)), to_string(expected));
}

void WeightSource::read_checked(std::string_view name, const Shape& expected, DType dst_dtype, void* dst) const {
  check(name, expected);
  read(name, dst_dtype, dst);
}

std::unique_ptr<WeightSource> open_model(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return std::make_unique<FolderSource>(path);
  CHECK(std::filesystem::exists(path), "model '{}' does not exist", path.string());
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  CHECK(extension == ".gguf", "model '{}' is neither a folder nor a .gguf file", path.string());
  return open_gguf_model(path);
}

}  // namespace llmfp8
