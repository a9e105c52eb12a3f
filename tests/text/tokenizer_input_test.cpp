// Bad tokenizer files and texts: one clear message each, and no crash.
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "text/regex.h"
#include "text/test_tokenizers.h"

namespace llmfp8 {
namespace {

using nlohmann::json;

template <typename Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// Loads the small tokenizer with one value replaced (pointer: a JSON pointer).
std::string error_with(const std::string& pointer, const json& value) {
  json document = testing::small_tokenizer();
  document[json::json_pointer(pointer)] = value;
  return message_of([&] { testing::load(document); });
}

#define EXPECT_SAYS(message, part)                                        \
  do {                                                                    \
    const std::string said = (message);                                   \
    EXPECT_NE(said.find(part), std::string::npos) << "message: " << said; \
    EXPECT_EQ(said.find('\n'), std::string::npos) << "message: " << said; \
  } while (false)

TEST(BadTokenizer, TheSmallOneLoads) {
  EXPECT_EQ(message_of([] { testing::load(testing::small_tokenizer()); }), "no error");
}

TEST(BadTokenizer, WhatIsNotSupportedIsNamed) {
  EXPECT_SAYS(error_with("/model/type", "Unigram"), "\"Unigram\" is not supported (supported: BPE)");
  EXPECT_SAYS(error_with("/model/byte_fallback", true), "byte_fallback");
  EXPECT_SAYS(error_with("/model/dropout", 0.1), "model.dropout");
  EXPECT_SAYS(error_with("/model/end_of_word_suffix", "</w>"), "</w>");
  EXPECT_SAYS(error_with("/model/continuing_subword_prefix", "##"), "##");
  EXPECT_SAYS(error_with("/normalizer", {{"type", "Lowercase"}}),
              "\"Lowercase\" is not supported (supported: none, NFC");
  EXPECT_SAYS(error_with("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "NFKC"}}}}}), "\"NFKC\"");
  EXPECT_SAYS(error_with("/pre_tokenizer", {{"type", "Metaspace"}}), "\"Metaspace\" is not supported");
  EXPECT_SAYS(error_with("/pre_tokenizer", nullptr), "pre_tokenizer null is not supported");
  EXPECT_SAYS(error_with("/pre_tokenizer", {{"type", "Digits"}}), "without ByteLevel");
  EXPECT_SAYS(error_with("/pre_tokenizer",
                         {{"type", "Sequence"}, {"pretokenizers", {{{"type", "ByteLevel"}}, {{"type", "Digits"}}}}}),
              "after ByteLevel");
  EXPECT_SAYS(error_with("/post_processor", {{"type", "BertProcessing"}}), "\"BertProcessing\"");
  EXPECT_SAYS(error_with("/decoder", {{"type", "Metaspace"}}), "\"Metaspace\" is not supported (supported: ByteLevel)");
  EXPECT_SAYS(error_with("/decoder", nullptr), "decoder null");
}

json split_step(const std::string& regex) {
  return {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}},
            {{"type", "ByteLevel"}}}}};
}

TEST(BadTokenizer, Regexes) {
  for (const char* regex :
       {"\\w+",        "\\h",      "\\bx",    "(?m:.)",   "(?<n>x)", "(*FAIL)", "[a[b]]",  "[a&&b]",
        "[[:alpha:]]", "\\p{Han}", "\\p{^L}", "[\\P{L}]", "[\\S]",   "x{,3}",   "x{1,2}+", "\\x{FFFFFFFFF}",
        "\\xFF",       "\\1",      "[]",      "[^",       "\\",      "\\p",     "\\v",     "\\K"}) {
    EXPECT_SAYS(error_with("/pre_tokenizer", split_step(regex)), "is not supported");
  }
  EXPECT_SAYS(error_with("/pre_tokenizer", split_step("(a")), "does not compile");
  EXPECT_SAYS(error_with("/pre_tokenizer", split_step("\\x{110000}")), "does not compile");
  EXPECT_SAYS(error_with("/pre_tokenizer", split_step(std::string(100000, 'a'))), "100000 bytes");
  EXPECT_SAYS(error_with("/pre_tokenizer", split_step(std::string(20000, '(') + std::string(20000, ')'))),
              "does not compile");
}

TEST(BadTokenizer, ARegexThatBacktracksWithoutEndIsGivenUp) {
  const Regex regex("(a+)+b|x", "test");
  std::vector<TextRange> matches;
  EXPECT_SAYS(message_of([&] { regex.find_all(std::string(200, 'a') + "c", matches); }), "failed");
}

TEST(BadTokenizer, Ids) {
  EXPECT_SAYS(error_with("/model/vocab/ab", -1), "model.vocab[\"ab\"] is -1, wanted: a whole number");
  EXPECT_SAYS(error_with("/model/vocab/ab", 1.5), "model.vocab[\"ab\"] is 1.5");
  EXPECT_SAYS(error_with("/model/vocab/ab", "7"), "model.vocab[\"ab\"] is \"7\"");
  EXPECT_SAYS(error_with("/model/vocab/ab", 3'000'000'000), "is 3000000000");
  EXPECT_SAYS(error_with("/model/vocab/ab", 2'000'000'000), "is 2000000000");
  EXPECT_SAYS(error_with("/model/vocab/ab", 258), "gives the id 258 to both \"ab\" and \"bc\"");
  EXPECT_SAYS(error_with("/model/vocab", json::object()), "model.vocab is empty");
  EXPECT_SAYS(error_with("/added_tokens", {{{"id", 257}, {"content", "<x>"}}}), "which is that of \"abc\"");
  EXPECT_SAYS(error_with("/added_tokens", {{{"id", 300}, {"content", "abc"}}}), "model.vocab gives it 257");
  EXPECT_SAYS(error_with("/added_tokens", {{{"id", 300}, {"content", "x"}}, {{"id", 301}, {"content", "x"}}}),
              "model.vocab gives it");
  EXPECT_SAYS(error_with("/added_tokens", {{{"id", 300}, {"content", "<x>"}}, {{"id", 300}, {"content", "<y>"}}}),
              "which is that of \"<x>\"");
  EXPECT_SAYS(error_with("/added_tokens", {{{"id", 300}, {"content", "<x>"}}, {{"id", 301}, {"content", "<x>"}}}),
              "a second time");
  EXPECT_SAYS(error_with("/added_tokens", {{{"id", 4'294'967'296}, {"content", "<x>"}}}),
              "added_tokens[0].id is 4294967296");
  EXPECT_SAYS(error_with("/added_tokens", {{{"id", 300}, {"content", ""}}}), "not empty");
  EXPECT_SAYS(
      error_with("/post_processor", {{"type", "TemplateProcessing"},
                                     {"single", {{{"SpecialToken", {{"id", "S"}}}}, {{"Sequence", {{"id", "A"}}}}}},
                                     {"special_tokens", {{"S", {{"ids", {999}}}}}}}),
      "adds the id 999");
  EXPECT_SAYS(error_with("/model/unk_token", "<nope>"), "<nope>");
}

TEST(BadTokenizer, Merges) {
  EXPECT_SAYS(error_with("/model/merges", {"a b", "q q"}), "model.merges[1] needs the token \"qq\"");
  EXPECT_SAYS(error_with("/model/merges", {"ab"}), "model.merges[0] is \"ab\"");
  EXPECT_SAYS(error_with("/model/merges", {"a b c"}), "model.merges[0]");
  EXPECT_SAYS(error_with("/model/merges", {json::array({"a", 1})}), "model.merges[0]");
  EXPECT_SAYS(error_with("/model/merges", nullptr), "model.merges is missing or null, wanted: a list");
}

// Every value of the document replaced by every kind of value: an error or a tokenizer, never a crash.
TEST(BadTokenizer, WrongTypesAnywhere) {
  json document = testing::small_tokenizer();
  document["added_tokens"] = {{{"id", 300}, {"content", "<x>"}, {"special", true}, {"lstrip", false}}};
  document["pre_tokenizer"] = split_step("\\s+");
  document["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}};
  document["post_processor"] = {{"type", "TemplateProcessing"},
                                {"single", {{{"SpecialToken", {{"id", "S"}}}}, {{"Sequence", {{"id", "A"}}}}}},
                                {"special_tokens", {{"S", {{"ids", {300}}}}}}};
  document["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"ab", 2}};
  document["model"]["merges"] = {"a b"};
  document["model"]["unk_token"] = "a";
  EXPECT_EQ(message_of([&] { testing::load(document); }), "no error");
  const std::vector<json> values = {nullptr, true,           -1,           5, 1e300, "", "x", json::array(),
                                    {1},     json::object(), {{"type", 1}}};
  int refused = 0;
  const json flat = document.flatten();
  for (const auto& [pointer, value] : flat.items()) {
    // The value itself, and what it lies in.
    for (json::json_pointer at(pointer); !at.empty(); at.pop_back()) {
      for (const json& other : values) {
        json changed = document;
        changed[at] = other;
        const std::string message = message_of([&] { testing::load(changed).encode("ab <x> c", true); });
        if (message != "no error") ++refused;
        EXPECT_EQ(message.find('\n'), std::string::npos);
      }
    }
  }
  EXPECT_GT(refused, 300);
}

TEST(BadTokenizer, BrokenJson) {
  const auto error_of = [](const std::string& text) {
    return message_of([&] { Tokenizer::from_json(text, "", "t.json"); });
  };
  EXPECT_SAYS(error_of(""), "t.json: not valid JSON (at byte 1)");
  EXPECT_SAYS(error_of("{\"model\": "), "not valid JSON");
  EXPECT_SAYS(error_of("{\"a\": \"\xFF\"}"), "not valid JSON");
  EXPECT_SAYS(error_of("{\"a\": 1e999}"), "not valid JSON");
  EXPECT_SAYS(error_of("[]"), "the document is a list, wanted: an object");
  EXPECT_SAYS(error_of("{}"), "model is missing or null");
  EXPECT_SAYS(error_of(std::string(1'000'000, '[') + std::string(1'000'000, ']')), "the document is a list");
  std::string nested = "{\"type\": \"NFC\"}";
  for (int i = 0; i < 1000; ++i) nested = "{\"type\": \"Sequence\", \"normalizers\": [" + nested + "]}";
  json document = testing::small_tokenizer();
  document["normalizer"] = json::parse(nested);
  EXPECT_SAYS(message_of([&] { testing::load(document); }), "nests Sequence more than");
  const std::string whole = testing::small_tokenizer().dump();
  for (std::size_t size = 0; size < whole.size(); size += 97)
    EXPECT_SAYS(error_of(whole.substr(0, size)), "not valid JSON");
}

TEST(BadTokenizer, Folder) {
  const testing::TempDir folder;
  EXPECT_SAYS(message_of([&] { Tokenizer::from_folder(folder.path()); }), "tokenizer.json: no such file");
  std::ofstream(folder.path() / "tokenizer.json") << testing::small_tokenizer();
  std::ofstream(folder.path() / "tokenizer_config.json") << R"({"bos_token": {"content": "ab"}, "eos_token": "abc",
    "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})";
  const Tokenizer tokenizer = Tokenizer::from_folder(folder.path());
  EXPECT_EQ(tokenizer.bos_id(), 256);
  EXPECT_EQ(tokenizer.eos_id(), 257);
  EXPECT_EQ(tokenizer.chat_template(), "d");
  std::ofstream(folder.path() / "chat_template.jinja") << "from its file";
  EXPECT_EQ(Tokenizer::from_folder(folder.path()).chat_template(), "from its file");
  std::ofstream(folder.path() / "tokenizer_config.json") << R"({"bos_token": 5})";
  EXPECT_SAYS(message_of([&] { Tokenizer::from_folder(folder.path()); }),
              "tokenizer_config.json: bos_token is 5, wanted: a string");
}

TEST(BadText, IsRefusedOrDecodedLossily) {
  const Tokenizer tokenizer = testing::load(testing::small_tokenizer());
  EXPECT_SAYS(message_of([&] { tokenizer.encode("ab\xFF"); }), "not UTF-8 (at byte 2 of 3)");
  EXPECT_EQ(tokenizer.decode(std::vector<std::int32_t>{'a', -1, 1 << 30, 'b'}),
            "ab");  // as HF: ids without a token are passed over
  EXPECT_TRUE(tokenizer.encode("").empty());
  EXPECT_EQ(tokenizer.encode(std::string("\0a", 2)), (std::vector<std::int32_t>{0, 'a'}));
}

}  // namespace
}  // namespace llmfp8
