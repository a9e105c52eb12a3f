// From tokenizer.json and tokenizer_config.json to the parts of a tokenizer. Called by Tokenizer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"

namespace llmfp8 {

struct TokenizerParts {
  explicit TokenizerParts(BpeModel model_in) : model(std::move(model_in)) {}

  BpeModel model;
  Normalizer normalizer;
  Pretokenizer pretokenizer;
  std::vector<AddedToken> added;
  std::vector<std::int32_t> before;  // what the post-processor puts before and after the text's tokens
  std::vector<std::int32_t> after;
};

// Of tokenizer_config.json; empty where it names none.
struct TokenizerConfig {
  std::string bos_token;
  std::string eos_token;
  std::string chat_template;
  std::vector<std::pair<std::string, std::string>> special_tokens;  // bos_token … by name, as a template takes them
};

// Throw Error that names origin, the key, what was found and what is wanted.
TokenizerParts parse_tokenizer(std::string_view json, const std::string& origin);
TokenizerConfig parse_tokenizer_config(std::string_view json, const std::string& origin);  // json may be empty

}  // namespace llmfp8
