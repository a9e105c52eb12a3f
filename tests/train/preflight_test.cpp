// The checks before a run: what they find in rows that are wrong, and that they are silent where all is well.
#include "train/preflight.h"

#include <gtest/gtest.h>

#include "core/batch.h"
#include "core/error.h"
#include "engine_support.h"

namespace llmfp8::testing {
namespace {

// Three letters and the special tokens <s> and </s>; <s> is put before every text where `puts_bos`.
Tokenizer letters(bool puts_bos) {
  nlohmann::json vocab = {{"a", 0}, {"b", 1}, {"c", 2}, {"<s>", 3}, {"</s>", 4}};
  nlohmann::json json = {
      {"version", "1.0"},
      {"added_tokens",
       {{{"id", 3}, {"content", "<s>"}, {"special", true}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}},
        {{"id", 4}, {"content", "</s>"}, {"special", true}, {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
  if (puts_bos) {
    json["post_processor"] = {{"type", "TemplateProcessing"},
                              {"single", {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
                              {"pair", nlohmann::json::array()},
                              {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {3}}, {"tokens", {"<s>"}}}}}}};
  }
  return Tokenizer::from_json(json.dump(), R"({"bos_token": "<s>", "eos_token": "</s>"})", "letters");
}

// Everything is learnt.
TokenStore store_of(const std::vector<std::vector<std::int32_t>>& rows) {
  std::vector<TokenizedRow> store;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    TokenizedRow row;
    row.ids = rows[i];
    row.labels.assign(row.ids.begin() + 1, row.ids.end());
    row.labels.push_back(kIgnoreLabel);
    store.push_back(row);
  }
  return store_in_memory(store);
}

TEST(Preflight, RowsThatBeginAndEndAsTheyShould) {
  const Tokenizer tokenizer = letters(true);
  const auto checks = check_row_ends(store_of({{3, 0, 1, 4}, {3, 2, 4, 0}, {3, 0, 0, 0, 0, 0, 0, 0}}), tokenizer, 8);
  ASSERT_EQ(checks.size(), 2u);
  EXPECT_EQ(checks[0].found, "one <s> in every row");
  // A line break may stand behind the special token; the third row was cut off.
  EXPECT_EQ(checks[1].found, "every whole row ends in a supervised special token");
  EXPECT_FALSE(checks[0].warns || checks[1].warns);
}

TEST(Preflight, OfManyRowsSomeAreLookedAt) {
  const std::vector<std::vector<std::int32_t>> rows(20001, {3, 0, 4});
  const auto checks = check_row_ends(store_of(rows), letters(true), 8);
  EXPECT_EQ(checks[0].found, "one <s> in every row (20000 of 20001 looked at)");
  EXPECT_EQ(checks[1].found, "every whole row ends in a supervised special token (20000 of 20001 looked at)");
}

TEST(Preflight, TwoBeginningsAndNone) {
  const Tokenizer tokenizer = letters(true);
  PreflightCheck begin = check_row_ends(store_of({{3, 3, 0, 4}, {3, 0, 4}}), tokenizer, 8)[0];
  EXPECT_TRUE(begin.warns);
  EXPECT_EQ(begin.found, "1 of 2 rows (50.0 %) begin with <s> twice");
  begin = check_row_ends(store_of({{0, 1, 4}, {1, 0, 4}, {3, 0, 4}, {3, 1, 4}}), tokenizer, 8)[0];
  EXPECT_TRUE(begin.warns);
  EXPECT_EQ(begin.found, "2 of 4 rows (50.0 %) do not begin with <s>");
  EXPECT_FALSE(check_row_ends(store_of({{0, 1, 4}}), letters(false), 8)[0].warns);
}

TEST(Preflight, RowsWithoutAnEnd) {
  const Tokenizer tokenizer = letters(false);
  PreflightCheck end = check_row_ends(store_of({{0, 1, 2}, {0, 1, 4}}), tokenizer, 8)[1];
  EXPECT_TRUE(end.warns);
  EXPECT_TRUE(end.found.starts_with("1 of 2 rows (50.0 %) end without a supervised special token")) << end.found;
  end = check_row_ends(store_of({{0, 1, 2}}), tokenizer, 3)[1];
  EXPECT_TRUE(end.warns);
  EXPECT_EQ(end.found, "no row has its end in max_seq_length tokens");
  // The end is there and is not learnt.
  const std::vector<TokenizedRow> rows = {{{0, 1, 4}, {1, kIgnoreLabel, kIgnoreLabel}, false, 3}};
  EXPECT_TRUE(check_row_ends(store_in_memory(rows), tokenizer, 8)[1].warns);
}

TEST(Preflight, AnUntrainedSpecialTokenIsNamed) {
  const std::unique_ptr<Backend> backend = create_backend("cpu");
  BatchLimits limits;
  limits.capacities = {128};
  limits.max_docs = 4;
  limits.max_doc_tokens = 16;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    EngineOptions options;
    options.dtype = dtype;
    const auto engine = golden_engine(*backend, model_dir("llama_tied"), options, limits);
    const TokenStore rows = store_of({{3, 0, 1, 2, 4}, {3, 2, 4}});
    PreflightCheck check = check_special_embeddings(rows, letters(true), *engine);
    EXPECT_FALSE(check.warns) << check.found;
    EXPECT_EQ(check.found, "2 in the rows, each with a trained embedding");

    const Tensor row = engine->params().embedding().slice_rows(4, 1);
    std::memset(row.data, 0, row.bytes());
    check = check_special_embeddings(rows, letters(true), *engine);
    EXPECT_TRUE(check.warns);
    EXPECT_TRUE(check.found.starts_with("</s>: in the rows, but the embedding looks untrained")) << check.found;
    EXPECT_FALSE(check_special_embeddings(store_of({{0, 1, 3}}), letters(true), *engine).warns);  // </s> is not used
  }
}

TEST(Preflight, DiskThatHoldsTheModelNotTheSnapshotsOrNothing) {
  const DiskNeed need{1'000'000'000, 1'000'000'000, 2};
  PreflightCheck check = judge_disk("there", need, 5'000'000'000);
  EXPECT_FALSE(check.warns);
  EXPECT_EQ(check.found, "the model takes 1.0 GB, checkpoints up to 3.0 GB; 5.0 GB free");
  check = judge_disk("there", need, 3'900'000'000);
  EXPECT_TRUE(check.warns);
  EXPECT_FALSE(judge_disk("there", {1'000'000'000, 1'000'000'000, 0}, 1'000'000'000).warns);
  try {
    judge_disk("there", need, 999'000'000);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "--output_dir there: 999.0 MB free, saving the model needs 1.0 GB");
  }
}

}  // namespace
}  // namespace llmfp8::testing
