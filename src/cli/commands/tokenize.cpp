// llm-fp8 tokenize: {"text": …} lines to {"ids": […]} lines, or back.
#include <cstdint>
#include <iostream>
#include <limits>
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
  std::string tokenizer, weights_cache_dir;
  bool add_special_tokens = false, decode = false, skip_special_tokens = false;
};

std::vector<std::int32_t> ids_of(const nlohmann::json& json, std::int64_t line) {
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

nlohmann::json convert(const nlohmann::json& row, const Tokenizer& tokenizer, const TokenizeFlags& flags,
                       std::int64_t line) {
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
  flags.text("weights_cache_dir", "DIR", &given.weights_cache_dir,
             "folder of downloaded models; without it, the hub's default");
  if (!flags.parse(args)) return 0;
  if (given.decode && given.add_special_tokens)
    fail_usage("tokenize: --add_special_tokens has no meaning with --decode");
  if (!given.decode && given.skip_special_tokens) fail_usage("tokenize: --skip_special_tokens is for --decode");
  Console console;
  const Tokenizer tokenizer =
      open_tokenizer_at(fetch_model(given.tokenizer, given.weights_cache_dir, console, ModelParts::without_weights));

  std::ios::sync_with_stdio(false);
  std::string line;
  for (std::int64_t number = 1; std::getline(std::cin, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const nlohmann::json row = nlohmann::json::parse(line, nullptr, false);
    CHECK(!row.is_discarded(), "standard input, line {}: not JSON", number);
    try {
      std::cout << convert(row, tokenizer, given, number).dump() << '\n';
    } catch (const Error& error) {
      std::cout.flush();
      const std::string text = error.what();
      throw Error(text.find("line ") == std::string::npos ? fmt::format("standard input, line {}: {}", number, text)
                                                          : text);
    }
  }
  std::cout.flush();
  CHECK(std::cout.good(), "standard output cannot be written");
  return 0;
}

}  // namespace llmfp8
