// The regular expressions of tokenizer.json, matched as HF tokenizers' engine (Oniguruma) matches them. Called by the
// pre-tokenizers.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace llmfp8 {

struct TextRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

class Regex {
 public:
  // pattern: UTF-8. origin: the file it comes from, for messages. Throws Error: does not compile, or uses a construct
  // whose meaning differs between the two engines (named).
  Regex(std::string_view pattern, const std::string& origin);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Appends every match in text (valid UTF-8), left to right. Throws Error where the engine gives up.
  void find_all(std::string_view text, std::vector<TextRange>& matches) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

// The pattern for PCRE2 that means what `pattern` means in HF's engine: `\s` spelt out, categories completed with what
// newer Unicode versions added.
std::string translate_regex(std::string_view pattern, const std::string& origin);

}  // namespace llmfp8
