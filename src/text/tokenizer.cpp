// Text to ids and back: puts the parts of src/text together. Called by data, train and the command line.
#include "text/tokenizer.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>
#include <unordered_map>
#include <utility>

#include "core/crc32c.h"
#include "core/error.h"
#include "text/tokenizer_json.h"
#include "text/utf8.h"

namespace llmfp8 {
namespace {

constexpr std::uintmax_t kMaxFileBytes = std::uintmax_t{1} << 30;

std::string read_file(const std::filesystem::path& path) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  CHECK(!error, "{}: {}", path.string(), error.message());
  CHECK(size <= kMaxFileBytes, "{}: {} bytes, at most {} are supported", path.string(), size, kMaxFileBytes);
  std::ifstream in(path, std::ios::binary);
  CHECK(in, "{}: cannot be opened", path.string());
  std::string text(static_cast<std::size_t>(size), '\0');
  in.read(text.data(), static_cast<std::streamsize>(size));
  CHECK(static_cast<std::uintmax_t>(in.gcount()) == size, "{}: cannot be read to its end", path.string());
  return text;
}

// What a token is, by id.
struct TokenInfo {
  std::int32_t vocabulary_index = -1;  // into the model's StringTable; -1: not there
  std::int32_t added_index = -1;       // into TokenizerParts::added
  std::uint32_t bytes_offset = 0;      // into the block of all tokens' bytes
  std::uint32_t bytes_size = 0;
};

// Buffers of one encoding, kept by each thread.
struct EncodeBuffers {
  std::vector<AddedTokenMatch> sections;
  std::vector<AddedTokenMatch> pieces;
  std::vector<Word> words;
  std::vector<WordToken> tokens;
  std::string normalised;
  std::string prefixed;
};

// Where an encoding goes, and what else is asked of it.
struct EncodeOutput {
  std::vector<std::int32_t>& ids;
  std::vector<std::uint32_t>* ends = nullptr;             // of each token, in the normalised text
  std::span<const std::size_t> boundaries = {};           // ascending byte offsets into the text …
  std::vector<std::size_t>* mapped_boundaries = nullptr;  // … and where they lie in the normalised text
};

}  // namespace

struct Tokenizer::Impl {
  TokenizerParts parts;
  TokenizerConfig config;
  AddedTokenMatcher raw_matcher;         // tokens looked for in the text as it is
  AddedTokenMatcher normalised_matcher;  // tokens looked for in the normalised text
  std::unordered_map<std::string, std::int32_t> added_ids;
  std::vector<TokenInfo> tokens;  // by id
  std::string all_bytes;          // what the tokens stand for, end to end
  std::uint64_t fingerprint = 0;

  Impl(TokenizerParts parts_in, TokenizerConfig config_in, const std::string& origin);

  void add_bytes(TokenInfo& info, std::string_view written);
  void encode(std::string_view text, const EncodeOutput& out) const;
  void encode_section(std::string_view normalised, std::size_t offset, EncodeBuffers& buffers,
                      const EncodeOutput& out) const;
  void encode_words(std::string_view piece, std::size_t offset, EncodeBuffers& buffers, const EncodeOutput& out) const;
  const AddedToken* added(std::int32_t id) const {
    const TokenInfo* info = find(id);
    return info != nullptr && info->added_index >= 0 ? &parts.added[static_cast<std::size_t>(info->added_index)]
                                                     : nullptr;
  }
  const TokenInfo* find(std::int32_t id) const {
    return id >= 0 && static_cast<std::size_t>(id) < tokens.size() ? &tokens[static_cast<std::size_t>(id)] : nullptr;
  }
  std::optional<std::int32_t> token_to_id(std::string_view token) const;
};

Tokenizer::Impl::Impl(TokenizerParts parts_in, TokenizerConfig config_in, const std::string& origin)
    : parts(std::move(parts_in)), config(std::move(config_in)) {
  const StringTable& vocabulary = parts.model.vocabulary();
  std::int32_t largest = 0;
  for (std::size_t i = 0; i < vocabulary.size(); ++i) largest = std::max(largest, vocabulary.value(i));
  for (const AddedToken& token : parts.added) largest = std::max(largest, token.id);
  tokens.resize(static_cast<std::size_t>(largest) + 1);
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    TokenInfo& info = tokens[static_cast<std::size_t>(vocabulary.value(i))];
    info.vocabulary_index = static_cast<std::int32_t>(i);
    add_bytes(info, vocabulary.text(i));
  }
  std::string buffer;
  for (std::size_t i = 0; i < parts.added.size(); ++i) {
    const AddedToken& token = parts.added[i];
    TokenInfo& info = tokens[static_cast<std::size_t>(token.id)];
    info.added_index = static_cast<std::int32_t>(i);
    if (info.vocabulary_index < 0) add_bytes(info, token.content);
    added_ids.emplace(token.content, token.id);
    if (token.normalized) {
      normalised_matcher.add(token, parts.normalizer.apply(token.content, buffer));
    } else {
      raw_matcher.add(token, token.content);
    }
  }
  for (const auto* ids : {&parts.before, &parts.after}) {
    for (const std::int32_t id : *ids) {
      CHECK(id <= largest, "{}: post_processor adds the id {}, the largest of the vocabulary is {}", origin, id,
            largest);
    }
  }
}

void Tokenizer::Impl::add_bytes(TokenInfo& info, std::string_view written) {
  const std::optional<std::string> bytes = from_byte_alphabet(written);
  const std::string_view meant = bytes ? std::string_view(*bytes) : written;
  CHECK(all_bytes.size() + meant.size() < std::numeric_limits<std::uint32_t>::max(),
        "the vocabulary's tokens exceed 4 GiB");
  info.bytes_offset = static_cast<std::uint32_t>(all_bytes.size());
  info.bytes_size = static_cast<std::uint32_t>(meant.size());
  all_bytes += meant;
}

std::optional<std::int32_t> Tokenizer::Impl::token_to_id(std::string_view token) const {
  if (const auto found = added_ids.find(std::string(token)); found != added_ids.end()) return found->second;
  const std::int32_t id = parts.model.vocabulary().find(token);
  return id >= 0 ? std::optional(id) : std::nullopt;
}

void Tokenizer::Impl::encode(std::string_view text, const EncodeOutput& out) const {
  CHECK(text.size() <= std::size_t{1} << 30, "a text of {} bytes, at most {} are supported", text.size(),
        std::size_t{1} << 30);
  if (const auto invalid = first_invalid_utf8(text))
    fail("a text that is not UTF-8 (at byte {} of {})", *invalid, text.size());
  thread_local EncodeBuffers buffers;
  raw_matcher.split(text, buffers.sections);
  std::size_t next_boundary = 0;
  std::size_t offset = 0;  // of the section, in the normalised text
  for (const AddedTokenMatch& section : buffers.sections) {
    const std::string_view raw = text.substr(section.begin, section.end - section.begin);
    const bool is_token = section.id >= 0;
    const std::string_view normalised = is_token ? raw : parts.normalizer.apply(raw, buffers.normalised);
    if (out.mapped_boundaries != nullptr) {
      std::vector<std::size_t> inside;
      for (; next_boundary < out.boundaries.size() && out.boundaries[next_boundary] <= section.end; ++next_boundary) {
        inside.push_back(std::max(out.boundaries[next_boundary], section.begin) - section.begin);
      }
      if (!is_token) inside = parts.normalizer.map_boundaries(raw, inside);
      for (const std::size_t boundary : inside) out.mapped_boundaries->push_back(offset + boundary);
    }
    if (is_token) {
      out.ids.push_back(section.id);
      if (out.ends != nullptr) out.ends->push_back(static_cast<std::uint32_t>(offset + raw.size()));
    } else {
      encode_section(normalised, offset, buffers, out);
    }
    offset += normalised.size();
  }
  if (out.mapped_boundaries != nullptr) out.mapped_boundaries->resize(out.boundaries.size(), offset);
}

void Tokenizer::Impl::encode_section(std::string_view normalised, std::size_t offset, EncodeBuffers& buffers,
                                     const EncodeOutput& out) const {
  normalised_matcher.split(normalised, buffers.pieces);
  for (const AddedTokenMatch& piece : buffers.pieces) {
    if (piece.id < 0) {
      encode_words(normalised.substr(piece.begin, piece.end - piece.begin), offset + piece.begin, buffers, out);
      continue;
    }
    out.ids.push_back(piece.id);
    if (out.ends != nullptr) out.ends->push_back(static_cast<std::uint32_t>(offset + piece.end));
  }
}

void Tokenizer::Impl::encode_words(std::string_view piece, std::size_t offset, EncodeBuffers& buffers,
                                   const EncodeOutput& out) const {
  parts.pretokenizer.split(piece, buffers.words);
  for (const Word& word : buffers.words) {
    std::string_view bytes = piece.substr(word.begin, word.end - word.begin);
    if (word.prefix_space) bytes = buffers.prefixed.assign(1, ' ').append(bytes);
    buffers.tokens.clear();
    parts.model.encode_word(bytes, buffers.tokens);
    const std::size_t added_bytes = word.prefix_space ? 1 : 0;
    std::size_t done = 0;
    for (const WordToken& token : buffers.tokens) {
      out.ids.push_back(token.id);
      done += token.bytes;
      if (out.ends != nullptr) {
        out.ends->push_back(
            static_cast<std::uint32_t>(offset + word.begin + std::max(done, added_bytes) - added_bytes));
      }
    }
  }
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

// Length and checksum.
static std::uint64_t fingerprint_of(std::string_view json, std::string_view config) {
  return static_cast<std::uint64_t>(json.size() + config.size()) << 32 | crc32c(config.data(), config.size(), crc32c(json));
}

Tokenizer Tokenizer::from_folder(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "tokenizer.json";
  CHECK(std::filesystem::exists(path), "{}: no such file, wanted: the tokenizer of a Hugging Face model folder",
        path.string());
  const std::filesystem::path config_path = folder / "tokenizer_config.json";
  const std::string config = std::filesystem::exists(config_path) ? read_file(config_path) : "";
  const std::string json = read_file(path);
  Tokenizer tokenizer(std::make_unique<Impl>(parse_tokenizer(json, path.string()),
                                             parse_tokenizer_config(config, config_path.string()), path.string()));
  tokenizer.impl_->fingerprint = fingerprint_of(json, config);
  const std::filesystem::path template_path = folder / "chat_template.jinja";
  if (std::filesystem::exists(template_path)) tokenizer.impl_->config.chat_template = read_file(template_path);
  return tokenizer;
}

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, std::string_view tokenizer_config_json,
                               const std::string& origin) {
  Tokenizer tokenizer(std::make_unique<Impl>(parse_tokenizer(tokenizer_json, origin),
                                             parse_tokenizer_config(tokenizer_config_json, origin), origin));
  tokenizer.impl_->fingerprint = fingerprint_of(tokenizer_json, tokenizer_config_json);
  return tokenizer;
}

std::uint64_t Tokenizer::fingerprint() const { return impl_->fingerprint; }

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::vector<std::int32_t> ids;
  if (add_special_tokens) ids = impl_->parts.before;
  impl_->encode(text, {ids});
  if (add_special_tokens) ids.insert(ids.end(), impl_->parts.after.begin(), impl_->parts.after.end());
  return ids;
}

Encoding Tokenizer::encode_with_offsets(std::string_view text) const {
  Encoding encoding;
  impl_->encode(text, {encoding.ids, &encoding.ends});
  return encoding;
}

SupervisedIds Tokenizer::encode_segments(std::span<const TextSegment> segments) const {
  std::string text;
  std::vector<std::size_t> boundaries;  // the end of each segment
  for (const TextSegment& segment : segments) {
    text += segment.text;
    boundaries.push_back(text.size());
  }
  SupervisedIds result;
  std::vector<std::uint32_t> ends;
  std::vector<std::size_t> mapped;
  impl_->encode(text, {result.ids, &ends, boundaries, &mapped});

  result.supervised.resize(result.ids.size(), 0);
  std::size_t segment = 0;  // the first whose end lies behind the token's begin
  std::size_t begin = 0;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    while (segment < mapped.size() && mapped[segment] <= begin) ++segment;
    for (std::size_t s = segment; s < mapped.size(); ++s) {
      const std::size_t segment_begin = s == 0 ? 0 : mapped[s - 1];
      if (segment_begin >= ends[i]) break;
      if (segments[s].supervised && mapped[s] > segment_begin) result.supervised[i] = 1;
    }
    begin = std::max<std::size_t>(begin, ends[i]);
  }
  return result;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  std::string bytes;
  for (const std::int32_t id : ids) {
    const TokenInfo* info = impl_->find(id);
    if (info == nullptr || (skip_special_tokens && is_special(id))) continue;
    bytes.append(impl_->all_bytes, info->bytes_offset, info->bytes_size);
  }
  return utf8_lossy(std::move(bytes));
}

std::optional<std::int32_t> Tokenizer::token_to_id(std::string_view token) const { return impl_->token_to_id(token); }

std::string Tokenizer::id_to_token(std::int32_t id) const {
  if (const AddedToken* added = impl_->added(id)) return added->content;
  const TokenInfo* info = impl_->find(id);
  if (info == nullptr || info->vocabulary_index < 0) return "";
  return std::string(impl_->parts.model.vocabulary().text(static_cast<std::size_t>(info->vocabulary_index)));
}

bool Tokenizer::is_special(std::int32_t id) const {
  const AddedToken* added = impl_->added(id);
  return added != nullptr && added->special;
}

std::int64_t Tokenizer::vocab_size() const { return static_cast<std::int64_t>(impl_->tokens.size()); }

std::optional<std::int32_t> Tokenizer::bos_id() const {
  return impl_->config.bos_token.empty() ? std::nullopt : token_to_id(impl_->config.bos_token);
}

std::optional<std::int32_t> Tokenizer::eos_id() const {
  return impl_->config.eos_token.empty() ? std::nullopt : token_to_id(impl_->config.eos_token);
}

const std::string& Tokenizer::chat_template() const { return impl_->config.chat_template; }
const std::vector<std::pair<std::string, std::string>>& Tokenizer::special_tokens() const { return impl_->config.special_tokens; }

}  // namespace llmfp8
