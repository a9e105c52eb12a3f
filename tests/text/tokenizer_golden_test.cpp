// Every golden line of HF tokenizers: encoding, decoding, Unicode tables.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "text/normalizer.h"
#include "text/regex.h"
#include "text/test_tokenizers.h"

namespace llmfp8 {
namespace {

using testing::golden_dir;
using testing::golden_tokenizer;
using testing::read_jsonl;
using Ids = std::vector<std::int32_t>;

class GoldenTokenizer : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTokenizer, EncodesEveryLine) {
  const Tokenizer& tokenizer = golden_tokenizer(GetParam());
  const auto rows = read_jsonl(golden_dir() / "tokenizers" / (std::string(GetParam()) + ".jsonl"));
  ASSERT_GT(rows.size(), 500u);
  for (const auto& row : rows) {
    const auto text = row["text"].get<std::string>();
    const std::string what = row["cat"].get<std::string>() + ": " + text.substr(0, 80);
    EXPECT_EQ(tokenizer.encode(text), row["ids"].get<Ids>()) << what;
    EXPECT_EQ(tokenizer.encode(text, true), row["ids_special"].get<Ids>()) << what;
    EXPECT_EQ(tokenizer.decode(row["ids"].get<Ids>()), row["decoded"].get<std::string>()) << what;
  }
}

TEST_P(GoldenTokenizer, DecodesEveryLine) {
  const Tokenizer& tokenizer = golden_tokenizer(GetParam());
  const auto rows = read_jsonl(golden_dir() / "tokenizers" / (std::string(GetParam()) + ".decode.jsonl"));
  ASSERT_GT(rows.size(), 30u);
  for (const auto& row : rows) {
    const auto ids = row["ids"].get<Ids>();
    EXPECT_EQ(tokenizer.decode(ids), row["decoded"].get<std::string>()) << row["ids"];
    EXPECT_EQ(tokenizer.decode(ids, true), row["decoded_skip_special"].get<std::string>()) << row["ids"];
  }
}

// Every token's end is where its bytes end, so the tokens' bytes put together are the normalised text.
TEST_P(GoldenTokenizer, OffsetsCoverTheNormalisedText) {
  const Tokenizer& tokenizer = golden_tokenizer(GetParam());
  for (const auto& row : read_jsonl(golden_dir() / "tokenizers" / (std::string(GetParam()) + ".jsonl"))) {
    const Encoding encoding = tokenizer.encode_with_offsets(row["text"].get<std::string>());
    const auto decoded = row["decoded"].get<std::string>();
    ASSERT_EQ(encoding.ids, row["ids"].get<Ids>());
    ASSERT_EQ(encoding.ends.size(), encoding.ids.size());
    ASSERT_EQ(encoding.ends.empty() ? 0 : encoding.ends.back(), decoded.size());
    // Ends that fall between characters are where decoding a beginning ends.
    for (std::size_t i = 0; i < encoding.ids.size() && i < 200; ++i) {
      if (encoding.ends[i] < decoded.size() && (static_cast<unsigned char>(decoded[encoding.ends[i]]) & 0xC0u) == 0x80u)
        continue;
      ASSERT_EQ(tokenizer.decode(std::span(encoding.ids).first(i + 1)), decoded.substr(0, encoding.ends[i]));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Text, GoldenTokenizer, ::testing::Values("llama-3.1", "qwen2.5"),
                         [](const auto& one) { return std::string(one.param) == "qwen2.5" ? "Qwen25" : "Llama31"; });

TEST(RegexClasses, AreThoseOfTheReferenceForEveryCodePoint) {
  const auto tables = testing::read_json(golden_dir() / "tokenizers" / "regex_classes.json");
  for (const auto& [name, ranges] : tables["classes"].items()) {
    std::vector<bool> wanted(0x110000, false);
    for (const auto& range : ranges) {
      for (std::uint32_t code = range[0]; code <= range[1].get<std::uint32_t>(); ++code) wanted[code] = true;
    }
    const std::string escape = name == "s" ? "\\s" : fmt::format("\\p{{{}}}", name);
    // Alone, in a class, in a negated class, and as its own negation.
    const Regex alone(escape, "test"), inside(fmt::format("[x{}]", escape), "test");
    const Regex outside(fmt::format("[^x{}]", escape), "test");
    const Regex negated(name == "s" ? "\\S" : fmt::format("\\P{{{}}}", name), "test");
    std::vector<TextRange> matches;
    const auto found = [&](const Regex& regex, const std::string& text) {
      matches.clear();
      regex.find_all(text, matches);
      return matches.size() == 1;
    };
    for (char32_t code = 0; code < 0x110000; ++code) {
      if ((code >= 0xD800 && code <= 0xDFFF) || code == 1 || code == '|' || code == 'x')
        continue;  // 1 and |: not in the tables
      std::string text;
      append_utf8(text, code);
      ASSERT_EQ(found(alone, text), wanted[code]) << escape << " U+" << std::hex << std::uint32_t{code};
      ASSERT_EQ(found(inside, text), wanted[code]) << escape << " U+" << std::hex << std::uint32_t{code};
      ASSERT_EQ(found(outside, text), !wanted[code]) << escape << " U+" << std::hex << std::uint32_t{code};
      ASSERT_EQ(found(negated, text), !wanted[code]) << escape << " U+" << std::hex << std::uint32_t{code};
    }
  }
}

TEST(RegexClasses, CaseInsensitiveLettersAreThoseOfTheReference) {
  const auto tables = testing::read_json(golden_dir() / "tokenizers" / "regex_classes.json");
  for (const auto& [letter, codes] : tables["case_insensitive"].items()) {
    const Regex regex(fmt::format("(?i:{})", letter), "test");
    std::vector<char32_t> found;
    std::vector<TextRange> matches;
    for (char32_t code = 0; code < 0x110000; ++code) {
      if (code >= 0xD800 && code <= 0xDFFF) continue;
      std::string text;
      append_utf8(text, code);
      matches.clear();
      regex.find_all(text, matches);
      if (!matches.empty()) found.push_back(code);
    }
    EXPECT_EQ(found, codes.get<std::vector<char32_t>>()) << letter;
  }
}

TEST(Nfc, EveryGoldenLine) {
  const auto rows = read_jsonl(golden_dir() / "tokenizers" / "nfc.jsonl");
  ASSERT_GT(rows.size(), 1000u);
  for (const auto& row : rows)
    EXPECT_EQ(nfc(row["text"].get<std::string>()), row["nfc"].get<std::string>()) << row.dump();
}

// References: tokenizers 0.23.3, normalizers.NFC().
TEST(Nfc, LeavesWhatIsYoungerThanTheTablesOfTheReference) {
  const std::string young = "x\u0345\u0899\u1ABF\u0334";  // U+0899 and U+1ABF (Unicode 14, 13) act as starters
  EXPECT_EQ(nfc(young), young);
  EXPECT_EQ(nfc("\U00011935\U00011930"), "\U00011935\U00011930");
  EXPECT_EQ(nfc("e\u0301\u0899e\u0301"), "\u00E9\u0899\u00E9");
}

}  // namespace
}  // namespace llmfp8
