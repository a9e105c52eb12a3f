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
      EXPECT_EQ(tokenizer.encode(chat.render_text(messages, false)), row["ids"].get<Ids>());
      EXPECT_EQ(tokenizer.encode(chat.render_text(messages, true)), row["ids_generation"].get<Ids>());
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
    EXPECT_EQ(tokenizer.encode(chat.render_text(prompt, true)), row["prompt_ids"].get<Ids>());
    const SupervisedIds whole = tokenizer.encode_segments(chat.render(messages, Learnt::assistant));
    EXPECT_EQ(whole.ids, row["ids"].get<Ids>());
    EXPECT_EQ(supervised_text(chat.render(messages, Learnt::assistant)),
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
  EXPECT_EQ(supervised_text(chat.render(messages, Learnt::assistant)), "[It is \\boxed{2}.<|eot_id|>]");
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
  EXPECT_EQ(supervised_text(chat.render(messages, Learnt::assistant)), "[Two<|im_end|>][Four<|im_end|>]");
  EXPECT_EQ(chat.end_of_turn(), "<|im_end|>");
  const Tokenizer& qwen = golden_tokenizer("qwen2.5");
  const SupervisedIds encoded = qwen.encode_segments(chat.render(messages, Learnt::assistant));
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
        llama.encode_segments(ChatTemplate::choose(name, llama).render(maths("p", "s"), Learnt::assistant));
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

TEST(ChatTemplate, CompletionLearnsWhatAnswersTheLastUserMessage) {
  const ChatTemplate chat(ChatTemplateKind::chatml);
  const std::vector<ChatMessage> messages = {{"user", "One"}, {"assistant", "Two"}, {"user", "Three"}, {"assistant", "Four"}};
  EXPECT_EQ(supervised_text(chat.render(messages, Learnt::completion)), "[Four<|im_end|>]");
  std::vector<ChatMessage> open = messages;
  open.push_back({"user", "Five"});
  EXPECT_EQ(supervised_text(chat.render(open, Learnt::completion)), "[Four<|im_end|>]");
  EXPECT_EQ(supervised_text(chat.render({{"assistant", "Two"}}, Learnt::completion)), "[Two<|im_end|>]");
  EXPECT_EQ(supervised_text(chat.render(messages, Learnt::nothing)), "");
}

TEST(ChatTemplate, AutoTakesTheModelsOwnElseTheFamily) {
  EXPECT_EQ(ChatTemplate::choose("auto", with_template("", {"<|im_start|>", "<|im_end|>"})).kind(),
            ChatTemplateKind::chatml);
  const std::vector<std::string> llama_tokens = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"};
  const Tokenizer dated = with_template("{{ strftime_now('%d') }}<|start_header_id|>", llama_tokens);
  EXPECT_EQ(ChatTemplate::choose("auto", dated).kind(), ChatTemplateKind::own);
  EXPECT_EQ(ChatTemplate::choose("auto", dated, "2024-07-09").render_text({}, false), "09<|start_header_id|>");
  // One that cannot be read is replaced by its family's.
  EXPECT_EQ(ChatTemplate::choose("auto", with_template("{% if %}", llama_tokens)).kind(), ChatTemplateKind::llama3);
  EXPECT_EQ(ChatTemplate::choose("auto", with_template(kSmolTemplate, {"<|im_start|>", "<|im_end|>"})).kind(), ChatTemplateKind::chatml);
  // Almost chatml.
  std::string other = kSmolTemplate;
  other.insert(0, "{# #}x");
  EXPECT_EQ(ChatTemplate::choose("auto", with_template(other, {"<|im_start|>", "<|im_end|>"})).kind(), ChatTemplateKind::own);
}

const std::vector<std::string> kTurn = {"<turn>", "<end>"};
const std::string kTurns =
    "{% for m in messages %}<turn>{{ m.role }}:{{ m.content | trim }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<end>\n"
    "{% endfor %}{% if add_generation_prompt %}<turn>assistant:{% endif %}";

TEST(OwnTemplate, TurnsAreFoundAndEndInTheirToken) {
  const ChatTemplate chat = ChatTemplate::choose("model", with_template(kTurns, kTurn));
  EXPECT_EQ(chat.name(), "model");
  EXPECT_EQ(chat.end_of_turn(), "<end>");
  const std::vector<ChatMessage> messages = {{"user", "a"}, {"assistant", " b "}, {"user", "c"},
                                             {"assistant", "", R"({"role": "assistant", "content": null, "tool_calls": [{"z": 1, "a": 2}]})"},
                                             {"tool", "t"}, {"assistant", "d"}};
  const auto all = chat.render(messages, Learnt::assistant);
  EXPECT_EQ(supervised_text(all), R"([b<end>][[{"z": 1, "a": 2}]<end>][d<end>])");
  std::string text;
  for (const TextSegment& segment : all) text += segment.text;
  EXPECT_EQ(text, chat.render_text(messages, false));
  EXPECT_EQ(supervised_text(chat.render(messages, Learnt::completion)), R"([[{"z": 1, "a": 2}]<end>][d<end>])");
  EXPECT_EQ(supervised_text(chat.render(messages, Learnt::nothing)), "");
}

TEST(OwnTemplate, GenerationBlocksTellWhatIsLearnt) {
  const std::string source =
      "{% for m in messages %}<turn>{{ m.role }}:{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
      "{% else %}{{ m.content }}{% endif %}<end>{% endfor %}";
  const ChatTemplate chat = ChatTemplate::choose("model", with_template(source, kTurn));
  const std::vector<ChatMessage> messages = {{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}};
  EXPECT_EQ(supervised_text(chat.render(messages, Learnt::assistant)), "[b<end>][d<end>]");
  EXPECT_EQ(supervised_text(chat.render(messages, Learnt::completion)), "[d<end>]");
}

std::string refusal(const std::string& source, const std::vector<ChatMessage>& messages) {
  try {
    ChatTemplate::choose("model", with_template(source, kTurn)).render(messages, Learnt::assistant);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(OwnTemplate, WhatCannotBeToldIsRefused) {
  const std::vector<ChatMessage> messages = {{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}};
  const std::string only_last = "{% for m in messages %}<turn>{{ m.role }}:{% if loop.last %}!{% endif %}{{ m.content }}<end>{% endfor %}"
                                "{% if add_generation_prompt %}<turn>assistant:{% endif %}";
  EXPECT_NE(refusal(only_last, messages).find("otherwise"), std::string::npos);
  const std::string no_prompt = "{% for m in messages %}<turn>{{ m.role }}:{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}?{% endif %}";
  EXPECT_NE(refusal(no_prompt, messages).find("generation prompt"), std::string::npos);
  const std::string endless = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
  EXPECT_NE(refusal(endless, messages).find("no special token"), std::string::npos);
  EXPECT_NE(refusal("{{ raise_exception('not so') }}", messages).find("line 1: the template refuses: not so"), std::string::npos);
}

// As Llama 3.2's: a run resumed on another day must meet the same tokens, and its cache too.
TEST(OwnTemplate, AConstantOfItsOwnComesBeforeToday) {
  const std::string source =
      "{% if date_string is not defined %}{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
      "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}{{ date_string }}";
  const auto chosen = [&](const std::string& date) { return ChatTemplate::choose("model", with_template(source, {}), date); };
  EXPECT_EQ(chosen("").render_text({{"user", "hi"}}, false), "26 Jul 2024");
  EXPECT_EQ(chosen("").date(), "");
  EXPECT_EQ(chosen("").description().find("date"), std::string::npos);
  EXPECT_EQ(chosen("2025-01-09").render_text({{"user", "hi"}}, false), "09 Jan 2025");
  EXPECT_EQ(chosen("2025-01-09").date(), "2025-01-09");
  // One that takes no system turn has a constant all the same.
  const std::string no_system = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + source;
  EXPECT_EQ(ChatTemplate::choose("model", with_template(no_system, {}), "").render_text({{"user", "hi"}}, false), "26 Jul 2024");
  // Without a constant there is only today.
  const ChatTemplate dated = ChatTemplate::choose("model", with_template("{{ strftime_now('%Y') }}", {}), "");
  EXPECT_EQ(dated.render_text({{"user", "hi"}}, false).substr(0, 2), "20");
  EXPECT_NE(dated.date(), "");
}

TEST(OwnTemplate, DescriptionTellsSourceAndDate) {
  const auto description = [](const std::string& source, const std::string& date) {
    return ChatTemplate::choose("model", with_template(source, {}), date).description();
  };
  EXPECT_NE(description("a", ""), description("b", ""));
  EXPECT_EQ(description("a", ""), description("a", "2024-07-26"));
  EXPECT_NE(description("{{ strftime_now('%d') }}", "2024-07-25"), description("{{ strftime_now('%d') }}", "2024-07-26"));
  EXPECT_NE(description("{{ date_string }}", ""), description("{{ date_string }}", "26 Jul 2024"));
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

TEST(ChatTemplate, WhatCannotBeUsedIsRefused) {
  const Tokenizer none = with_template("", {}), broken = with_template("x\n{% for %}", {});
  EXPECT_NE(usage_error("auto", none).find("neither"), std::string::npos);
  EXPECT_NE(usage_error("model", none).find("no chat template"), std::string::npos);
  EXPECT_NE(usage_error("model", broken).find("line 2"), std::string::npos);
  EXPECT_NE(usage_error("auto", broken).find("line 2"), std::string::npos);
  EXPECT_NE(usage_error("lama3", none).find("wanted: auto"), std::string::npos);
  for (const char* date : {"soon", "2024-02-30", "2024-13-01", "26 Jul", "2024-07-26x"})
    EXPECT_THROW(ChatTemplate::choose("llama3", none, date), Error) << date;
  const testing::TempDir folder;
  const auto path = folder.path() / "t.jinja";
  std::ofstream(path) << kSmolTemplate;
  EXPECT_EQ(ChatTemplate::choose(path.string(), none).kind(), ChatTemplateKind::chatml);
  EXPECT_THROW(ChatTemplate(ChatTemplateKind::llama3).render({{"tool", "x"}}, Learnt::assistant), Error);
  EXPECT_FALSE(ChatTemplate(ChatTemplateKind::llama3).takes({{"tool", "x"}}));
}

}  // namespace
}  // namespace llmfp8
