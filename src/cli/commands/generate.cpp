// llm-fp8 generate: text from a model, for one prompt or a file of them.
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/commands/commands.h"
#include "cli/commands/model_session.h"
#include "core/error.h"
#include "core/log.h"
#include "data/jsonl.h"
#include "report/console.h"
#include "train/answer_eval.h"
#include "train/generation_progress.h"

namespace llmfp8 {
namespace {

struct GenerateFlags {
  ModelChoice model;
  std::string prompt, prompts, system;
  bool chat = true, chat_decided = false;  // not decided: as the model has a template or not
  bool json = false, quiet = false;
  std::int64_t max_new_tokens = 256, seed = 0;
  double temperature = 0.0, top_p = 1.0;
};

// What is to be continued: a conversation, or plain text.
struct Prompt {
  std::vector<ChatMessage> messages;
  std::string text;  // of the user's last turn, or the whole of it
};

std::vector<ChatMessage> messages_of(const std::string& text, const std::string& where) {
  const nlohmann::json list = nlohmann::json::parse(text, nullptr, false);
  std::vector<ChatMessage> messages;
  CHECK(list.is_array() && !list.empty(), "{}: \"messages\" is no list of {{role, content}}", where);
  for (const auto& message : list) {
    const bool ok = message.is_object() && message.contains("role") && message["role"].is_string() &&
                    message.contains("content") && message["content"].is_string();
    CHECK(ok, "{}: \"messages\" holds {}, {{role, content}} wanted", where, message.dump().substr(0, 80));
    messages.push_back({message["role"], message["content"]});
  }
  return messages;
}

Prompt prompt_of(const std::string& text, const std::string& system) {
  Prompt prompt;
  prompt.text = text;
  if (!system.empty()) prompt.messages.push_back({"system", system});
  prompt.messages.push_back({"user", text});
  return prompt;
}

std::vector<Prompt> read_prompts(const std::string& path, const GenerateFlags& flags) {
  const JsonlFile file(path);
  std::vector<Prompt> prompts;
  for (std::int64_t i = 0; i < file.rows(); ++i) {
    const RowColumns row = file.row(i);
    const std::string where = fmt::format("--prompts {}, row {}", path, i + 1);
    if (const auto messages = row.find("messages"); messages != row.end()) {
      if (!flags.chat) fail_usage("{}: \"messages\" needs --chat", where);
      Prompt prompt;
      prompt.messages = messages_of(messages->second, where);
      prompt.text = prompt.messages.back().content;
      prompts.push_back(std::move(prompt));
    } else if (const auto problem = row.find("problem"); problem != row.end()) {
      prompts.push_back(prompt_of(problem->second, flags.system.empty() ? kMathSystemText : flags.system));
    } else {
      const auto text = row.find("prompt");
      CHECK(text != row.end(), "{}: a column prompt, problem or messages is wanted", where);
      prompts.push_back(prompt_of(text->second, flags.system));
    }
  }
  CHECK(!prompts.empty(), "--prompts {}: no rows", path);
  return prompts;
}

std::string_view name_of(StopReason reason) {
  switch (reason) {
    case StopReason::stop_id: return "stop";
    case StopReason::max_new_tokens: return "max_new_tokens";
    case StopReason::max_len: return "model_length";
  }
  return "";
}

bool parse(CommandArgs args, GenerateFlags& given) {
  FlagSet flags("generate", "text from a model, greedy or sampled",
                "--model NAME (--prompt TEXT | --prompts FILE.jsonl) [flags]");
  declare_model_flags(flags, given.model);
  flags.text("prompt", "TEXT", &given.prompt, "one prompt; its text is printed as it is");
  flags.text("prompts", "FILE", &given.prompts,
             "JSON Lines with a column prompt, problem (asked as in training) or messages; writes JSON Lines");
  flags.text("system", "TEXT", &given.system, "system text of a chat");
  flags.on_off("chat", &given.chat,
               "put the prompt into the chat template; --no-chat continues the text itself. Without either: as the "
               "model has a template or not");
  flags.whole("max_new_tokens", {1, 1 << 20}, &given.max_new_tokens, "stop after N tokens at the latest");
  flags.real("temperature", {0.0, 100.0}, &given.temperature, "0: always the likeliest token");
  flags.real("top_p", {1e-6, 1.0}, &given.top_p, "draw from the likeliest tokens that together have this probability");
  flags.whole("seed", {}, &given.seed, "of the draws");
  flags.on_off("json", &given.json, "JSON Lines for --prompt too");
  flags.on_off("quiet", &given.quiet, "no progress, no speed");
  if (!flags.parse(args)) return false;
  if (flags.is_set("prompt") == flags.is_set("prompts"))
    fail_usage("generate: one of --prompt and --prompts is wanted");
  if (flags.is_set("top_p") && given.temperature == 0.0) log::warning("--top_p has no effect with --temperature 0");
  given.chat_decided = flags.is_set("chat") || flags.is_set("chat_template") || flags.is_set("system");
  given.json = given.json || flags.is_set("prompts");
  return true;
}

std::vector<std::int32_t> tokens_of(const Prompt& prompt, bool chat, const ModelSession& session) {
  if (chat) return prompt_tokens(prompt.messages, session.chat_template(), session.tokenizer());
  return session.tokenizer().encode(prompt.text, true);
}

std::string json_line(const Prompt& prompt, const Generation& generation, const std::string& text) {
  const nlohmann::ordered_json line = {{"prompt", prompt.text},
                                       {"text", text},
                                       {"tokens", generation.ids.size()},
                                       {"stop_reason", name_of(generation.reason)}};
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

int run_generate(CommandArgs args) {
  GenerateFlags given;
  if (!parse(args, given)) return 0;
  ModelSession session(given.model);
  if (!given.chat_decided) given.chat = session.is_chat_model();
  const std::vector<Prompt> prompts = given.prompts.empty() ? std::vector<Prompt>{prompt_of(given.prompt, given.system)}
                                                            : read_prompts(given.prompts, given);
  std::vector<std::vector<std::int32_t>> tokens;
  for (const Prompt& prompt : prompts) tokens.push_back(tokens_of(prompt, given.chat, session));

  ConsoleOptions console_options;
  console_options.is_quiet = given.quiet || prompts.size() == 1;
  Console console(console_options);
  GenerateOptions options;
  options.max_new_tokens = given.max_new_tokens;
  options.sampling = {given.temperature, given.top_p, static_cast<std::uint64_t>(given.seed)};
  options.stop_ids = given.chat ? stop_ids(session.config(), &session.chat_template(), session.tokenizer())
                                : stop_ids(session.config(), nullptr, session.tokenizer());
  options.progress = [&](const GenerateProgress& progress) { console.update(shown(progress, prompts.size(), "prompt")); };
  const std::vector<Generation> generations = session.generate(tokens, options);
  console.finish();
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const std::string text = session.tokenizer().decode(generations[i].ids, true);
    fmt::print("{}\n", given.json ? json_line(prompts[i], generations[i], text) : text);
  }
  CHECK(std::fflush(stdout) == 0, "standard output cannot be written");
  if (!given.quiet) log::info("{}", speed_text(session.times()));
  return 0;
}

}  // namespace llmfp8
