// Chat templates against transformers' apply_chat_template, the legacy text, and what is supervised.
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "text/chat_template.h"
#include "text/test_tokenizers.h"

namespace llmfp8 {
namespace {

using testing::golden_dir;
using testing::golden_tokenizer;
using testing::read_jsonl;
using Ids = std::vector<std::int32_t>;

std::vector<ChatMessage> messages_of(const nlohmann::json& list) {
  std::vector<ChatMessage> messages;
  for (const auto& one : list) messages.push_back({one["role"], one["content"]});
  return messages;
}

std::vector<ChatMessage> maths(const std::string& problem, const std::string& solution) {
  return {{"system", kMathSystemText}, {"user", problem}, {"assistant", solution}};
}

std::string supervised_text(const std::vector<TextSegment>& segments) {
  std::string text;
  for (const TextSegment& segment : segments) {
    if (segment.supervised) text += "[" + segment.text + "]";
  }
  return text;
}

class ChatGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(ChatGolden, ModelsOwnTemplate) {
  const Tokenizer& tokenizer = golden_tokenizer(GetParam());
  const auto rows = read_jsonl(golden_dir() / "chat" / (std::string(GetParam()) + ".jsonl"));
  ASSERT_EQ(rows.size(), 12u);
  for (const char* name : {"auto", "model"}) {
    const ChatTemplate chat = ChatTemplate::choose(name, tokenizer);
    for (const auto& row : rows) {
      const auto messages = messages_of(row["messages"]);
      EXPECT_EQ(chat.render_text(messages, false), row["text"].get<std::string>());
      EXPECT_EQ(chat.render_text(messages, true), row["text_generation"].get<std::string>());
      EXPECT_EQ(tokenizer.encode(chat.render_text(messages, false)), row["ids"].get<Ids>());
      EXPECT_EQ(tokenizer.encode_segments(chat.render(messages, false)).ids, row["ids"].get<Ids>());
      EXPECT_EQ(tokenizer.encode_segments(chat.render(messages, true)).ids, row["ids_generation"].get<Ids>());
    }
  }
}

TEST_P(ChatGolden, MathsTemplate) {
  const Tokenizer& tokenizer = golden_tokenizer(GetParam());
  const ChatTemplate chat = ChatTemplate::choose("llama3", tokenizer);
  const auto rows = read_jsonl(golden_dir() / "chat" / ("maths_template." + std::string(GetParam()) + ".jsonl"));
  ASSERT_EQ(rows.size(), 20u);
  for (const auto& row : rows) {
    const auto messages = maths(row["problem"], row["generated_solution"]);
    const std::vector<ChatMessage> prompt(messages.begin(), messages.end() - 1);
    EXPECT_EQ(chat.render_text(messages, false), row["text"].get<std::string>());
    EXPECT_EQ(chat.render_text(prompt, true), row["prompt_text"].get<std::string>());
    EXPECT_EQ(tokenizer.encode_segments(chat.render(prompt, true)).ids, row["prompt_ids"].get<Ids>());
    const SupervisedIds whole = tokenizer.encode_segments(chat.render(messages, false));
    EXPECT_EQ(whole.ids, row["ids"].get<Ids>());
    EXPECT_EQ(supervised_text(chat.render(messages, false)),
              "[" + row["generated_solution"].get<std::string>() + "<|eot_id|>]");
    // A token is learnt if it holds a byte of the solution: as many leading ones are not as the prompt has in common.
    const auto prompt_ids = row["prompt_ids"].get<Ids>();
    const auto differ = std::mismatch(prompt_ids.begin(), prompt_ids.end(), whole.ids.begin(), whole.ids.end());
    const auto common = static_cast<std::size_t>(differ.first - prompt_ids.begin());
    for (std::size_t i = 0; i < whole.ids.size(); ++i) EXPECT_EQ(whole.supervised[i], i >= common ? 1 : 0) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Text, ChatGolden, ::testing::Values("llama-3.1", "qwen2.5"),
                         [](const auto& one) { return std::string(one.param) == "qwen2.5" ? "Qwen25" : "Llama31"; });

TEST(ChatTemplate, LegacyText) {
  const ChatTemplate chat(ChatTemplateKind::legacy);
  const auto messages = maths("1+1?", "It is \\boxed{2}.");
  const std::string prompt = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n" + kMathSystemText +
                             "\n<|eot_id|>\n<|start_header_id|>user<|end_header_id|>\n1+1?\n<|eot_id|>\n<|start_header_"
                             "id|>assistant<|end_header_id|>\n";
  EXPECT_EQ(chat.render_text(messages, false), prompt + "It is \\boxed{2}.<|eot_id|>");
  EXPECT_EQ(chat.render_text({messages[0], messages[1]}, true), prompt);
  EXPECT_EQ(supervised_text(chat.render(messages, false)), "[It is \\boxed{2}.<|eot_id|>]");
  EXPECT_EQ(ChatTemplate::choose("legacy", golden_tokenizer("qwen2.5")).render_text(messages, false),
            ChatTemplate::choose("legacy", golden_tokenizer("llama-3.1")).render_text(messages, false));
}

TEST(ChatTemplate, MathSystemText) {
  EXPECT_EQ(kMathSystemText,
            "You are a helpful assistant that solves math problems step by step. Please reason step by step, and put "
            "your final "
            "answer within \x5C"
            "boxed{}.");
}

TEST(ChatTemplate, ChatmlLearnsUpToTheEndOfTurn) {
  const ChatTemplate chat(ChatTemplateKind::chatml);
  const std::vector<ChatMessage> messages = {
      {"user", "One"}, {"assistant", "Two"}, {"user", "Three"}, {"assistant", "Four"}};
  EXPECT_EQ(supervised_text(chat.render(messages, false)), "[Two<|im_end|>][Four<|im_end|>]");
  EXPECT_EQ(chat.end_of_turn(), "<|im_end|>");
  const Tokenizer& qwen = golden_tokenizer("qwen2.5");
  const SupervisedIds encoded = qwen.encode_segments(chat.render(messages, false));
  std::string learnt;
  for (std::size_t i = 0; i < encoded.ids.size(); ++i) {
    if (encoded.supervised[i] != 0) learnt += qwen.decode(std::span(&encoded.ids[i], 1));
  }
  EXPECT_EQ(learnt, "Two<|im_end|>Four<|im_end|>");
}

TEST(ChatTemplate, OneBeginOfText) {
  const Tokenizer& llama = golden_tokenizer("llama-3.1");
  for (const char* name : {"auto", "llama3", "legacy"}) {
    const SupervisedIds encoded =
        llama.encode_segments(ChatTemplate::choose(name, llama).render(maths("p", "s"), false));
    EXPECT_EQ(std::count(encoded.ids.begin(), encoded.ids.end(), *llama.bos_id()), 1) << name;
  }
}

Tokenizer with_template(const std::string& chat_template, const std::vector<std::string>& special) {
  nlohmann::json document = testing::small_tokenizer();
  for (const std::string& token : special) {
    document["added_tokens"].push_back(
        {{"id", 1000 + document["added_tokens"].size()}, {"content", token}, {"special", true}});
  }
  const nlohmann::json config = {{"chat_template", chat_template}};
  return Tokenizer::from_json(document.dump(), chat_template.empty() ? "" : config.dump(), "small.json");
}

const std::string kSmolTemplate =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou "
    "are a helpful "
    "AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] "
    "+ '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\\n' }}{% endif %}";

TEST(ChatTemplate, DefaultSystemTextComesFromTheModelsTemplate) {
  const Tokenizer smol = with_template(kSmolTemplate, {"<|im_start|>", "<|im_end|>"});
  EXPECT_EQ(ChatTemplate::choose("auto", smol).render_text({{"user", "Hi"}}, true),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
            "Face<|im_end|>\n<|im_start|>user\nHi"
            "<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(ChatTemplate::choose("chatml", smol).render_text({{"user", "Hi"}}, false),
            "<|im_start|>user\nHi<|im_end|>\n");
}

TEST(ChatTemplate, AutoFallsBackToTheFamily) {
  EXPECT_EQ(ChatTemplate::choose("auto", with_template("", {"<|im_start|>", "<|im_end|>"})).kind(),
            ChatTemplateKind::chatml);
  const Tokenizer llama = with_template("{{ strftime_now('%d') }}<|start_header_id|>",
                                        {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"});
  EXPECT_EQ(ChatTemplate::choose("auto", llama).kind(), ChatTemplateKind::llama3);
}

std::string usage_error(const std::string& name, const Tokenizer& tokenizer) {
  try {
    ChatTemplate::choose(name, tokenizer);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    return error.what();
  }
  return "no error";
}

TEST(ChatTemplate, WhatIsNotBuiltIsRefused) {
  const Tokenizer none = with_template("", {}), strange = with_template("{{ '[INST]' }}", {}),
                  dated = with_template("{{ date_string }}<|start_header_id|>", {});
  EXPECT_NE(usage_error("auto", none).find("neither"), std::string::npos);
  EXPECT_NE(usage_error("model", none).find("no chat template"), std::string::npos);
  EXPECT_NE(usage_error("model", strange).find("not built yet"), std::string::npos);
  EXPECT_NE(usage_error("model", dated).find("not built yet"), std::string::npos);
  EXPECT_NE(usage_error("lama3", none).find("wanted: auto"), std::string::npos);
  const testing::TempDir folder;
  const auto path = folder.path() / "t.jinja";
  std::ofstream(path) << kSmolTemplate;
  EXPECT_EQ(ChatTemplate::choose(path.string(), none).kind(), ChatTemplateKind::chatml);
  EXPECT_THROW(ChatTemplate(ChatTemplateKind::llama3).render({{"tool", "x"}}, false), Error);
}

}  // namespace
}  // namespace llmfp8
