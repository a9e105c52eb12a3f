// Tokenizers that several tests of this folder need: the golden ones, and a small one made here.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "support/golden.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace llmfp8::testing {

// Loaded once a process: a golden tokenizer takes a good part of a second.
inline const Tokenizer& golden_tokenizer(const std::string& name) {
  static const Tokenizer llama = Tokenizer::from_folder(golden_dir() / "data" / "tokenizers" / "llama-3.1");
  static const Tokenizer qwen = Tokenizer::from_folder(golden_dir() / "data" / "tokenizers" / "qwen2.5");
  return name == "llama-3.1" ? llama : qwen;
}

// All 256 bytes (ids 0 to 255 by byte value), some merges, ByteLevel with GPT-2's pattern.
inline nlohmann::json small_tokenizer() {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) {
    const char raw = static_cast<char>(byte);
    std::string written;
    append_byte_alphabet(written, std::string_view(&raw, 1));
    vocab[written] = byte;
  }
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  vocab["bc"] = 258;
  vocab["\u0120a"] = 259;
  return {{"added_tokens", nlohmann::json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"b c", "a b", "ab c", "\u0120 a"}}}}};
}

inline Tokenizer load(const nlohmann::json& document) {
  return Tokenizer::from_json(document.dump(), "", "small.json");
}

}  // namespace llmfp8::testing
