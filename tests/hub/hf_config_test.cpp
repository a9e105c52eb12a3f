#include "hub/hf_config.h"

#include <nlohmann/json.hpp>

#include "hub_test_util.h"

namespace llmfp8 {
namespace {

using nlohmann::json;
using testing::contains;
using testing::error_of;
using testing::TempDir;
using testing::write_text;

void expect_equal(const ModelConfig& a, const ModelConfig& b) {
  EXPECT_EQ(a.model_type, b.model_type);
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.hidden_size, b.hidden_size);
  EXPECT_EQ(a.intermediate_size, b.intermediate_size);
  EXPECT_EQ(a.num_hidden_layers, b.num_hidden_layers);
  EXPECT_EQ(a.num_attention_heads, b.num_attention_heads);
  EXPECT_EQ(a.num_key_value_heads, b.num_key_value_heads);
  EXPECT_EQ(a.head_dim, b.head_dim);
  EXPECT_EQ(a.max_position_embeddings, b.max_position_embeddings);
  EXPECT_EQ(a.rms_norm_eps, b.rms_norm_eps);
  EXPECT_EQ(a.rope_theta, b.rope_theta);
  ASSERT_EQ(a.rope_scaling.has_value(), b.rope_scaling.has_value());
  if (a.rope_scaling) {
    EXPECT_EQ(a.rope_scaling->factor, b.rope_scaling->factor);
    EXPECT_EQ(a.rope_scaling->low_freq_factor, b.rope_scaling->low_freq_factor);
    EXPECT_EQ(a.rope_scaling->high_freq_factor, b.rope_scaling->high_freq_factor);
    EXPECT_EQ(a.rope_scaling->original_max_position_embeddings, b.rope_scaling->original_max_position_embeddings);
  }
  EXPECT_EQ(a.attention_bias, b.attention_bias);
  EXPECT_EQ(a.tie_word_embeddings, b.tie_word_embeddings);
  EXPECT_EQ(a.bos_token_id, b.bos_token_id);
  EXPECT_EQ(a.eos_token_ids, b.eos_token_ids);
  EXPECT_EQ(a.dtype, b.dtype);
}

std::filesystem::path golden(const std::string& model, const std::string& file) {
  return testing::golden_dir() / "models" / model / file;
}

json base() { return testing::read_json(golden("llama_tied", "config.json")); }

std::string with(const std::string& key, const json& value, const std::string& model = "llama_tied") {
  json config = testing::read_json(golden(model, "config.json"));
  config[key] = value;
  return error_of([&] { parse_hf_config(config.dump(), "config.json"); });
}

TEST(HfConfig, BothSpellingsGiveTheSame) {
  for (const char* model : {"llama_tied", "llama_untied", "qwen2"}) {
    const ModelConfig classic = parse_hf_config(read_text_file(golden(model, "config.json")), "classic");
    const ModelConfig v5 = parse_hf_config(read_text_file(golden(model, "config_v5.json")), "v5");
    expect_equal(classic, v5);
    expect_equal(classic, parse_hf_config(write_hf_config(classic), "written"));
  }
}

TEST(HfConfig, ReadsTheGoldenValues) {
  const ModelConfig tied = read_hf_config(testing::golden_dir() / "models" / "llama_tied");
  EXPECT_EQ(tied.model_type, "llama");
  EXPECT_EQ(tied.head_dim, 32);
  EXPECT_EQ(tied.rope_theta, 500000.0);
  ASSERT_TRUE(tied.rope_scaling);
  EXPECT_EQ(tied.rope_scaling->factor, 32.0);
  EXPECT_EQ(tied.rope_scaling->original_max_position_embeddings, 64);
  EXPECT_TRUE(tied.tie_word_embeddings);
  EXPECT_FALSE(tied.attention_bias);
  EXPECT_EQ(tied.eos_token_ids, (std::vector<std::int64_t>{2}));
  const ModelConfig qwen = read_hf_config(testing::golden_dir() / "models" / "qwen2");
  EXPECT_EQ(qwen.head_dim, 32);
  EXPECT_TRUE(qwen.attention_bias);
  EXPECT_FALSE(qwen.rope_scaling);
  EXPECT_EQ(qwen.rms_norm_eps, 1e-6);
}

TEST(HfConfig, MergesEosIds) {
  const TempDir dir;
  json config = base();
  config["eos_token_id"] = json::array({2, 5});
  write_text(dir.path() / "config.json", config.dump());
  EXPECT_EQ(read_hf_config(dir.path()).eos_token_ids, (std::vector<std::int64_t>{2, 5}));
  write_text(dir.path() / "generation_config.json", R"({"eos_token_id": [5, 7], "bos_token_id": null})");
  EXPECT_EQ(read_hf_config(dir.path()).eos_token_ids, (std::vector<std::int64_t>{2, 5, 7}));
  write_text(dir.path() / "generation_config.json", R"({"eos_token_id": 100000})");
  EXPECT_TRUE(contains(error_of([&] { read_hf_config(dir.path()); }), "100000 is not in a vocabulary"));
}

TEST(HfConfig, RefusesOtherModels) {
  EXPECT_TRUE(contains(with("model_type", "mistral"), "'mistral'"));
  EXPECT_TRUE(
      contains(with("model_type", "mistral"), "supported: meta-llama/Llama-3.2-1B, Llama-3.2-3B, Meta-Llama-3.1-8B"));
  EXPECT_TRUE(contains(with("model_type", "qwen2"), "not supported"));  // LlamaForCausalLM of type qwen2
  EXPECT_TRUE(contains(with("architectures", json::array({"LlamaForSequenceClassification"})), "not supported"));
  EXPECT_TRUE(contains(with("architectures", "LlamaForCausalLM"), "one name wanted"));
  EXPECT_TRUE(contains(with("hidden_act", "gelu"), "silu wanted"));
  EXPECT_TRUE(contains(with("mlp_bias", true), "mlp_bias"));
  EXPECT_TRUE(contains(with("attention_bias", true), "attention_bias"));
  EXPECT_TRUE(contains(with("use_sliding_window", true, "qwen2"), "use_sliding_window"));
  EXPECT_TRUE(contains(with("layer_types", json::array({"sliding_attention"}), "qwen2"), "sliding_attention"));
  EXPECT_TRUE(contains(with("quantization_config", {{"quant_method", "gptq"}}), "(gptq)"));
  EXPECT_TRUE(contains(with("rope_scaling", {{"type", "linear"}, {"factor", 2.0}}), "rope_type 'linear'"));
  EXPECT_TRUE(contains(with("rope_parameters", {{"rope_type", "yarn"}, {"factor", 2.0}}), "rope_type 'yarn'"));
  EXPECT_TRUE(contains(with("rope_scaling", {{"rope_type", "llama3"}}), "has no factor"));
  EXPECT_TRUE(contains(with("torch_dtype", "int8"), "dtype 'int8'"));
}

TEST(HfConfig, RefusesValuesOutOfRange) {
  EXPECT_TRUE(contains(with("vocab_size", 0), "vocab_size is 0"));
  EXPECT_TRUE(contains(with("vocab_size", 1 << 25), "vocab_size"));
  EXPECT_TRUE(contains(with("vocab_size", "many"), "an integer wanted"));
  EXPECT_TRUE(contains(with("vocab_size", nullptr), "has no vocab_size"));
  EXPECT_TRUE(contains(with("hidden_size", -64), "hidden_size is -64"));
  EXPECT_TRUE(contains(with("num_hidden_layers", 1025), "1 to 1024 wanted"));
  EXPECT_TRUE(contains(with("num_attention_heads", 0), "num_attention_heads is 0"));
  EXPECT_TRUE(contains(with("num_key_value_heads", 3), "not a multiple of 3"));
  EXPECT_TRUE(contains(with("num_attention_heads", 3, "qwen2"), "not a multiple of 3 heads"));
  EXPECT_TRUE(contains(with("head_dim", 31), "odd"));
  EXPECT_TRUE(contains(with("rms_norm_eps", 0), "rms_norm_eps"));
  EXPECT_TRUE(contains(with("vocab_size", 1e300), "an integer wanted"));
  EXPECT_TRUE(contains(with("bos_token_id", 512), "bos_token_id 512"));
  EXPECT_TRUE(contains(error_of([] { parse_hf_config("{\"a\":", "x"); }), "'x' is not valid JSON"));
  EXPECT_TRUE(contains(error_of([] { parse_hf_config("[]", "x"); }), "object wanted"));
  EXPECT_TRUE(contains(error_of([] { parse_hf_config("{\"a\":" + std::string(1000, '['), "x"); }), "nested deeper"));
}

}  // namespace
}  // namespace llmfp8
