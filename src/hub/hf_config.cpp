// Everything that would change the computation and is not built is refused here, by name.
#include "hub/hf_config.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "hub/file_io.h"

namespace llmfp8 {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxExtent = std::int64_t{1} << 24;
constexpr std::int64_t kMaxLayers = 1024;

// Typed access to one JSON object; null counts as absent, as in transformers.
class Fields {
 public:
  Fields(const json& object, std::string origin) : object_(object), origin_(std::move(origin)) {}

  const std::string& origin() const { return origin_; }
  const json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  std::int64_t integer(const char* key) const {
    const json* value = find(key);
    CHECK(value != nullptr, "'{}' has no {}", origin_, key);
    return as_integer(*value, key);
  }
  std::int64_t integer(const char* key, std::int64_t absent) const {
    const json* value = find(key);
    return value == nullptr ? absent : as_integer(*value, key);
  }
  double number(const char* key, double absent) const {
    const json* value = find(key);
    return value == nullptr ? absent : as_number(*value, key);
  }
  double number(const char* key) const {
    const json* value = find(key);
    CHECK(value != nullptr, "'{}' has no {}", origin_, key);
    return as_number(*value, key);
  }
  bool boolean(const char* key, bool absent) const {
    const json* value = find(key);
    if (value == nullptr) return absent;
    CHECK(value->is_boolean(), "'{}': {} is {}, true or false wanted", origin_, key, short_text(*value));
    return value->get<bool>();
  }
  std::string text(const char* key, const std::string& absent) const {
    const json* value = find(key);
    if (value == nullptr) return absent;
    CHECK(value->is_string(), "'{}': {} is {}, a string wanted", origin_, key, short_text(*value));
    return value->get<std::string>();
  }
  std::int64_t as_integer(const json& value, const char* key) const {
    // Token ids and sizes are far below this bound; it keeps a later cast or product from overflowing.
    constexpr double kBound = 1e15;
    const bool whole = value.is_number_integer() ||
                       (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>());
    CHECK(whole && std::abs(value.get<double>()) <= kBound, "'{}': {} is {}, an integer wanted", origin_, key,
          short_text(value));
    return value.get<std::int64_t>();
  }
  double as_number(const json& value, const char* key) const {
    CHECK(value.is_number() && std::isfinite(value.get<double>()), "'{}': {} is {}, a number wanted", origin_, key,
          short_text(value));
    return value.get<double>();
  }
  static std::string short_text(const json& value) {
    if (value.is_structured()) return value.type_name();
    const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
    return text.size() <= 60 ? text : text.substr(0, 57) + "...";
  }

 private:
  const json& object_;
  std::string origin_;
};

std::string read_model_type(const Fields& fields) {
  std::string architecture;
  if (const json* list = fields.find("architectures")) {
    CHECK(list->is_array() && list->size() == 1 && (*list)[0].is_string(), "'{}': architectures is {}, one name wanted",
          fields.origin(), list->dump().substr(0, 80));
    architecture = (*list)[0].get<std::string>();
  }
  const std::string model_type = fields.text("model_type", "");
  const bool llama =
      (architecture.empty() || architecture == "LlamaForCausalLM") && (model_type.empty() || model_type == "llama");
  const bool qwen2 =
      (architecture.empty() || architecture == "Qwen2ForCausalLM") && (model_type.empty() || model_type == "qwen2");
  CHECK(llama != qwen2, "'{}' is a model of type '{}' ({}), which is not supported; supported: {}", fields.origin(),
        model_type, architecture.empty() ? "no architecture named" : architecture, supported_models_text());
  return llama ? "llama" : "qwen2";
}

void refuse_unsupported(const Fields& fields, const std::string& model_type) {
  const std::string& origin = fields.origin();
  const json* activation = fields.find("hidden_act");
  CHECK(activation == nullptr || *activation == "silu", "'{}': hidden_act {} is not supported, silu wanted", origin,
        Fields::short_text(*activation));
  CHECK(!fields.boolean("mlp_bias", false), "'{}': mlp_bias true is not supported", origin);
  CHECK(model_type == "qwen2" || !fields.boolean("attention_bias", false),
        "'{}': attention_bias true (a bias on o_proj too) is not supported for llama", origin);
  CHECK(!fields.boolean("use_sliding_window", false), "'{}': use_sliding_window true is not supported", origin);
  if (const json* quantization = fields.find("quantization_config")) {
    const bool named = quantization->is_object() && quantization->contains("quant_method") &&
                       (*quantization)["quant_method"].is_string();
    fail("'{}': the checkpoint is quantised ({}); give the model in bf16, f16 or f32, or as a GGUF file", origin,
         named ? (*quantization)["quant_method"].get<std::string>() : "quantization_config");
  }
  if (const json* layers = fields.find("layer_types")) {
    CHECK(layers->is_array(), "'{}': layer_types is {}, an array wanted", origin, layers->type_name());
    for (const json& layer : *layers) {
      CHECK(layer == "full_attention", "'{}': layer type {} is not supported, full_attention wanted", origin,
            Fields::short_text(layer));
    }
  }
  const double dropout = fields.number("attention_dropout", 0.0);
  if (dropout != 0.0) log::warning("'{}': attention_dropout {} is not applied", origin, dropout);
}

// The classic spelling keeps rope_theta beside rope_scaling {rope_type | type, …}; transformers 5 has rope_parameters.
void read_rope(const Fields& fields, ModelConfig& config) {
  const std::string& origin = fields.origin();
  config.rope_theta = fields.number("rope_theta", 10000.0);
  CHECK(fields.number("partial_rotary_factor", 1.0) == 1.0, "'{}': partial_rotary_factor other than 1 is not supported",
        origin);
  const char* key = fields.find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  const json* object = fields.find(key);
  if (object == nullptr) return;
  CHECK(object->is_object(), "'{}': {} is {}, an object wanted", origin, key, Fields::short_text(*object));
  const Fields rope(*object, origin);
  config.rope_theta = rope.number("rope_theta", config.rope_theta);
  CHECK(rope.number("partial_rotary_factor", 1.0) == 1.0, "'{}': partial_rotary_factor other than 1 is not supported",
        origin);
  const std::string type = rope.text("rope_type", rope.text("type", "default"));
  if (type == "default") return;
  CHECK(type == "llama3", "'{}': rope_type '{}' is not supported, default or llama3 wanted", origin, type);
  Llama3RopeScaling scaling;
  scaling.factor = rope.number("factor");
  scaling.low_freq_factor = rope.number("low_freq_factor");
  scaling.high_freq_factor = rope.number("high_freq_factor");
  scaling.original_max_position_embeddings = rope.integer("original_max_position_embeddings");
  config.rope_scaling = scaling;
}

DType read_dtype(const Fields& fields) {
  const std::string text = fields.text("dtype", fields.text("torch_dtype", "float32"));
  if (text == "float32") return DType::f32;
  if (text == "bfloat16") return DType::bf16;
  if (text == "float16") return DType::f16;
  fail("'{}': dtype '{}' is not supported, bfloat16, float16 or float32 wanted", fields.origin(), text);
}

// An id, or a list of ids; null: none. Appends those that are not there yet.
void add_eos_ids(const Fields& fields, std::vector<std::int64_t>& ids) {
  const json* value = fields.find("eos_token_id");
  if (value == nullptr) return;
  const auto add = [&](const json& item) {
    const std::int64_t id = fields.as_integer(item, "eos_token_id");
    if (id >= 0 && std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  };
  if (value->is_array()) {
    CHECK(value->size() <= 64, "'{}': {} eos_token_ids, at most 64 wanted", fields.origin(), value->size());
    for (const json& item : *value) add(item);
  } else {
    add(*value);
  }
}

void check_range(const char* what, std::int64_t value, std::int64_t largest, const std::string& origin) {
  CHECK(value >= 1 && value <= largest, "'{}': {} is {}, 1 to {} wanted", origin, what, value, largest);
}

std::string torch_name(DType dtype) {
  switch (dtype) {
    case DType::f32: return "float32";
    case DType::f16: return "float16";
    case DType::bf16: return "bfloat16";
    default: fail("weights cannot be exported as {}", name(dtype));
  }
}

}  // namespace

std::string supported_models_text() {
  return "meta-llama/Llama-3.2-1B, Llama-3.2-3B, Meta-Llama-3.1-8B, Qwen/Qwen2.5-14B, Qwen2.5-1.5B, and any folder or "
         "GGUF "
         "file with a Llama or Qwen2 architecture";
}

ModelConfig parse_hf_config(std::string_view config_json, const std::string& origin) {
  const json object = parse_json_object(config_json, origin);
  const Fields fields(object, origin);
  ModelConfig config;
  config.model_type = read_model_type(fields);
  refuse_unsupported(fields, config.model_type);
  config.vocab_size = fields.integer("vocab_size");
  config.hidden_size = fields.integer("hidden_size");
  config.intermediate_size = fields.integer("intermediate_size");
  config.num_hidden_layers = fields.integer("num_hidden_layers");
  config.num_attention_heads = fields.integer("num_attention_heads");
  config.num_key_value_heads = fields.integer("num_key_value_heads", config.num_attention_heads);
  check_range("num_attention_heads", config.num_attention_heads, kMaxExtent, origin);
  if (fields.find("head_dim") == nullptr) {
    CHECK(config.hidden_size % config.num_attention_heads == 0, "'{}': hidden_size {} is not a multiple of {} heads",
          origin, config.hidden_size, config.num_attention_heads);
  }
  config.head_dim = fields.integer("head_dim", config.hidden_size / config.num_attention_heads);
  config.max_position_embeddings =
      fields.integer("max_position_embeddings", config.model_type == "llama" ? 2048 : 32768);
  config.rms_norm_eps = fields.number("rms_norm_eps", 1e-6);
  read_rope(fields, config);
  config.attention_bias = config.model_type == "qwen2";
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  config.bos_token_id = fields.integer("bos_token_id", -1);
  add_eos_ids(fields, config.eos_token_ids);
  config.dtype = read_dtype(fields);
  check_model_config(config, origin);
  return config;
}

void merge_generation_config(ModelConfig& config, std::string_view generation_config_json, const std::string& origin) {
  const json object = parse_json_object(generation_config_json, origin);
  add_eos_ids(Fields(object, origin), config.eos_token_ids);
  check_model_config(config, origin);
}

ModelConfig read_hf_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  CHECK(std::filesystem::exists(path), "'{}' has no config.json: a model folder wanted", folder.string());
  ModelConfig config = parse_hf_config(read_text_file(path), path.string());
  const std::filesystem::path generation = folder / "generation_config.json";
  if (std::filesystem::exists(generation))
    merge_generation_config(config, read_text_file(generation), generation.string());
  return config;
}

void check_model_config(const ModelConfig& config, const std::string& origin) {
  check_range("vocab_size", config.vocab_size, kMaxExtent, origin);
  check_range("hidden_size", config.hidden_size, kMaxExtent, origin);
  check_range("intermediate_size", config.intermediate_size, kMaxExtent, origin);
  check_range("num_hidden_layers", config.num_hidden_layers, kMaxLayers, origin);
  check_range("num_attention_heads", config.num_attention_heads, kMaxExtent, origin);
  check_range("num_key_value_heads", config.num_key_value_heads, config.num_attention_heads, origin);
  check_range("head_dim", config.head_dim, 65536, origin);
  check_range("max_position_embeddings", config.max_position_embeddings, std::int64_t{1} << 31, origin);
  check_range("heads times head_dim", config.q_size(), kMaxExtent, origin);
  CHECK(config.num_attention_heads % config.num_key_value_heads == 0,
        "'{}': {} attention heads are not a multiple of {} key/value heads", origin, config.num_attention_heads,
        config.num_key_value_heads);
  CHECK(config.head_dim % 2 == 0, "'{}': head_dim {} is odd, rotary embedding wants an even one", origin,
        config.head_dim);
  CHECK(config.rms_norm_eps > 0 && config.rms_norm_eps < 1, "'{}': rms_norm_eps is {}, above 0 and below 1 wanted",
        origin, config.rms_norm_eps);
  CHECK(config.rope_theta >= 1 && config.rope_theta < 1e15, "'{}': rope_theta is {}, 1 to 1e15 wanted", origin,
        config.rope_theta);
  if (config.rope_scaling) {
    const Llama3RopeScaling& rope = *config.rope_scaling;
    CHECK(rope.factor >= 1 && rope.factor <= 1e6, "'{}': rope factor is {}, 1 to 1e6 wanted", origin, rope.factor);
    CHECK(rope.low_freq_factor > 0 && rope.low_freq_factor < rope.high_freq_factor && rope.high_freq_factor <= 1e6,
          "'{}': rope low_freq_factor {} and high_freq_factor {}, 0 < low < high wanted", origin, rope.low_freq_factor,
          rope.high_freq_factor);
    check_range("original_max_position_embeddings", rope.original_max_position_embeddings, std::int64_t{1} << 31,
                origin);
  }
  CHECK(config.bos_token_id < config.vocab_size, "'{}': bos_token_id {} is not in a vocabulary of {}", origin,
        config.bos_token_id, config.vocab_size);
  for (const std::int64_t id : config.eos_token_ids) {
    CHECK(id < config.vocab_size, "'{}': eos_token_id {} is not in a vocabulary of {}", origin, id, config.vocab_size);
  }
}

namespace {

// null, one id, or a list, as transformers writes it.
json eos_json(const ModelConfig& config) {
  if (config.eos_token_ids.empty()) return nullptr;
  if (config.eos_token_ids.size() == 1) return config.eos_token_ids[0];
  return config.eos_token_ids;
}

json bos_json(const ModelConfig& config) { return config.bos_token_id < 0 ? json(nullptr) : json(config.bos_token_id); }

}  // namespace

std::string write_hf_config(const ModelConfig& config) {
  const bool llama = config.model_type == "llama";
  CHECK(llama || config.model_type == "qwen2", "cannot write a config.json for model type '{}'", config.model_type);
  json rope = {{"rope_type", "default"}};
  if (config.rope_scaling) {
    rope = {{"rope_type", "llama3"},
            {"factor", config.rope_scaling->factor},
            {"low_freq_factor", config.rope_scaling->low_freq_factor},
            {"high_freq_factor", config.rope_scaling->high_freq_factor},
            {"original_max_position_embeddings", config.rope_scaling->original_max_position_embeddings}};
  }
  json out = {{"architectures", {llama ? "LlamaForCausalLM" : "Qwen2ForCausalLM"}},
              {"model_type", config.model_type},
              {"vocab_size", config.vocab_size},
              {"hidden_size", config.hidden_size},
              {"intermediate_size", config.intermediate_size},
              {"num_hidden_layers", config.num_hidden_layers},
              {"num_attention_heads", config.num_attention_heads},
              {"num_key_value_heads", config.num_key_value_heads},
              {"head_dim", config.head_dim},
              {"hidden_act", "silu"},
              {"max_position_embeddings", config.max_position_embeddings},
              {"rms_norm_eps", config.rms_norm_eps},
              {"rope_theta", config.rope_theta},
              {"rope_scaling", config.rope_scaling ? rope : json(nullptr)},
              {"tie_word_embeddings", config.tie_word_embeddings},
              {"attention_dropout", 0.0},
              {"initializer_range", 0.02},
              {"use_cache", true},
              {"bos_token_id", bos_json(config)},
              {"eos_token_id", eos_json(config)},
              {"torch_dtype", torch_name(config.dtype)},
              {"dtype", torch_name(config.dtype)}};
  if (llama) {
    out["attention_bias"] = false;
    out["mlp_bias"] = false;
  } else {
    out["use_sliding_window"] = false;
  }
  rope["rope_theta"] = config.rope_theta;
  out["rope_parameters"] = rope;
  return out.dump(2) + "\n";
}

std::string write_generation_config(const ModelConfig& config) {
  const json out = {
      {"_from_model_config", true}, {"bos_token_id", bos_json(config)}, {"eos_token_id", eos_json(config)}};
  return out.dump(2) + "\n";
}

}  // namespace llmfp8
