// llm-fp8 tokenize: {"text": …} or {"messages": …} lines to {"ids": […]} lines, or back.
#include <cstdint>
#include <iostream>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/commands/commands.h"
#include "cli/commands/flags.h"
#include "cli/commands/model_session.h"
#include "core/error.h"
#include "train/downloads.h"

namespace llmfp8 {
namespace {

struct TokenizeFlags {
  std::string tokenizer, weights_cache_dir, chat_template = "auto", template_date;
  bool add_special_tokens = false, decode = false, skip_special_tokens = false, chat = false,
       add_generation_prompt = false;
};

std::vector<std::int32_t> ids_of(const nlohmann::ordered_json& json, std::int64_t line) {
  std::vector<std::int32_t> ids;
  CHECK(json.is_array(), "standard input, line {}: \"ids\" is no list", line);
  for (const auto& id : json) {
    const bool fits =
        id.is_number_integer() && id.get<double>() >= 0 && id.get<double>() <= std::numeric_limits<std::int32_t>::max();
    CHECK(fits, "standard input, line {}: id {} is no token id", line, id.dump());
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

nlohmann::ordered_json convert(const nlohmann::ordered_json& row, const Tokenizer& tokenizer,
                               const TokenizeFlags& flags, std::int64_t line) {
  const char* key = flags.decode ? "ids" : "text";
  CHECK(row.is_object() && row.contains(key), "standard input, line {}: an object with \"{}\" wanted", line, key);
  if (flags.decode) {
    const std::vector<std::int32_t> ids = ids_of(row["ids"], line);
    for (std::int32_t id : ids) {
      CHECK(id < tokenizer.vocab_size(), "standard input, line {}: id {}, the vocabulary ends at {}", line, id,
            tokenizer.vocab_size() - 1);
    }
    return {{"text", tokenizer.decode(ids, flags.skip_special_tokens)}};
  }
  CHECK(row["text"].is_string(), "standard input, line {}: \"text\" is no string", line);
  return {{"ids", tokenizer.encode(row["text"].get_ref<const std::string&>(), flags.add_special_tokens)}};
}

// {"messages": […], "tools": […], more}: the text that the template makes of it, and its ids.
nlohmann::ordered_json convert_chat(const nlohmann::ordered_json& row, const Tokenizer& tokenizer,
                                    const ChatTemplate& chat_template, const TokenizeFlags& flags) {
  CHECK(row.is_object() && row.contains("messages") && row["messages"].is_array(),
        "an object with a list \"messages\" wanted");
  std::vector<ChatMessage> messages;
  for (const auto& item : row["messages"]) {
    std::optional<ChatMessage> message = message_of(item);
    CHECK(message, "message {} is no object with a \"role\"", messages.size());
    messages.push_back(std::move(*message));
  }
  ChatExtras extras;
  nlohmann::ordered_json variables = nlohmann::ordered_json::object();
  bool add_generation_prompt = flags.add_generation_prompt;
  for (const auto& [key, value] : row.items()) {
    if (key == "messages") continue;
    if (key == "add_generation_prompt" && value.is_boolean())
      add_generation_prompt = value.get<bool>();
    else if (key != "tools")
      variables[key] = value;
    else if (!value.is_null())
      extras.tools = value.dump();
  }
  if (!variables.empty()) extras.variables = variables.dump();
  CHECK(chat_template.takes(messages, extras),
        "the template {} takes the roles system, user and assistant and texts alone", chat_template.name());
  const std::string text = chat_template.render_text(messages, add_generation_prompt, extras);
  return {{"text", text}, {"ids", tokenizer.encode(text, false)}};
}

void check(const TokenizeFlags& given, const FlagSet& flags) {
  if (given.decode && given.add_special_tokens)
    fail_usage("tokenize: --add_special_tokens has no meaning with --decode");
  if (!given.decode && given.skip_special_tokens) fail_usage("tokenize: --skip_special_tokens is for --decode");
  if (given.chat && given.decode) fail_usage("tokenize: --chat and --decode exclude each other");
  if (given.chat && given.add_special_tokens)
    fail_usage("tokenize: --add_special_tokens has no meaning with --chat: the template writes them");
  for (const char* name : {"add_generation_prompt", "chat_template", "template_date"})
    if (!given.chat && flags.is_set(name)) fail_usage("tokenize: --{} is for --chat", name);
}

}  // namespace

int run_tokenize(CommandArgs args) {
  TokenizeFlags given;
  FlagSet flags("tokenize", "text to token ids and back, JSON Lines on standard input and output",
                "--tokenizer DIR [flags] < in.jsonl > out.jsonl");
  flags.text("tokenizer", "NAME", &given.tokenizer,
             "a folder with tokenizer.json, a .gguf file or a hub name", Presence::required);
  flags.on_off("add_special_tokens", &given.add_special_tokens,
               "those that the tokenizer puts around every text (Llama 3: one BOS)");
  flags.on_off("decode", &given.decode, "read {\"ids\": […]}, write {\"text\": …}");
  flags.on_off("skip_special_tokens", &given.skip_special_tokens, "leave them out when decoding");
  flags.on_off("chat", &given.chat,
               "read {\"messages\": […]} (with \"tools\" and what more the template takes), write its text and ids");
  flags.on_off("add_generation_prompt", &given.add_generation_prompt, "the text ends with the assistant's header");
  flags.text("chat_template", "NAME", &given.chat_template,
             "auto|model|llama3|chatml|legacy or a file; auto: the model's own");
  flags.text("template_date", "TEXT", &given.template_date,
             "date (2024-07-26) for a template that writes one; without it, its own constant, else today");
  flags.text("weights_cache_dir", "DIR", &given.weights_cache_dir,
             "folder of downloaded models; without it, the hub's default");
  if (!flags.parse(args)) return 0;
  check(given, flags);
  Console console;
  const Tokenizer tokenizer =
      open_tokenizer_at(fetch_model(given.tokenizer, given.weights_cache_dir, console, ModelParts::without_weights));
  std::optional<ChatTemplate> chat_template;
  if (given.chat) chat_template = ChatTemplate::choose(given.chat_template, tokenizer, given.template_date);

  std::ios::sync_with_stdio(false);
  std::string line;
  for (std::int64_t number = 1; std::getline(std::cin, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const nlohmann::ordered_json row = nlohmann::ordered_json::parse(line, nullptr, false);
    CHECK(!row.is_discarded(), "standard input, line {}: not JSON", number);
    try {
      std::cout << (chat_template ? convert_chat(row, tokenizer, *chat_template, given)
                                  : convert(row, tokenizer, given, number))
                       .dump()
                << '\n';
    } catch (const Error& error) {
      std::cout.flush();
      const std::string text = error.what();
      throw Error(!text.starts_with("standard input") ? fmt::format("standard input, line {}: {}", number, text)
                                                      : text);
    }
  }
  std::cout.flush();
  CHECK(std::cout.good(), "standard output cannot be written");
  return 0;
}

}  // namespace llmfp8
