// Names, q/k row order and configuration as llama.cpp's converter writes them, turned back.
#include "hub/gguf_source.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <vector>

#include "core/bf16.h"
#include "core/error.h"
#include "hub/convert.h"
#include "hub/gguf_tokenizer.h"
#include "hub/hf_config.h"

namespace llmfp8 {
namespace {

struct NamePair {
  const char* gguf;
  const char* hf;
};

constexpr std::array<NamePair, 3> kGlobalNames{{{"token_embd.weight", "model.embed_tokens.weight"},
                                                {"output_norm.weight", "model.norm.weight"},
                                                {"output.weight", "lm_head.weight"}}};

constexpr std::array<NamePair, 12> kLayerNames{{{"attn_norm.weight", "input_layernorm.weight"},
                                                {"attn_q.weight", "self_attn.q_proj.weight"},
                                                {"attn_q.bias", "self_attn.q_proj.bias"},
                                                {"attn_k.weight", "self_attn.k_proj.weight"},
                                                {"attn_k.bias", "self_attn.k_proj.bias"},
                                                {"attn_v.weight", "self_attn.v_proj.weight"},
                                                {"attn_v.bias", "self_attn.v_proj.bias"},
                                                {"attn_output.weight", "self_attn.o_proj.weight"},
                                                {"ffn_norm.weight", "post_attention_layernorm.weight"},
                                                {"ffn_gate.weight", "mlp.gate_proj.weight"},
                                                {"ffn_up.weight", "mlp.up_proj.weight"},
                                                {"ffn_down.weight", "mlp.down_proj.weight"}}};

constexpr const char* kRopeFactors = "rope_freqs.weight";

// What llama.cpp's converter stores in rope_freqs.weight: by how much each of the head_dim / 2 frequencies is divided.
std::vector<double> rope_factors(const Llama3RopeScaling& scaling, double theta, std::int64_t head_dim) {
  std::vector<double> factors;
  const auto original = static_cast<double>(scaling.original_max_position_embeddings);
  for (std::int64_t i = 0; i < head_dim; i += 2) {
    const double wavelength = 2.0 * M_PI * std::pow(theta, static_cast<double>(i) / static_cast<double>(head_dim));
    if (wavelength < original / scaling.high_freq_factor) {
      factors.push_back(1.0);
    } else if (wavelength > original / scaling.low_freq_factor) {
      factors.push_back(scaling.factor);
    } else {
      const double smooth =
          (original / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
      factors.push_back(1.0 / ((1.0 - smooth) / scaling.factor + smooth));
    }
  }
  return factors;
}

// The file keeps only the resulting factors; they are those of one of the published settings, or the model is refused.
std::optional<Llama3RopeScaling> recover_rope_scaling(const GgufFile& file, const ModelConfig& config) {
  const GgufTensor* tensor = file.find(kRopeFactors);
  if (tensor == nullptr) return std::nullopt;
  CHECK(tensor->shape == Shape{config.head_dim / 2}, "'{}': tensor '{}' has shape {}, [{}] wanted", file.origin(),
        kRopeFactors, to_string(tensor->shape), config.head_dim / 2);
  std::vector<float> found(static_cast<std::size_t>(config.head_dim / 2));
  dequantize_row(*tensor, 0, found.data());
  for (const double factor : {8.0, 32.0}) {  // Llama-3.1 and 3.3; Llama-3.2
    const Llama3RopeScaling scaling{factor, 1.0, 4.0, 8192};
    const std::vector<double> wanted = rope_factors(scaling, config.rope_theta, config.head_dim);
    // The converter computes in fp32; other settings differ by far more than this.
    const bool same = std::equal(found.begin(), found.end(), wanted.begin(), wanted.end(),
                                 [](float a, double b) { return std::abs(static_cast<double>(a) - b) <= 1e-3 * b; });
    if (same) return scaling;
  }
  if (std::all_of(found.begin(), found.end(), [](float factor) { return factor == 1.0f; })) return std::nullopt;
  fail("'{}': the rope factors in '{}' are not those of Llama 3.1 (factor 8) or Llama 3.2 (factor 32)", file.origin(),
       kRopeFactors);
}

std::int64_t bounded(const GgufFile& file, const std::string& key, std::optional<std::int64_t> absent = std::nullopt) {
  const std::int64_t value = file.integer(key, absent);
  CHECK(value >= 1 && value <= std::int64_t{1} << 31, "'{}': metadata '{}' is {}, 1 to 2^31 wanted", file.origin(), key,
        value);
  return value;
}

void refuse_unsupported(const GgufFile& file, const std::string& arch, const ModelConfig& config) {
  const std::string_view scaling = file.text(arch + ".rope.scaling.type", "none");
  CHECK(scaling == "none", "'{}': rope scaling '{}' is not supported, none or llama3 wanted", file.origin(), scaling);
  CHECK(file.number(arch + ".rope.scale_linear", 1.0) == 1.0, "'{}': linear rope scaling is not supported",
        file.origin());
  CHECK(file.integer(arch + ".expert_count", 0) == 0, "'{}': mixtures of experts are not supported", file.origin());
  CHECK(file.integer(arch + ".attention.sliding_window", 0) == 0, "'{}': sliding-window attention is not supported",
        file.origin());
  const std::int64_t rotary = file.integer(arch + ".rope.dimension_count", config.head_dim);
  const std::int64_t value_dim = file.integer(arch + ".attention.value_length", config.head_dim);
  CHECK(rotary == config.head_dim && value_dim == config.head_dim,
        "'{}': head dimension {} with rotary dimension {} and value dimension {}: equal ones wanted", file.origin(),
        config.head_dim, rotary, value_dim);
}

// bf16 for anything quantised: four and eight bits with a scale do not need more.
DType stored_dtype(GgmlType type) {
  if (type == GgmlType::f32) return DType::f32;
  return type == GgmlType::f16 ? DType::f16 : DType::bf16;
}

class GgufSource final : public WeightSource {
 public:
  explicit GgufSource(GgufFile file) : file_(std::move(file)) {
    origin_ = file_.origin();
    config_ = read_gguf_config(file_);
    for (const std::string& name : file_.names()) {
      if (name == kRopeFactors) continue;
      const std::string hf_name = gguf_to_hf_name(name, config_.num_hidden_layers);
      CHECK(!hf_name.empty(), "'{}': tensor '{}' does not belong to a {} model", origin_, name, config_.model_type);
      CHECK(config_.attention_bias || !hf_name.ends_with(".bias"),
            "'{}': tensor '{}': a llama model with biases is not supported", origin_, name);
      tensors_.emplace(hf_name, file_.find(name));
    }
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors_) names.push_back(name);
    return names;
  }
  bool has(std::string_view name) const override { return tensors_.find(name) != tensors_.end(); }
  Shape shape(std::string_view name) const override { return at(name).shape; }
  DType dtype(std::string_view name) const override { return stored_dtype(at(name).type); }

  std::string stored_as() const override {
    std::map<std::string, int> counts;
    for (const auto& [name, tensor] : tensors_) ++counts[ggml_type_name(static_cast<std::uint32_t>(tensor->type))];
    std::vector<std::pair<int, std::string>> order;
    for (const auto& [type, count] : counts) order.emplace_back(-count, type);
    std::sort(order.begin(), order.end());
    std::string text;
    for (const auto& [count, type] : order) text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", type, -count);
    return text;
  }

  void read(std::string_view name, DType dst_dtype, void* dst) const override {
    const GgufTensor& tensor = at(name);
    const std::int64_t cols = tensor.shape[tensor.shape.rank() - 1];
    const std::int64_t rows = tensor.shape.numel() / cols;
    const std::int64_t heads = permuted_heads(name, rows);
    std::vector<float> values(static_cast<std::size_t>(cols));
    auto* out = static_cast<std::byte*>(dst);
    const std::size_t row_bytes = static_cast<std::size_t>(cols) * size_bytes(dst_dtype);
    for (std::int64_t row = 0; row < rows; ++row) {
      dequantize_row(tensor, heads == 0 ? row : gguf_row(row, rows / heads), values.data());
      convert_elements(values.data(), DType::f32, out + static_cast<std::size_t>(row) * row_bytes, dst_dtype,
                       values.size());
    }
  }

  DType export_dtype(std::string_view) const override { return config_.dtype; }
  std::map<std::string, std::string> companion_files() const override {
    const GgufTokenizerFiles tokenizer = make_tokenizer_files(file_);
    return {{"config.json", write_hf_config(config_)},
            {"generation_config.json", write_generation_config(config_)},
            {"tokenizer.json", tokenizer.tokenizer_json},
            {"tokenizer_config.json", tokenizer.tokenizer_config_json}};
  }

 private:
  const GgufTensor& at(std::string_view name) const {
    const auto found = tensors_.find(name);
    CHECK(found != tensors_.end(), "'{}' has no tensor '{}'", origin_, name);
    return *found->second;
  }

  // llama.cpp's rotary embedding turns neighbouring rows, HF's turns halves of a head; the converter therefore interleaves
  // the halves of q and k, for architecture llama only. 0: not such a tensor.
  std::int64_t permuted_heads(std::string_view name, std::int64_t rows) const {
    if (config_.model_type != "llama") return 0;
    std::int64_t heads = 0;
    if (name.ends_with("q_proj.weight")) heads = config_.num_attention_heads;
    if (name.ends_with("k_proj.weight")) heads = config_.num_key_value_heads;
    CHECK(heads == 0 || rows == heads * config_.head_dim, "'{}': tensor '{}' has {} rows, {} wanted", origin_, name,
          rows, heads * config_.head_dim);
    return heads;
  }
  // Row t * half + j of an HF head is row 2 * j + t of the GGUF head.
  static std::int64_t gguf_row(std::int64_t hf_row, std::int64_t head_dim) {
    const std::int64_t half = head_dim / 2;
    const std::int64_t in_head = hf_row % head_dim;
    return hf_row - in_head + 2 * (in_head % half) + in_head / half;
  }

  GgufFile file_;
  std::map<std::string, const GgufTensor*, std::less<>> tensors_;
};

}  // namespace

std::string gguf_to_hf_name(const std::string& gguf_name, std::int64_t num_layers) {
  for (const NamePair& pair : kGlobalNames) {
    if (gguf_name == pair.gguf) return pair.hf;
  }
  if (!gguf_name.starts_with("blk.")) return "";
  const std::size_t dot = gguf_name.find('.', 4);
  if (dot == std::string::npos || dot == 4 || dot > 9) return "";
  const std::string layer = gguf_name.substr(4, dot - 4);
  const bool digits = std::all_of(layer.begin(), layer.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!digits || (layer.size() > 1 && layer[0] == '0') || std::stoll(layer) >= num_layers) return "";
  for (const NamePair& pair : kLayerNames) {
    if (gguf_name.compare(dot + 1, std::string::npos, pair.gguf) == 0)
      return fmt::format("model.layers.{}.{}", layer, pair.hf);
  }
  return "";
}

ModelConfig read_gguf_config(const GgufFile& file) {
  const std::string arch(file.text("general.architecture"));
  CHECK(arch == "llama" || arch == "qwen2",
        "'{}' is a model of architecture '{}', which is not supported; supported: {}", file.origin(), arch,
        supported_models_text());
  ModelConfig config;
  config.model_type = arch;
  config.hidden_size = bounded(file, arch + ".embedding_length");
  config.intermediate_size = bounded(file, arch + ".feed_forward_length");
  config.num_hidden_layers = bounded(file, arch + ".block_count");
  config.num_attention_heads = bounded(file, arch + ".attention.head_count");
  config.num_key_value_heads = bounded(file, arch + ".attention.head_count_kv", config.num_attention_heads);
  if (file.metadata(arch + ".attention.key_length") == nullptr) {
    CHECK(config.hidden_size % config.num_attention_heads == 0,
          "'{}': embedding length {} is not a multiple of {} heads", file.origin(), config.hidden_size,
          config.num_attention_heads);
  }
  config.head_dim = file.integer(arch + ".attention.key_length", config.hidden_size / config.num_attention_heads);
  config.max_position_embeddings = bounded(file, arch + ".context_length");
  config.rms_norm_eps = file.number(arch + ".attention.layer_norm_rms_epsilon");
  config.rope_theta = file.number(arch + ".rope.freq_base", 10000.0);
  config.attention_bias = arch == "qwen2";
  config.tie_word_embeddings = file.find("output.weight") == nullptr;
  const GgufTensor* embedding = file.find("token_embd.weight");
  CHECK(embedding != nullptr && embedding->shape.rank() == 2,
        "'{}' has no tensor 'token_embd.weight' of two dimensions", file.origin());
  config.vocab_size = embedding->shape[0];
  if (file.metadata("tokenizer.ggml.tokens") != nullptr) {
    const std::uint64_t tokens = file.array("tokenizer.ggml.tokens", GgufType::string).count;
    CHECK(tokens <= static_cast<std::uint64_t>(config.vocab_size), "'{}': {} tokens, but an embedding of {} rows",
          file.origin(), tokens, config.vocab_size);
  }
  config.dtype = stored_dtype(embedding->type);
  config.bos_token_id = file.integer("tokenizer.ggml.bos_token_id", -1);
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const std::int64_t id = file.integer(key, -1);
    const bool known =
        std::find(config.eos_token_ids.begin(), config.eos_token_ids.end(), id) != config.eos_token_ids.end();
    if (id >= 0 && !known) config.eos_token_ids.push_back(id);
  }
  check_model_config(config, file.origin());
  refuse_unsupported(file, arch, config);
  config.rope_scaling = recover_rope_scaling(file, config);
  return config;
}

std::unique_ptr<WeightSource> open_gguf_model(GgufFile file) { return std::make_unique<GgufSource>(std::move(file)); }

std::unique_ptr<WeightSource> open_gguf_model(const std::filesystem::path& path) {
  return open_gguf_model(GgufFile::open(path));
}

}  // namespace llmfp8
