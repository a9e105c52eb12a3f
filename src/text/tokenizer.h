// Byte-level BPE from a tokenizer.json (or the same JSON made from GGUF metadata): text to ids and back, as HF's
// `tokenizers` library does it. Thread-safe once loaded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llmfp8 {

struct Encoding {
  std::vector<std::int32_t> ids;
  std::vector<std::uint32_t> ends;  // of each token: byte offset of its end in the normalised text
};

// A piece of a text that is put together from parts, and whether its tokens are learnt.
struct TextSegment {
  std::string text;
  bool supervised = false;
};

struct SupervisedIds {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> supervised;  // 1 where the token holds at least one byte of a supervised segment
};

class Tokenizer {
 public:
  // folder: holds tokenizer.json and, optionally, tokenizer_config.json.
  // Throws Error: no such file, not byte-level BPE (names the type found), broken JSON, ids out of range.
  static Tokenizer from_folder(const std::filesystem::path& folder);
  static Tokenizer from_json(std::string_view tokenizer_json, std::string_view tokenizer_config_json,
                             const std::string& origin);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Special tokens written in the text are recognised. add_special_tokens: the post-processor's (Llama-3: one BOS).
  std::vector<std::int32_t> encode(std::string_view text, bool add_special_tokens = false) const;
  Encoding encode_with_offsets(std::string_view text) const;
  // Encodes the concatenation as one text, for a token may cross from one segment into the next.
  SupervisedIds encode_segments(std::span<const TextSegment> segments) const;

  // Invalid UTF-8 becomes U+FFFD, one for each maximal invalid part.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = false) const;

  std::optional<std::int32_t> token_to_id(std::string_view token) const;
  std::string id_to_token(std::int32_t id) const;  // as written in the vocabulary; empty if there is none
  bool is_special(std::int32_t id) const;
  std::int64_t vocab_size() const;             // largest id + 1
  std::uint64_t fingerprint() const;           // of the files that it was made from
  std::optional<std::int32_t> bos_id() const;  // tokenizer_config.json's bos_token, if any
  std::optional<std::int32_t> eos_id() const;
  // bos_token … of tokenizer_config.json by name, as a template takes them
  const std::vector<std::pair<std::string, std::string>>& special_tokens() const;
  const std::string& chat_template() const;  // tokenizer_config.json's (or chat_template.jinja), empty if none

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmfp8
