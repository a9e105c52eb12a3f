// Labels against the golden maths template, truncation, BOS and EOS, and whole data sets tokenised.
#include "data/supervision.h"

#include <algorithm>
#include <fstream>

#include <gtest/gtest.h>

#include "core/batch.h"
#include "core/error.h"
#include "data/tokenize_dataset.h"
#include "support/golden.h"
#include "text/test_tokenizers.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using testing::golden_dir;
using testing::golden_tokenizer;
using Ids = std::vector<std::int32_t>;

DatasetRow conversation(const std::string& problem, const std::string& solution) {
  DatasetRow row;
  row.messages = {{"system", kMathSystemText}, {"user", problem}, {"assistant", solution}};
  return row;
}

DatasetRow plain(const std::string& prompt, const std::string& text) {
  DatasetRow row;
  row.prompt = prompt;
  row.text = text;
  return row;
}

TEST(LabelTokens, ShiftMaskAndTruncation) {
  const SupervisedIds tokens{{5, 6, 7, 8, 9}, {0, 0, 1, 0, 1}};
  const TokenizedRow all = label_tokens(tokens, {10, LossOn::all});
  EXPECT_EQ(all.ids, (Ids{5, 6, 7, 8, 9}));
  EXPECT_EQ(all.labels, (Ids{6, 7, 8, 9, kIgnoreLabel}));
  EXPECT_FALSE(all.truncated);
  const TokenizedRow some = label_tokens(tokens, {10, LossOn::completion});
  EXPECT_EQ(some.labels, (Ids{kIgnoreLabel, 7, kIgnoreLabel, 9, kIgnoreLabel}));
  const TokenizedRow cut = label_tokens(tokens, {3, LossOn::completion});
  EXPECT_EQ(cut.ids, (Ids{5, 6, 7}));
  EXPECT_EQ(cut.labels, (Ids{kIgnoreLabel, 7, kIgnoreLabel}));
  EXPECT_TRUE(cut.truncated);
  EXPECT_EQ(cut.untruncated_length, 5);
  EXPECT_FALSE(label_tokens(tokens, {5, LossOn::all}).truncated);
  EXPECT_THROW(label_tokens(tokens, {0, LossOn::all}), Error);
}

class MathsTemplate : public ::testing::TestWithParam<const char*> {};

TEST_P(MathsTemplate, LabelsOfEveryGoldenRow) {
  const Tokenizer& tokenizer = golden_tokenizer(GetParam());
  const ChatTemplate chat(ChatTemplateKind::llama3);
  const RowEncoder on_all(tokenizer, chat, {4096, LossOn::all}), on_completion(tokenizer, chat, {4096, LossOn::completion});
  int prompts_that_are_no_prefix = 0;
  const auto rows = testing::read_jsonl(golden_dir() / "chat" / ("maths_template." + std::string(GetParam()) + ".jsonl"));
  ASSERT_EQ(rows.size(), 20u);
  for (const auto& golden : rows) {
    const DatasetRow row = conversation(golden["problem"], golden["generated_solution"]);
    const Ids ids = golden["ids"], prompt = golden["prompt_ids"];
    // The first token that differs from the prompt's holds a byte of the solution.
    const auto common = std::mismatch(prompt.begin(), prompt.end(), ids.begin(), ids.end()).first - prompt.begin();
    prompts_that_are_no_prefix += common != static_cast<std::ptrdiff_t>(prompt.size());
    Ids all(ids.begin() + 1, ids.end()), completion = all;
    all.push_back(kIgnoreLabel);
    completion.push_back(kIgnoreLabel);
    std::fill(completion.begin(), completion.begin() + common - 1, kIgnoreLabel);
    EXPECT_EQ(on_all.encode(row).ids, ids);
    EXPECT_EQ(on_all.encode(row).labels, all);
    EXPECT_EQ(on_completion.encode(row).ids, ids);
    EXPECT_EQ(on_completion.encode(row).labels, completion);
    const RowEncoder cut(tokenizer, chat, {20, LossOn::all});
    EXPECT_EQ(cut.encode(row).ids, Ids(ids.begin(), ids.begin() + 20));
    EXPECT_EQ(cut.encode(row).labels.back(), kIgnoreLabel);
  }
  EXPECT_GT(prompts_that_are_no_prefix, 0);
}

INSTANTIATE_TEST_SUITE_P(Data, MathsTemplate, ::testing::Values("llama-3.1", "qwen2.5"),
                         [](const auto& one) { return std::string(one.param) == "qwen2.5" ? "Qwen25" : "Llama31"; });

TEST(RowEncoder, PlainTextHasOneBosAndOneEos) {
  const Tokenizer& llama = golden_tokenizer("llama-3.1");
  const ChatTemplate chat(ChatTemplateKind::llama3);
  const RowEncoder encoder(llama, chat, {64, LossOn::completion});
  const std::int32_t bos = *llama.bos_id(), eos = *llama.eos_id();
  const Ids inner = llama.encode("two words");
  Ids wanted{bos};
  wanted.insert(wanted.end(), inner.begin(), inner.end());
  wanted.push_back(eos);
  EXPECT_EQ(encoder.encode(plain("", "two words")).ids, wanted);
  EXPECT_EQ(encoder.encode(plain("", llama.id_to_token(bos) + "two words" + llama.id_to_token(eos))).ids, wanted);
  Ids labels(wanted.begin() + 1, wanted.end());
  labels.push_back(kIgnoreLabel);
  EXPECT_EQ(encoder.encode(plain("", "two words")).labels, labels);
  // "two" is the prompt, so that only " words" and EOS are learnt.
  ASSERT_EQ(inner.size(), 2u);
  EXPECT_EQ(encoder.encode(plain("two", " words")).ids, wanted);
  EXPECT_EQ(encoder.encode(plain("two", " words")).labels, (Ids{kIgnoreLabel, inner[1], eos, kIgnoreLabel}));

  // Qwen's post-processor adds nothing.
  const Tokenizer& qwen = golden_tokenizer("qwen2.5");
  Ids no_bos = qwen.encode("two words");
  no_bos.push_back(*qwen.eos_id());
  EXPECT_EQ(RowEncoder(qwen, chat, {64, LossOn::all}).encode(plain("", "two words")).ids, no_bos);
}

TEST(RowEncoder, WithoutATemplateOnlyTextIsEncoded) {
  const Tokenizer& llama = golden_tokenizer("llama-3.1");
  const ChatTemplate chat(ChatTemplateKind::llama3);
  const RowEncoder with(llama, chat, {64, LossOn::all}), without(llama, nullptr, {64, LossOn::all});
  DatasetRow row = plain("", "two words");
  EXPECT_EQ(without.encode(row).ids, with.encode(row).ids);
  row.messages = {{"user", "a"}, {"assistant", "b"}};
  EXPECT_THROW(without.encode(row), Error);
}

TEST(RowEncoder, AFaultyRowIsNotEncoded) {
  const ChatTemplate chat(ChatTemplateKind::chatml);
  const RowEncoder encoder(golden_tokenizer("qwen2.5"), chat, {64, LossOn::all});
  DatasetRow row = plain("", "x");
  row.fault = RowFault::null;
  EXPECT_THROW(encoder.encode(row), Error);
}

class TokenizeDataset : public ::testing::Test {
 protected:
  Dataset open(const std::string& lines) {
    std::ofstream(dir_.path() / "x.jsonl", std::ios::binary) << lines;
    return open_dataset(dir_.path() / "x.jsonl", "train", {});
  }
  TokenizedDataset tokenize(const Dataset& data, const SplitRows& split, const SupervisionOptions& options = {}) {
    return tokenize_dataset(data, split, RowEncoder(golden_tokenizer("qwen2.5"), chat_, options));
  }
  testing::TempDir dir_;
  ChatTemplate chat_{ChatTemplateKind::chatml};
};

TEST_F(TokenizeDataset, PartsComeInTheSplitsOrderWithoutFaultyRows) {
  std::string lines;
  for (int i = 0; i < 200; ++i)
    lines += i % 10 == 3 ? "{\"text\": null}\n" : "{\"text\": \"row number " + std::to_string(i) + "\"}\n";
  const Dataset data = open(lines);
  const SplitRows split = train_test_split(200, 0.1, 42);
  std::int64_t done = 0;
  const RowEncoder encoder(golden_tokenizer("qwen2.5"), chat_, {});
  TokenizeOptions options;
  options.progress = [&](std::int64_t n, std::int64_t) { done = n; };
  const TokenizedDataset result = tokenize_dataset(data, split, encoder, options);
  EXPECT_EQ(done, 200);
  EXPECT_EQ(result.dropped(), 20);
  EXPECT_EQ(fault_summary(result.rows_by_fault), "20 rows left out: 20 without a value");
  EXPECT_EQ(result.train.rows() + result.held_out.rows(), 180);
  const auto check = [&](const TokenStore& store, std::vector<std::int64_t> wanted) {
    std::erase_if(wanted, [](std::int64_t row) { return row % 10 == 3; });
    ASSERT_EQ(store.rows(), static_cast<std::int64_t>(wanted.size()));
    for (std::int64_t r = 0; r < store.rows(); ++r) {
      EXPECT_EQ(store.source_row(r), wanted[static_cast<std::size_t>(r)]);
      const auto ids = store.ids(r);
      EXPECT_EQ(golden_tokenizer("qwen2.5").decode(Ids(ids.begin(), ids.end()), true),
                "row number " + std::to_string(wanted[static_cast<std::size_t>(r)]));
    }
  };
  check(result.train, split.train.list());
  check(result.held_out, split.test.list());
}

TEST_F(TokenizeDataset, RefusesRowsThatTeachNothing) {
  const Dataset nothing = open("{\"text\": null}\n{\"text\": \" \"}\n{\"text\": 1}\n");
  EXPECT_THROW(tokenize(nothing, {{0, 1}, {}}), Error);
  try {
    tokenize(nothing, {{0, 1}, {}});
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("no usable row to train on; 2 rows left out: 1 without a value, 1 empty"),
              std::string::npos)
        << error.what();
  }
  // One token a row: nothing is predicted.
  EXPECT_THROW(tokenize(open("{\"text\": \"some words\"}\n"), {{0}, {}}, {1, LossOn::all}), Error);
  EXPECT_THROW(tokenize(nothing, {{0, 7}, {}}), Error);
  EXPECT_THROW(tokenize(nothing, {{2, 2}, {}}), Error);
}

// An own template in a folder with Qwen's tokenizer.
ChatTemplate own_template(const std::string& source) {
  const testing::TempDir folder;
  const auto path = folder.path() / "own.jinja";
  std::ofstream(path) << source;
  return ChatTemplate::choose(path.string(), golden_tokenizer("qwen2.5"), "2024-07-26");
}

const std::string kOwn =
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

TEST_F(TokenizeDataset, MessagesKeepTheirFieldsInOrderAndTheirTools) {
  chat_ = own_template(kOwn);
  ASSERT_EQ(chat_.kind(), ChatTemplateKind::own);
  const Dataset data = open(
      R"({"messages": [{"role": "user", "content": "q"}, {"content": "", "tool_calls": [{"z": 1, "a": "ü"}], "role": "assistant"}, )"
      R"({"role": "tool", "content": "r"}, {"role": "assistant", "content": "s"}], "tools": [{"name": "f", "arguments": {"b": 1, "a": 2}}]})"
      "\n");
  const Tokenizer& qwen = golden_tokenizer("qwen2.5");
  const auto text_of = [&](LossOn loss_on, bool learnt) {
    const TokenizedDataset result = tokenize(data, {{0}, {}}, {256, loss_on});
    const auto ids = result.train.ids(0);
    const auto labels = result.train.labels(0);
    Ids kept;
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (!learnt || (i > 0 && labels[i - 1] != kIgnoreLabel)) kept.push_back(ids[i]);
    return qwen.decode(kept);
  };
  EXPECT_EQ(text_of(LossOn::all, false),
            R"([{"name": "f", "arguments": {"b": 1, "a": 2}}]user: q<|im_end|>)" "\n" R"(assistant: [{"z": 1, "a": "ü"}]<|im_end|>)" "\n"
            "tool: r<|im_end|>\nassistant: s<|im_end|>\n");
  // The blank before a turn is one token with its first letter.
  EXPECT_EQ(text_of(LossOn::completion, true), R"( [{"z": 1, "a": "ü"}]<|im_end|> s<|im_end|>)");
}

TEST_F(TokenizeDataset, WhatABuiltInTemplateCannotWriteIsLeftOut) {
  const Dataset data = open(
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "id": 7}]})" "\n"
      R"({"messages": [{"role": "tool", "content": "q"}, {"role": "assistant", "content": "a"}]})" "\n"
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a"}]})" "\n"
      R"({"messages": [{"content": "q"}]})" "\n");
  const TokenizedDataset result = tokenize(data, {{0, 1, 2, 3}, {}});
  EXPECT_EQ(result.train.rows(), 1);
  EXPECT_EQ(result.rows_by_fault[static_cast<std::size_t>(RowFault::bad_messages)], 3);
}

TEST_F(TokenizeDataset, LossOnTellsWhichAnswersAreLearnt) {
  const Dataset data = open(
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]})"
      "\n");
  EXPECT_EQ(tokenize(data, {{0}, {}}, {256, LossOn::completion}).train.total_supervised(), 2);
  EXPECT_EQ(tokenize(data, {{0}, {}}, {256, LossOn::assistant}).train.total_supervised(), 4);
}

TEST_F(TokenizeDataset, ATemplatesRefusalNamesTheRow) {
  chat_ = own_template("{{ raise_exception('roles must alternate') }}");
  const Dataset data = open(R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})" "\n");
  try {
    tokenize(data, {{0}, {}}, {256, LossOn::completion});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("row 0: chat template "), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("line 1: the template refuses: roles must alternate"), std::string::npos) << error.what();
  }
}

TEST(RowEncoder, TheDescriptionTellsTemplateAndDate) {
  const Tokenizer& qwen = golden_tokenizer("qwen2.5");
  const ChatTemplate one = own_template(kOwn), other = own_template(kOwn + " "), dated = own_template("{{ strftime_now('%d') }}");
  const auto description = [&](const ChatTemplate& chat, LossOn loss_on) { return RowEncoder(qwen, chat, {64, loss_on}).description(); };
  EXPECT_NE(description(one, LossOn::all), description(other, LossOn::all));
  EXPECT_NE(description(one, LossOn::completion), description(one, LossOn::assistant));
  EXPECT_NE(description(dated, LossOn::all).find("2024-07-26"), std::string::npos);
}

}  // namespace
}  // namespace llmfp8
