#include "hub/gguf_tokenizer.h"

#include <nlohmann/json.hpp>

#include "hub_test_util.h"

namespace llmfp8 {
namespace {

using nlohmann::json;
using testing::as_bytes;
using testing::contains;
using testing::error_of;
using testing::GgufBuilder;

struct Parts {
  std::string pre = "smollm";
  std::vector<std::string> tokens = {"<|end|>", "a", "b", "ab", "\xC4\xA0", "<tool>", "[PAD6]"};
  std::vector<std::int32_t> types = {3, 1, 1, 1, 1, 4, 5};
  std::vector<std::string> merges = {"a b"};
  std::string chat_template = "{{ \"x\" }}\n";
};

GgufBuilder builder_of(const Parts& parts) {
  GgufBuilder builder;
  builder.text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", parts.pre)
      .strings("tokenizer.ggml.tokens", parts.tokens)
      .i32s("tokenizer.ggml.token_type", parts.types)
      .strings("tokenizer.ggml.merges", parts.merges)
      .u32("tokenizer.ggml.bos_token_id", 0)
      .u32("tokenizer.ggml.eos_token_id", 0)
      .text("tokenizer.chat_template", parts.chat_template);
  return builder;
}

std::pair<json, json> make(const GgufBuilder& builder) {
  const std::string bytes = builder.bytes();
  const GgufTokenizerFiles files = make_tokenizer_files(GgufFile::from_bytes(as_bytes(bytes), "x.gguf"));
  return {json::parse(files.tokenizer_json), json::parse(files.tokenizer_config_json)};
}

std::string refusal(const Parts& parts) {
  return error_of([&] { make(builder_of(parts)); });
}

TEST(GgufTokenizer, WritesVocabularyMergesAndAddedTokens) {
  const auto [tokenizer, config] = make(builder_of({}));
  EXPECT_EQ(tokenizer["model"]["type"], "BPE");
  EXPECT_EQ(tokenizer["model"]["vocab"],
            (json{{"<|end|>", 0}, {"a", 1}, {"b", 2}, {"ab", 3}, {"\xC4\xA0", 4}, {"<tool>", 5}}));
  EXPECT_EQ(tokenizer["model"]["merges"], json::array({"a b"}));
  ASSERT_EQ(tokenizer["added_tokens"].size(), 2u);
  EXPECT_EQ(tokenizer["added_tokens"][0]["content"], "<|end|>");
  EXPECT_EQ(tokenizer["added_tokens"][0]["special"], true);
  EXPECT_EQ(tokenizer["added_tokens"][1]["id"], 5);
  EXPECT_EQ(tokenizer["added_tokens"][1]["special"], false);
  EXPECT_EQ(config["bos_token"], "<|end|>");
  EXPECT_EQ(config["eos_token"], "<|end|>");
  EXPECT_FALSE(config.contains("pad_token"));
  EXPECT_EQ(config["chat_template"], "{{ \"x\" }}\n");
}

TEST(GgufTokenizer, PreTokenizers) {
  const auto smollm = make(builder_of({})).first;
  EXPECT_EQ(smollm["pre_tokenizer"]["pretokenizers"][0], (json{{"type", "Digits"}, {"individual_digits", true}}));
  EXPECT_EQ(smollm["pre_tokenizer"]["pretokenizers"][1]["use_regex"], true);
  EXPECT_TRUE(smollm["normalizer"].is_null());
  EXPECT_EQ(smollm["post_processor"]["type"], "ByteLevel");

  Parts parts;
  parts.pre = "gpt-2";
  EXPECT_EQ(make(builder_of(parts)).first["pre_tokenizer"]["type"], "ByteLevel");

  parts.pre = "llama-bpe";
  const auto llama = make(builder_of(parts)).first;
  EXPECT_TRUE(contains(llama["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"], "\\p{N}{1,3}"));
  EXPECT_EQ(llama["model"]["ignore_merges"], true);
  EXPECT_EQ(llama["post_processor"]["processors"][1]["single"][0]["SpecialToken"]["id"], "<|end|>");
  EXPECT_EQ(llama["post_processor"]["processors"][1]["special_tokens"]["<|end|>"]["ids"], json::array({0}));
  GgufBuilder no_bos = builder_of(parts);
  no_bos.boolean("tokenizer.ggml.add_bos_token", false);
  EXPECT_EQ(make(no_bos).first["post_processor"]["type"], "ByteLevel");

  parts.pre = "qwen2";
  const auto qwen = make(builder_of(parts)).first;
  EXPECT_EQ(qwen["normalizer"]["type"], "NFC");
  EXPECT_FALSE(contains(qwen["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"], "{1,3}"));
  EXPECT_EQ(qwen["model"]["ignore_merges"], false);
}

// The two patterns are those of the original models' tokenizer.json (golden copies of which the text tests use).
TEST(GgufTokenizer, PatternsAreTheOriginalOnes) {
  const std::pair<const char*, const char*> names[] = {{"llama-3.1", "llama-bpe"}, {"qwen2.5", "qwen2"}};
  for (const auto& [model, pre] : names) {
    const std::filesystem::path path = testing::golden_dir() / "data" / "tokenizers" / model / "tokenizer.json";
    ASSERT_TRUE(std::filesystem::exists(path)) << path;
    const json original = testing::read_json(path);
    Parts parts;
    parts.pre = pre;
    const json made = make(builder_of(parts)).first;
    EXPECT_EQ(made["pre_tokenizer"]["pretokenizers"][0], original["pre_tokenizer"]["pretokenizers"][0]) << model;
    EXPECT_EQ(made["normalizer"], original["normalizer"]);
  }
}

TEST(GgufTokenizer, RefusesWhatItCannotDescribe) {
  Parts parts;
  parts.pre = "tekken";
  EXPECT_TRUE(
      contains(refusal(parts), "pre-tokenizer 'tekken' is not supported; smollm, llama-bpe, qwen2 or gpt-2 wanted"));
  parts = {};
  parts.merges = {"a c"};
  EXPECT_TRUE(contains(refusal(parts), "merge 'a c'"));
  parts.merges = {"ab"};
  EXPECT_TRUE(contains(refusal(parts), "not two tokens"));
  parts.merges = {"a b "};
  EXPECT_TRUE(contains(refusal(parts), "not two tokens"));
  parts = {};
  parts.tokens[2] = "a";
  EXPECT_TRUE(contains(refusal(parts), "token 'a' appears twice"));
  parts = {};
  parts.tokens[1] = "\xFF";
  parts.merges = {};
  EXPECT_TRUE(contains(refusal(parts), "not valid UTF-8"));
  parts = {};
  parts.types.pop_back();
  EXPECT_TRUE(contains(refusal(parts), "6 token types for 7 tokens"));
  parts = {};
  parts.chat_template = "\xC3";
  EXPECT_TRUE(contains(refusal(parts), "not valid UTF-8"));
  GgufBuilder bos;
  bos.text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", "gpt-2")
      .strings("tokenizer.ggml.tokens", {"a"})
      .strings("tokenizer.ggml.merges", {})
      .u32("tokenizer.ggml.bos_token_id", 1);
  EXPECT_TRUE(contains(error_of([&] { make(bos); }), "'tokenizer.ggml.bos_token_id' is 1, below 1 wanted"));
  GgufBuilder spm;
  spm.text("tokenizer.ggml.model", "llama");
  EXPECT_TRUE(contains(error_of([&] { make(spm); }), "tokenizer 'llama' is not supported"));
}

}  // namespace
}  // namespace llmfp8
