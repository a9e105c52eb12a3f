// The rules of tokenizer.json one by one. Expected values come from tokenizers 0.23.3.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "text/pretokenizer.h"
#include "text/test_tokenizers.h"

namespace llmfp8 {
namespace {

using Ids = std::vector<std::int32_t>;
using nlohmann::json;

std::vector<std::string> words_of(const Pretokenizer& pretokenizer, const std::string& text) {
  std::vector<Word> words;
  pretokenizer.split(text, words);
  std::vector<std::string> out;
  for (const Word& word : words)
    out.push_back((word.prefix_space ? "_" : "") + text.substr(word.begin, word.end - word.begin));
  return out;
}

std::vector<std::string> split_words(SplitBehavior behavior, bool invert) {
  std::vector<PretokenizerStep> steps;
  steps.emplace_back(SplitStep{std::string("-"), behavior, invert});
  return words_of(Pretokenizer(std::move(steps)), "a--bc-d-");
}

TEST(Pretokenizer, SplitBehaviors) {
  using Words = std::vector<std::string>;
  const Words one_by_one = {"a", "-", "-", "bc", "-", "d", "-"};
  EXPECT_EQ(split_words(SplitBehavior::removed, false), (Words{"a", "bc", "d"}));
  EXPECT_EQ(split_words(SplitBehavior::removed, true), (Words{"-", "-", "-", "-"}));
  EXPECT_EQ(split_words(SplitBehavior::isolated, false), one_by_one);
  EXPECT_EQ(split_words(SplitBehavior::isolated, true), one_by_one);
  EXPECT_EQ(split_words(SplitBehavior::merged_with_previous, false), (Words{"a-", "-", "bc-", "d-"}));
  EXPECT_EQ(split_words(SplitBehavior::merged_with_previous, true), (Words{"a", "-", "-bc", "-d", "-"}));
  EXPECT_EQ(split_words(SplitBehavior::merged_with_next, false), (Words{"a", "-", "-bc", "-d", "-"}));
  EXPECT_EQ(split_words(SplitBehavior::merged_with_next, true), (Words{"a-", "-", "bc-", "d-"}));
  EXPECT_EQ(split_words(SplitBehavior::contiguous, false), (Words{"a", "--", "bc", "-", "d", "-"}));
  EXPECT_EQ(split_words(SplitBehavior::contiguous, true), (Words{"a", "--", "bc", "-", "d", "-"}));
}

TEST(Pretokenizer, DigitsThenByteLevel) {
  using Words = std::vector<std::string>;
  for (const bool individual : {true, false}) {
    std::vector<PretokenizerStep> steps;
    steps.emplace_back(DigitsStep{individual});
    steps.emplace_back(ByteLevelStep{false, std::make_unique<Regex>(kGpt2Pattern, "test")});
    const Words wanted =
        individual ? Words{"a", "1", "2", "\u00BD", " b", " ", "3"} : Words{"a", "12\u00BD", " b", " ", "3"};
    EXPECT_EQ(words_of(Pretokenizer(std::move(steps)), "a12\u00BD b 3"), wanted);
  }
}

TEST(Pretokenizer, PrefixSpaceGoesBeforeEveryPart) {
  std::vector<PretokenizerStep> steps;
  steps.emplace_back(SplitStep{std::string("-"), SplitBehavior::isolated, false});
  steps.emplace_back(ByteLevelStep{true, std::make_unique<Regex>(kGpt2Pattern, "test")});
  EXPECT_EQ(words_of(Pretokenizer(std::move(steps)), "a b- c"), (std::vector<std::string>{"_a", " b", "_-", " c"}));
}

TEST(Bpe, MergesByRank) {
  const Tokenizer tokenizer = testing::load(testing::small_tokenizer());
  EXPECT_EQ(tokenizer.encode("abc"), (Ids{'a', 258}));  // "b c" ranks first, and "a bc" is no merge
  EXPECT_EQ(tokenizer.encode("abab"), (Ids{256, 256}));
  EXPECT_EQ(tokenizer.encode(" ab"), (Ids{' ', 256}));
  EXPECT_EQ(tokenizer.encode("x ax"), (Ids{'x', 259, 'x'}));
}

TEST(Bpe, IgnoreMergesTakesAWholeWord) {
  json document = testing::small_tokenizer();
  document["model"]["ignore_merges"] = true;
  const Tokenizer tokenizer = testing::load(document);
  EXPECT_EQ(tokenizer.encode("abc"), (Ids{257}));
  EXPECT_EQ(tokenizer.encode("xabc"), (Ids{'x', 'a', 258}));
}

TEST(Bpe, MergesMayBePairs) {
  json document = testing::small_tokenizer();
  document["model"]["merges"] = json::array({json::array({"b", "c"}), json::array({"a", "b"})});
  EXPECT_EQ(testing::load(document).encode("abcab"), (Ids{'a', 258, 256}));
}

// A long word goes through the queue, a short one does not; both must merge alike.
TEST(Bpe, LongAndShortWordsMergeAlike) {
  const Tokenizer tokenizer = testing::load(testing::small_tokenizer());
  std::string word;
  Ids wanted;
  for (int i = 0; i < 500; ++i) {
    word += i % 3 == 0 ? "abc" : "ab";
    const Ids part = i % 3 == 0 ? Ids{'a', 258} : Ids{256};
    wanted.insert(wanted.end(), part.begin(), part.end());
  }
  EXPECT_EQ(tokenizer.encode(word), wanted);
}

TEST(Bpe, ALongRunOfOneLetterTakesNoQuadraticTime) {
  const Tokenizer& tokenizer = testing::golden_tokenizer("llama-3.1");
  // 50 times the goldens' 20,000 letters: quadratic work would take minutes.
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(std::string(1'000'000, 'a'))).size(), 1'000'000u);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(std::string(1'000'000, ' '))).size(), 1'000'000u);
}

TEST(Bpe, AByteLackingInTheVocabularyIsDroppedOrUnknown) {
  json document = testing::small_tokenizer();
  document["model"]["vocab"].erase("z");
  document["model"]["vocab"]["<unk>"] = int{'z'};
  const Encoding dropped = testing::load(document).encode_with_offsets("zazzb");
  EXPECT_EQ(dropped.ids, (Ids{256}));  // what remains lies side by side and merges
  EXPECT_EQ(dropped.ends.back(), 5u);
  document["model"]["unk_token"] = "<unk>";
  EXPECT_EQ(testing::load(document).encode("azzb"), (Ids{'a', 'z', 'z', 'b'}));
  document["model"]["fuse_unk"] = true;
  EXPECT_EQ(testing::load(document).encode("azzb"), (Ids{'a', 'z', 'b'}));
}

json added(int id, const std::string& content, const json& flags) {
  json token = {{"id", id}, {"content", content}, {"special", false}, {"normalized", false}};
  token.update(flags);
  return token;
}

TEST(AddedTokens, FlagsAndLongestMatch) {
  json document = testing::small_tokenizer();
  document["added_tokens"] = {added(300, "<m>", {{"special", true}}), added(301, "<m>>", json::object()),
                              added(302, "word", {{"single_word", true}}), added(303, "<l>", {{"lstrip", true}}),
                              added(304, "<r>", {{"rstrip", true}})};
  const Tokenizer tokenizer = testing::load(document);
  EXPECT_EQ(tokenizer.encode("<m><m>>"), (Ids{300, 301}));
  EXPECT_EQ(tokenizer.encode("word"), (Ids{302}));
  EXPECT_EQ(tokenizer.encode("-word-"), (Ids{'-', 302, '-'}));
  EXPECT_EQ(tokenizer.encode("sword"), (Ids{'s', 'w', 'o', 'r', 'd'}));
  EXPECT_EQ(tokenizer.encode("x \u3000<l> y"), (Ids{'x', 303, ' ', 'y'}));
  EXPECT_EQ(tokenizer.encode("x <r> \n y"), (Ids{'x', ' ', 304, 'y'}));
  const Encoding encoding = tokenizer.encode_with_offsets("x <r> \n y");
  EXPECT_EQ(encoding.ends, (std::vector<std::uint32_t>{1, 2, 8, 9}));
  EXPECT_EQ(tokenizer.decode(Ids{'a', 300, 301}, true), "a<m>>");
  EXPECT_TRUE(tokenizer.is_special(300));
  EXPECT_FALSE(tokenizer.is_special(301));
  EXPECT_EQ(tokenizer.vocab_size(), 305);
  EXPECT_EQ(tokenizer.id_to_token(303), "<l>");
  EXPECT_EQ(tokenizer.id_to_token(259), "\u0120a");
  EXPECT_EQ(tokenizer.id_to_token(299), "");
  EXPECT_EQ(tokenizer.token_to_id("abc"), 257);
  EXPECT_FALSE(tokenizer.token_to_id("abd").has_value());
}

TEST(AddedTokens, NormalisedOnesAreFoundInTheNormalisedText) {
  json document = testing::small_tokenizer();
  document["normalizer"] = {{"type", "NFC"}};
  document["added_tokens"] = {added(300, "caf\u00E9", {{"normalized", true}}), added(301, "the\u0301", json::object())};
  const Tokenizer tokenizer = testing::load(document);
  EXPECT_EQ(tokenizer.encode("cafe\u0301"), (Ids{300}));
  EXPECT_EQ(tokenizer.encode("the\u0301"), (Ids{301}));
  EXPECT_EQ(tokenizer.encode("th\u00E9"), (Ids{'t', 'h', 0xC3, 0xA9}));
}

TEST(PostProcessor, TemplateAroundTheText) {
  json document = testing::small_tokenizer();
  document["added_tokens"] = {added(300, "<s>", json::object()), added(301, "</s>", json::object())};
  const json piece = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  document["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}},
        {{"type", "TemplateProcessing"},
         {"single", {{{"SpecialToken", {{"id", "S"}}}}, piece, {{"SpecialToken", {{"id", "E"}}}}}},
         {"special_tokens", {{"S", {{"ids", {300}}}}, {"E", {{"ids", {301, 301}}}}}}}}}};
  const Tokenizer tokenizer = testing::load(document);
  EXPECT_EQ(tokenizer.encode("x", true), (Ids{300, 'x', 301, 301}));
  EXPECT_EQ(tokenizer.encode("x", false), (Ids{'x'}));
}

std::vector<int> supervision(const Tokenizer& tokenizer, const std::vector<TextSegment>& segments) {
  const SupervisedIds encoded = tokenizer.encode_segments(segments);
  std::string text;
  for (const TextSegment& segment : segments) text += segment.text;
  EXPECT_EQ(encoded.ids, tokenizer.encode(text));
  return {encoded.supervised.begin(), encoded.supervised.end()};
}

TEST(Segments, ATokenThatHoldsASupervisedByteIsSupervised) {
  const Tokenizer tokenizer = testing::load(testing::small_tokenizer());
  using V = std::vector<int>;
  EXPECT_EQ(supervision(tokenizer, {{"xa", false}, {"bx", true}}), (V{0, 1, 1}));  // x ab x
  EXPECT_EQ(supervision(tokenizer, {{"xa", true}, {"bx", false}}), (V{1, 1, 0}));
  EXPECT_EQ(supervision(tokenizer, {{"x", false}, {"", true}, {"y", false}}), (V{0, 0}));  // an empty one holds no byte
  EXPECT_EQ(supervision(tokenizer, {{"x", true}, {"y", false}, {"", false}, {"z", true}}), (V{1, 0, 1}));
  EXPECT_EQ(supervision(tokenizer, {}), V{});
}

TEST(Segments, BoundariesFollowTheNormalisedText) {
  json document = testing::small_tokenizer();
  document["normalizer"] = {{"type", "NFC"}};
  const Tokenizer tokenizer = testing::load(document);
  using V = std::vector<int>;
  // Three bytes before normalisation, two after: what follows must not move.
  EXPECT_EQ(supervision(tokenizer, {{"e\u0301", false}, {"x", true}, {"y", false}}), (V{0, 0, 1, 0}));
  EXPECT_EQ(supervision(tokenizer, {{"e\u0301e\u0301-e\u0301", false}, {"x", true}, {"e\u0301", false}}),
            (V{0, 0, 0, 0, 0, 0, 0, 1, 0, 0}));
  // A letter and its accent in two segments become one character, which holds something of both.
  EXPECT_EQ(supervision(tokenizer, {{"e", false}, {"\u0301", true}, {"y", false}}), (V{0, 1, 0}));
  EXPECT_EQ(supervision(tokenizer, {{"e", true}, {"\u0301", false}, {"y", false}}), (V{1, 0, 0}));
}

TEST(Threads, EncodeTheSameAtOnce) {
  const Tokenizer& llama = testing::golden_tokenizer("llama-3.1");
  const Tokenizer& qwen = testing::golden_tokenizer("qwen2.5");
  const std::string text = "Na\u00EFve caf\u00E9: 12345 + 678 = 13023, isn't it? <|eot_id|><|im_end|>";
  const Ids wanted_llama = llama.encode(text), wanted_qwen = qwen.encode(text);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) wrong += (llama.encode(text) != wanted_llama) + (qwen.encode(text) != wanted_qwen);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Utf8, LossyReplacesEachMaximalInvalidPart) {
  EXPECT_EQ(utf8_lossy("a\xFF"
                       "b"),
            "a\uFFFDb");
  EXPECT_EQ(utf8_lossy("\xE2\x82"), "\uFFFD");
  EXPECT_EQ(utf8_lossy("\xE2\x82"
                       "x\xF0\x9F\x98"),
            "\uFFFDx\uFFFD");
  EXPECT_EQ(utf8_lossy("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
  EXPECT_EQ(utf8_lossy("\xC0\x80"), "\uFFFD\uFFFD");            // an overlong form
  EXPECT_EQ(utf8_lossy("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(utf8_lossy("\u20AC"), "\u20AC");
}

}  // namespace
}  // namespace llmfp8
