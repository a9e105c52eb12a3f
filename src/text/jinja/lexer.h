// Source of a template to tokens, white space already dealt with (trim_blocks, lstrip_blocks, '-' and '+'). Called by
// the parser.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmfp8::jinja {

enum class TokenType {
  data,
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  string,
  integer,
  real,
  op,
  end
};

struct Token {
  TokenType type = TokenType::end;
  int line = 1;
  std::string text;  // of data, name, string (its value), op
  std::int64_t integer = 0;
  double real = 0;
};

// Always ends with a token `end`. Throws Problem "line N: …".
std::vector<Token> tokenize(std::string_view source);

}  // namespace llmfp8::jinja
