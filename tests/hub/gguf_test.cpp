#include "hub/gguf.h"

#include <cmath>

#include "hub/checkpoint_source.h"
#include "hub/convert.h"
#include "hub/gguf_source.h"
#include "hub_test_util.h"

namespace llmfp8 {
namespace {

using testing::as_bytes;
using testing::contains;
using testing::error_of;
using testing::GgufBuilder;
using testing::raw;
using testing::raw_floats;

constexpr std::uint32_t kF32 = 0;

std::string refusal(const std::string& bytes) {
  return error_of([&] { GgufFile::from_bytes(as_bytes(bytes), "x.gguf"); });
}

// 32 bytes of data: nothing is padded behind it.
std::string eight_floats() { return raw_floats(std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7}); }

std::vector<float> row(const GgufFile& file, const std::string& name, std::int64_t index) {
  const GgufTensor* tensor = file.find(name);
  std::vector<float> values(static_cast<std::size_t>(tensor->shape[tensor->shape.rank() - 1]));
  dequantize_row(*tensor, index, values.data());
  return values;
}

TEST(Gguf, ReadsMetadataOfEveryType) {
  const std::string bytes = GgufBuilder()
                                .pair("u8", GgufType::u8, raw<std::uint8_t>(200))
                                .pair("i8", GgufType::i8, raw<std::int8_t>(-3))
                                .pair("u16", GgufType::u16, raw<std::uint16_t>(60000))
                                .pair("i16", GgufType::i16, raw<std::int16_t>(-300))
                                .u32("u32", 4000000000u)
                                .pair("i32", GgufType::i32, raw<std::int32_t>(-70000))
                                .f32("f32", 1e-5f)
                                .boolean("yes", true)
                                .text("text", "hello")
                                .strings("strings", {"a", "", "ccc"})
                                .i32s("i32s", {-1, 2})
                                .pair("u64", GgufType::u64, raw<std::uint64_t>(1ull << 40))
                                .pair("i64", GgufType::i64, raw<std::int64_t>(-(1ll << 40)))
                                .pair("f64", GgufType::f64, raw(0.1))
                                .pair("huge", GgufType::u64, raw(~std::uint64_t{0}))
                                .bytes();
  const GgufFile file = GgufFile::from_bytes(as_bytes(bytes), "x");
  EXPECT_EQ(file.integer("u8"), 200);
  EXPECT_EQ(file.integer("i8"), -3);
  EXPECT_EQ(file.integer("u16"), 60000);
  EXPECT_EQ(file.integer("i16"), -300);
  EXPECT_EQ(file.integer("u32"), 4000000000);
  EXPECT_EQ(file.integer("i32"), -70000);
  EXPECT_EQ(file.number("f32"), 1e-5);  // the decimal that was meant, not the nearest fp32
  EXPECT_TRUE(file.boolean("yes", false));
  EXPECT_EQ(file.text("text"), "hello");
  EXPECT_EQ(file.array("strings", GgufType::string).strings, (std::vector<std::string_view>{"a", "", "ccc"}));
  EXPECT_EQ(file.array("i32s", GgufType::i32).integer(0), -1);
  EXPECT_EQ(file.integer("u64"), 1ll << 40);
  EXPECT_EQ(file.integer("i64"), -(1ll << 40));
  EXPECT_EQ(file.number("f64"), 0.1);
  EXPECT_EQ(file.integer("absent", 5), 5);
  EXPECT_TRUE(contains(error_of([&] { file.integer("absent"); }), "'x' has no metadata 'absent'"));
  EXPECT_TRUE(contains(error_of([&] { file.integer("text"); }), "not an integer"));
  EXPECT_TRUE(contains(error_of([&] { file.integer("huge"); }), "not an integer in range"));
  EXPECT_TRUE(contains(error_of([&] { file.text("u8"); }), "not a string"));
  EXPECT_TRUE(contains(error_of([&] { file.array("i32s", GgufType::string); }), "another type"));
}

TEST(Gguf, DequantisesEveryReadableType) {
  std::string q4_0 = raw(float_to_f16_bits(0.5f));
  std::string q4_1 = raw(float_to_f16_bits(0.25f)) + raw(float_to_f16_bits(-3.0f));
  std::string q8_0 = raw(float_to_f16_bits(0.125f));
  std::string f16;
  std::string bf16;
  for (int i = 0; i < 16; ++i) {
    q4_0 += raw(static_cast<std::uint8_t>(i | ((15 - i) << 4)));
    q4_1 += raw(static_cast<std::uint8_t>(i | ((15 - i) << 4)));
    f16 += raw(float_to_f16_bits(static_cast<float>(i) * 0.5f));
    bf16 += raw(static_cast<std::uint16_t>(0x3F80 + i));
  }
  for (int i = 0; i < 32; ++i) q8_0 += raw(static_cast<std::int8_t>(i * 8 - 128));
  const std::string bytes = GgufBuilder()
                                .tensor("q4_0", {32}, 2, q4_0)
                                .tensor("q4_1", {1, 32}, 3, q4_1)
                                .tensor("q8_0", {32}, 8, q8_0)
                                .tensor("f32", {2, 4}, kF32, eight_floats())
                                .tensor("f16", {16}, 1, f16)
                                .tensor("bf16", {16}, 30, bf16)
                                .bytes();
  const GgufFile file = GgufFile::from_bytes(as_bytes(bytes), "x");
  EXPECT_EQ(file.find("f32")->shape, (Shape{2, 4}));
  EXPECT_EQ(row(file, "f32", 1), (std::vector<float>{4, 5, 6, 7}));
  const std::vector<float> a = row(file, "q4_0", 0);
  const std::vector<float> b = row(file, "q4_1", 0);
  const std::vector<float> c = row(file, "q8_0", 0);
  for (int i = 0; i < 32; ++i) {
    const int code = i < 16 ? i : 31 - i;
    EXPECT_EQ(a[static_cast<std::size_t>(i)], 0.5f * static_cast<float>(code - 8)) << i;
    EXPECT_EQ(b[static_cast<std::size_t>(i)], 0.25f * static_cast<float>(code) - 3.0f) << i;
    EXPECT_EQ(c[static_cast<std::size_t>(i)], static_cast<float>(i - 16)) << i;
  }
  EXPECT_EQ(row(file, "f16", 0)[5], 2.5f);
  EXPECT_EQ(row(file, "bf16", 0)[1], 1.0078125f);
}

TEST(Gguf, EveryTruncationIsAnError) {
  const std::string bytes = GgufBuilder()
                                .text("general.name", "x")
                                .strings("list", {"a", "bb"})
                                .i32s("n", {1, 2, 3})
                                .f32("f", 1.0f)
                                .tensor("a", {8}, kF32, eight_floats())
                                .tensor("b", {2, 4}, kF32, eight_floats())
                                .bytes();
  EXPECT_EQ(refusal(bytes), "no error");
  for (std::size_t size = 0; size < bytes.size(); ++size) EXPECT_NE(refusal(bytes.substr(0, size)), "no error") << size;
}

TEST(Gguf, RefusesCorruptFiles) {
  const std::string good = GgufBuilder().tensor("a", {8}, kF32, eight_floats()).bytes();
  const auto patched = [&](std::size_t at, const std::string& bytes) {
    std::string copy = good;
    copy.replace(at, bytes.size(), bytes);
    return refusal(copy);
  };
  EXPECT_EQ(patched(0, "GGUF"), "no error");
  EXPECT_TRUE(contains(patched(0, "GGML"), "not a GGUF file"));
  EXPECT_TRUE(contains(patched(4, raw<std::uint32_t>(1)), "version 1"));
  EXPECT_TRUE(contains(patched(4, raw<std::uint32_t>(3u << 24)), "big-endian"));
  EXPECT_TRUE(contains(patched(8, raw<std::uint64_t>(1ull << 60)), "tensors in"));
  EXPECT_TRUE(contains(patched(16, raw<std::uint64_t>(1ull << 60)), "metadata entries"));
  EXPECT_TRUE(contains(patched(24, raw<std::uint64_t>(~0ull)), "truncated"));  // length of the name
  EXPECT_TRUE(contains(patched(33, raw<std::uint32_t>(5)), "5 dimensions"));
  EXPECT_TRUE(contains(patched(37, raw<std::uint64_t>(0)), "extent 0"));
  EXPECT_TRUE(contains(patched(37, raw<std::uint64_t>(1ull << 50)), "overflow"));
  EXPECT_TRUE(contains(patched(37, raw<std::uint64_t>(1ull << 40)), "truncated"));
  EXPECT_TRUE(contains(patched(45, raw<std::uint32_t>(12)), "tensor 'a' is stored as Q4_K"));
  EXPECT_TRUE(contains(patched(45, raw<std::uint32_t>(14)), "Q6_K"));
  EXPECT_TRUE(contains(patched(45, raw<std::uint32_t>(19)), "IQ1_S"));
  EXPECT_TRUE(contains(patched(45, raw<std::uint32_t>(999)), "type 999"));
  EXPECT_TRUE(contains(patched(45, raw<std::uint32_t>(3)), "a multiple of 32 wanted"));
  EXPECT_TRUE(contains(patched(49, raw<std::uint64_t>(8)), "a multiple of 32 wanted"));
  EXPECT_TRUE(contains(patched(49, raw<std::uint64_t>(32)), "truncated"));
  EXPECT_TRUE(contains(patched(49, raw(~std::uint64_t{31})), "truncated"));
}

TEST(Gguf, RefusesBadStructure) {
  const std::string data = eight_floats();
  EXPECT_TRUE(contains(refusal(GgufBuilder().u32("k", 1).u32("k", 1).bytes()), "'k' appears twice"));
  EXPECT_TRUE(contains(refusal(GgufBuilder().tensor("a", {8}, kF32, data).tensor("a", {8}, kF32, data).bytes()),
                       "'a' appears twice"));
  EXPECT_TRUE(
      contains(refusal(GgufBuilder().tensor("a", {16}, kF32, data).tensor("b", {8}, kF32, data).bytes()), "overlap"));
  EXPECT_TRUE(contains(refusal(GgufBuilder().u32("general.alignment", 24).bytes()), "power of two"));
  EXPECT_TRUE(contains(refusal(GgufBuilder().u32("general.alignment", 0).bytes()), "power of two"));
  EXPECT_TRUE(contains(refusal(GgufBuilder().pair("k", static_cast<GgufType>(77), "").bytes()), "unknown type 77"));
  EXPECT_TRUE(
      contains(refusal(GgufBuilder().pair("k", GgufType::array, raw<std::uint32_t>(9) + raw<std::uint64_t>(1)).bytes()),
               "array of arrays"));
  for (const std::uint32_t type : {0u, 8u}) {
    EXPECT_TRUE(
        contains(refusal(GgufBuilder().pair("k", GgufType::array, raw(type) + raw<std::uint64_t>(1ull << 61)).bytes()),
                 "truncated"));
  }
}

TEST(GgufSource, Names) {
  EXPECT_EQ(gguf_to_hf_name("token_embd.weight", 2), "model.embed_tokens.weight");
  EXPECT_EQ(gguf_to_hf_name("output.weight", 2), "lm_head.weight");
  EXPECT_EQ(gguf_to_hf_name("blk.1.attn_q.bias", 2), "model.layers.1.self_attn.q_proj.bias");
  EXPECT_EQ(gguf_to_hf_name("blk.11.ffn_down.weight", 12), "model.layers.11.mlp.down_proj.weight");
  for (const char* bad :
       {"blk.2.attn_q.weight", "blk.01.attn_q.weight", "blk..attn_q.weight", "blk.-1.attn_q.weight",
        "blk.99999999999999999999.attn_q.weight", "blk.1", "blk.1.", "blk.1.attn_qkv.weight", "", "x"}) {
    EXPECT_EQ(gguf_to_hf_name(bad, 2), "") << bad;
  }
}

GgufBuilder config_builder(const std::string& arch, const ModelConfig& config) {
  GgufBuilder builder;
  builder.text("general.architecture", arch)
      .u32(arch + ".embedding_length", static_cast<std::uint32_t>(config.hidden_size))
      .u32(arch + ".feed_forward_length", static_cast<std::uint32_t>(config.intermediate_size))
      .u32(arch + ".block_count", static_cast<std::uint32_t>(config.num_hidden_layers))
      .u32(arch + ".attention.head_count", static_cast<std::uint32_t>(config.num_attention_heads))
      .u32(arch + ".attention.head_count_kv", static_cast<std::uint32_t>(config.num_key_value_heads))
      .u32(arch + ".attention.key_length", static_cast<std::uint32_t>(config.head_dim))
      .u32(arch + ".context_length", static_cast<std::uint32_t>(config.max_position_embeddings))
      .f32(arch + ".attention.layer_norm_rms_epsilon", static_cast<float>(config.rms_norm_eps))
      .f32(arch + ".rope.freq_base", static_cast<float>(config.rope_theta))
      .u32("tokenizer.ggml.bos_token_id", 1)
      .u32("tokenizer.ggml.eos_token_id", 2);
  return builder;
}

// What llama.cpp's converter does to q and k of architecture llama: row t * half + j of a head goes to row 2 * j + t.
std::string interleaved(const float* rows, std::int64_t heads, std::int64_t head_dim, std::int64_t cols) {
  std::string out(static_cast<std::size_t>(heads * head_dim * cols) * 4, '\0');
  for (std::int64_t head = 0; head < heads; ++head) {
    for (std::int64_t t = 0; t < 2; ++t) {
      for (std::int64_t j = 0; j < head_dim / 2; ++j) {
        const std::int64_t from = head * head_dim + t * (head_dim / 2) + j;
        const std::int64_t to = head * head_dim + 2 * j + t;
        std::memcpy(out.data() + to * cols * 4, rows + from * cols, static_cast<std::size_t>(cols) * 4);
      }
    }
  }
  return out;
}

std::string gguf_name(std::string name) {
  const std::pair<const char*, const char*> parts[] = {{"model.embed_tokens.", "token_embd."},
                                                       {"model.norm.", "output_norm."},
                                                       {"lm_head.", "output."},
                                                       {"model.layers.", "blk."},
                                                       {"input_layernorm", "attn_norm"},
                                                       {"self_attn.q_proj", "attn_q"},
                                                       {"self_attn.k_proj", "attn_k"},
                                                       {"self_attn.v_proj", "attn_v"},
                                                       {"self_attn.o_proj", "attn_output"},
                                                       {"post_attention_layernorm", "ffn_norm"},
                                                       {"mlp.gate_proj", "ffn_gate"},
                                                       {"mlp.up_proj", "ffn_up"},
                                                       {"mlp.down_proj", "ffn_down"}};
  for (const auto& [from, to] : parts) {
    const std::size_t at = name.find(from);
    if (at != std::string::npos) name.replace(at, std::string_view(from).size(), to);
  }
  return name;
}

// A golden model written as GGUF the way the converter does it comes back bit for bit, and with the same configuration.
TEST(GgufSource, GoldenModelsComeBack) {
  for (const char* model : {"llama_untied", "qwen2"}) {
    const auto folder = open_model(testing::golden_dir() / "models" / model);
    const ModelConfig& config = folder->config();
    GgufBuilder builder = config_builder(config.model_type, config);
    int permuted = 0;
    for (const std::string& name : folder->names()) {
      const Shape shape = folder->shape(name);
      std::vector<float> values(static_cast<std::size_t>(shape.numel()));
      folder->read(name, DType::f32, values.data());
      std::string data = raw_floats(values);
      const bool query = name.ends_with("q_proj.weight");
      if (config.model_type == "llama" && (query || name.ends_with("k_proj.weight"))) {
        data = interleaved(values.data(), query ? config.num_attention_heads : config.num_key_value_heads,
                           config.head_dim, shape[1]);
        EXPECT_NE(data, raw_floats(values));
        ++permuted;
      }
      std::vector<std::uint64_t> extents;
      for (int i = 0; i < shape.rank(); ++i) extents.push_back(static_cast<std::uint64_t>(shape[i]));
      builder.tensor(gguf_name(name), extents, kF32, data);
    }
    EXPECT_EQ(permuted, config.model_type == "llama" ? 4 : 0);
    const std::string bytes = builder.bytes();
    const auto source = open_gguf_model(GgufFile::from_bytes(as_bytes(bytes), "x.gguf"));
    EXPECT_EQ(source->names(), folder->names());
    for (const std::string& name : folder->names()) {
      ASSERT_EQ(source->shape(name), folder->shape(name)) << name;
      std::vector<float> wanted(static_cast<std::size_t>(folder->shape(name).numel()));
      std::vector<float> found(wanted.size());
      folder->read(name, DType::f32, wanted.data());
      source->read_checked(name, folder->shape(name), DType::f32, found.data());
      EXPECT_EQ(std::memcmp(wanted.data(), found.data(), wanted.size() * 4), 0) << model << " " << name;
    }
    EXPECT_EQ(source->config().model_type, config.model_type);
    EXPECT_EQ(source->config().vocab_size, config.vocab_size);
    EXPECT_EQ(source->config().head_dim, config.head_dim);
    EXPECT_EQ(source->config().rms_norm_eps, config.rms_norm_eps);
    EXPECT_EQ(source->config().rope_theta, config.rope_theta);
    EXPECT_EQ(source->config().attention_bias, config.attention_bias);
    EXPECT_EQ(source->config().eos_token_ids, config.eos_token_ids);
    EXPECT_EQ(source->config().dtype, DType::f32);
    EXPECT_FALSE(source->config().tie_word_embeddings);
  }
}

ModelConfig small_config() {
  ModelConfig config;
  config.hidden_size = 128;
  config.intermediate_size = 64;
  config.num_hidden_layers = 1;
  config.num_attention_heads = 1;
  config.num_key_value_heads = 1;
  config.head_dim = 128;
  config.max_position_embeddings = 131072;
  config.rope_theta = 500000.0;
  return config;
}

std::string embedding() { return std::string(4 * 128 * 4, '\0'); }

ModelConfig config_of(GgufBuilder& builder) {
  const std::string bytes = builder.tensor("token_embd.weight", {4, 128}, kF32, embedding()).bytes();
  return read_gguf_config(GgufFile::from_bytes(as_bytes(bytes), "x.gguf"));
}

// The factors as llama.cpp's convert_hf_to_gguf.py makes them, in fp32.
std::string converter_factors(float factor, float original) {
  std::vector<float> factors;
  for (int i = 0; i < 128; i += 2) {
    const float frequency = 1.0f / std::pow(500000.0f, static_cast<float>(i) / 128.0f);
    const float wavelength = 2.0f * 3.14159265f / frequency;
    const float smooth = (original / wavelength - 1.0f) / 3.0f;
    factors.push_back(wavelength < original / 4.0f ? 1.0f
                      : wavelength > original      ? factor
                                                   : 1.0f / ((1.0f - smooth) / factor + smooth));
  }
  return raw_floats(factors);
}

TEST(GgufSource, RecoversLlama3RopeScaling) {
  for (const float factor : {8.0f, 32.0f}) {
    GgufBuilder builder = config_builder("llama", small_config());
    builder.tensor("rope_freqs.weight", {64}, kF32, converter_factors(factor, 8192.0f));
    const ModelConfig config = config_of(builder);
    ASSERT_TRUE(config.rope_scaling);
    EXPECT_EQ(config.rope_scaling->factor, factor);
    EXPECT_EQ(config.rope_scaling->low_freq_factor, 1.0);
    EXPECT_EQ(config.rope_scaling->high_freq_factor, 4.0);
    EXPECT_EQ(config.rope_scaling->original_max_position_embeddings, 8192);
  }
  const std::pair<float, float> others[] = {{16.0f, 8192.0f}, {8.0f, 4096.0f}, {8.2f, 8192.0f}};
  for (const auto& [factor, original] : others) {
    GgufBuilder builder = config_builder("llama", small_config());
    builder.tensor("rope_freqs.weight", {64}, kF32, converter_factors(factor, original));
    EXPECT_TRUE(contains(error_of([&] { config_of(builder); }), "rope factors")) << factor;
  }
  GgufBuilder builder = config_builder("llama", small_config());
  EXPECT_FALSE(config_of(builder).rope_scaling);
}

TEST(GgufSource, RefusesOtherModels) {
  const auto refused = [](const std::function<void(GgufBuilder&)>& change) {
    GgufBuilder builder = config_builder("llama", small_config());
    change(builder);
    return error_of([&] { config_of(builder); });
  };
  EXPECT_EQ(refused([](GgufBuilder&) {}), "no error");
  EXPECT_TRUE(contains(refused([](GgufBuilder& b) { b.u32("llama.expert_count", 8); }), "mixtures of experts"));
  EXPECT_TRUE(contains(refused([](GgufBuilder& b) { b.text("llama.rope.scaling.type", "yarn"); }), "'yarn'"));
  EXPECT_TRUE(
      contains(refused([](GgufBuilder& b) { b.u32("llama.rope.dimension_count", 64); }), "rotary dimension 64"));
  EXPECT_TRUE(contains(refused([](GgufBuilder& b) {
                         b.strings("tokenizer.ggml.tokens", {"a", "b", "c", "d", "e"});
                       }),
                       "5 tokens"));
  GgufBuilder gemma;
  gemma.text("general.architecture", "gemma2");
  EXPECT_TRUE(contains(error_of([&] { config_of(gemma); }),
                       "architecture 'gemma2', which is not supported; supported: meta-llama"));

  GgufBuilder foreign = config_builder("llama", small_config());
  const std::string bytes = foreign.tensor("token_embd.weight", {4, 128}, kF32, embedding())
                                .tensor("blk.0.attn_q_norm.weight", {128}, kF32, std::string(512, '\0'))
                                .bytes();
  EXPECT_TRUE(contains(error_of([&] { open_gguf_model(GgufFile::from_bytes(as_bytes(bytes), "x.gguf")); }),
                       "tensor 'blk.0.attn_q_norm.weight' does not belong to a llama model"));
}

}  // namespace
}  // namespace llmfp8
