// The metadata names a pre-tokenizer instead of describing it; the descriptions here are those of the original models.
#include "hub/gguf_tokenizer.h"

#include <optional>
#include <unordered_set>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace llmfp8 {
namespace {

using nlohmann::json;

// tokenizer.ggml.token_type
constexpr std::int64_t kNormal = 1;
constexpr std::int64_t kControl = 3;
constexpr std::int64_t kUserDefined = 4;
constexpr std::int64_t kUnused = 5;

constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

json byte_level(bool trim_offsets, bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", trim_offsets}, {"use_regex", use_regex}};
}

json split_then_byte_level(const char* pattern) {
  const json split = {
      {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", json::array({split, byte_level(false, false)})}};
}

struct PreTokenizer {
  json pre_tokenizer;
  json normalizer;
  bool ignore_merges = false;
  bool add_bos = false;  // where the file does not say
};

PreTokenizer pre_tokenizer_of(const GgufFile& file) {
  const std::string_view model = file.text("tokenizer.ggml.model");
  CHECK(model == "gpt2", "'{}': tokenizer '{}' is not supported, byte-level BPE (gpt2) wanted", file.origin(), model);
  const std::string_view pre = file.text("tokenizer.ggml.pre", "default");
  PreTokenizer result;
  if (pre == "smollm") {
    const json digits = {{"type", "Digits"}, {"individual_digits", true}};
    result.pre_tokenizer = {{"type", "Sequence"}, {"pretokenizers", json::array({digits, byte_level(true, true)})}};
  } else if (pre == "llama-bpe" || pre == "llama-v3" || pre == "llama3") {
    result.pre_tokenizer = split_then_byte_level(kLlama3Pattern);
    result.ignore_merges = true;
    result.add_bos = true;
  } else if (pre == "qwen2") {
    result.pre_tokenizer = split_then_byte_level(kQwen2Pattern);
    result.normalizer = {{"type", "NFC"}};
  } else if (pre == "gpt-2") {
    result.pre_tokenizer = byte_level(true, true);
  } else {
    fail("'{}': pre-tokenizer '{}' is not supported; smollm, llama-bpe, qwen2 or gpt-2 wanted", file.origin(), pre);
  }
  return result;
}

// One entry of a JSON object or array, quoted. Strings of the file need not be UTF-8; JSON must be.
std::string quoted(const GgufFile& file, std::string_view text, const char* what) {
  try {
    return json(std::string(text)).dump();
  } catch (const json::exception&) {
    fail("'{}': a {} is not valid UTF-8", file.origin(), what);
  }
}

class Vocabulary {
 public:
  explicit Vocabulary(const GgufFile& file)
      : file_(file), tokens_(file.array("tokenizer.ggml.tokens", GgufType::string).strings) {
    constexpr std::size_t kMaxTokens = std::size_t{1} << 24;
    CHECK(tokens_.size() <= kMaxTokens, "'{}': {} tokens, at most {} wanted", file.origin(), tokens_.size(),
          kMaxTokens);
    if (file.metadata("tokenizer.ggml.token_type") != nullptr) {
      types_ = &file.array("tokenizer.ggml.token_type", GgufType::i32);
      CHECK(types_->count == tokens_.size(), "'{}': {} token types for {} tokens", file.origin(), types_->count,
            tokens_.size());
    }
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      if (type(id) == kUnused) continue;  // filler that brings the embedding to a round size
      CHECK(known_.insert(tokens_[id]).second, "'{}': token '{}' appears twice", file.origin(), tokens_[id]);
    }
  }

  std::int64_t type(std::size_t id) const { return types_ == nullptr ? kNormal : types_->integer(id); }

  // Added tokens stand in the vocabulary too: HF numbers those that do not from its end, and there may be holes.
  std::string vocab_json() const {
    std::string out = "{";
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      if (type(id) == kUnused) continue;
      out += fmt::format("{}{}:{}", out.size() > 1 ? ",\n" : "\n", quoted(file_, tokens_[id], "token"), id);
    }
    return out + "\n}";
  }

  std::string added_tokens_json() const {
    std::string out = "[";
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      const std::int64_t kind = type(id);
      if (kind != kControl && kind != kUserDefined) continue;
      CHECK(!tokens_[id].empty(), "'{}': added token {} is empty", file_.origin(), id);
      out += fmt::format(
          "{}{{\"id\":{},\"content\":{},\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
          "\"normalized\":false,\"special\":{}}}",
          out.size() > 1 ? ",\n" : "\n", id, quoted(file_, tokens_[id], "token"), kind == kControl);
    }
    return out + "\n]";
  }

  // "a b": byte-level tokens hold no space, so the one space separates the two.
  std::string merges_json() const {
    std::string out = "[";
    std::string joined;
    for (const std::string_view merge : file_.array("tokenizer.ggml.merges", GgufType::string).strings) {
      const std::size_t space = merge.find(' ');
      CHECK(space != std::string_view::npos && space > 0 && space + 1 < merge.size() &&
                merge.find(' ', space + 1) == std::string_view::npos,
            "'{}': merge '{}' is not two tokens with a space between", file_.origin(), merge);
      joined.assign(merge.substr(0, space)).append(merge.substr(space + 1));
      CHECK(known_.contains(merge.substr(0, space)) && known_.contains(merge.substr(space + 1)) &&
                known_.contains(joined),
            "'{}': merge '{}' makes or uses a token that is not in the vocabulary", file_.origin(), merge);
      out += (out.size() > 1 ? ",\n" : "\n") + quoted(file_, merge, "merge");
    }
    return out + "\n]";
  }

  // The text of the token whose id stands under `key`; nothing if the key is absent.
  std::optional<std::string> named(const char* key) const {
    const std::int64_t id = file_.integer(key, -1);
    if (id < 0) return std::nullopt;
    CHECK(static_cast<std::size_t>(id) < tokens_.size(), "'{}': metadata '{}' is {}, below {} wanted", file_.origin(),
          key, id, tokens_.size());
    return std::string(tokens_[static_cast<std::size_t>(id)]);
  }

 private:
  const GgufFile& file_;
  const std::vector<std::string_view>& tokens_;
  const GgufArray* types_ = nullptr;
  std::unordered_set<std::string_view> known_;
};

// One BOS before the text (and before a second text), as Llama-3's tokenizer.json says it.
json bos_template(const std::string& bos, std::int64_t id) {
  const auto special = [&](int type) { return json{{"SpecialToken", {{"id", bos}, {"type_id", type}}}}; };
  const auto sequence = [](const char* which, int type) {
    return json{{"Sequence", {{"id", which}, {"type_id", type}}}};
  };
  const json single = json::array({special(0), sequence("A", 0)});
  const json pair = json::array({special(0), sequence("A", 0), special(1), sequence("B", 1)});
  const json tokens = {{bos, {{"id", bos}, {"ids", json::array({id})}, {"tokens", json::array({bos})}}}};
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

std::string config_json(const GgufFile& file, const Vocabulary& vocabulary) {
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"add_prefix_space", false},
                 {"clean_up_tokenization_spaces", false},
                 {"model_input_names", {"input_ids", "attention_mask"}}};
  const std::pair<const char*, const char*> named[] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                                       {"eos_token", "tokenizer.ggml.eos_token_id"},
                                                       {"pad_token", "tokenizer.ggml.padding_token_id"},
                                                       {"unk_token", "tokenizer.ggml.unknown_token_id"}};
  for (const auto& [field, key] : named) {
    if (const std::optional<std::string> token = vocabulary.named(key)) config[field] = *token;
  }
  const std::string context = std::string(file.text("general.architecture", "")) + ".context_length";
  if (file.metadata(context) != nullptr) config["model_max_length"] = file.integer(context);
  const std::string_view chat_template = file.text("tokenizer.chat_template", "");
  if (!chat_template.empty()) config["chat_template"] = std::string(chat_template);
  try {
    return config.dump(2) + "\n";
  } catch (const json::exception&) {
    fail("'{}': the chat template or a special token is not valid UTF-8", file.origin());
  }
}

}  // namespace

GgufTokenizerFiles make_tokenizer_files(const GgufFile& file) {
  const PreTokenizer pre = pre_tokenizer_of(file);
  const Vocabulary vocabulary(file);
  json post_processor = byte_level(false, true);
  if (file.boolean("tokenizer.ggml.add_bos_token", pre.add_bos)) {
    const std::optional<std::string> bos = vocabulary.named("tokenizer.ggml.bos_token_id");
    CHECK(bos, "'{}': the tokenizer puts a BOS first, but names none", file.origin());
    quoted(file, *bos, "token");
    const json bos_first = bos_template(*bos, file.integer("tokenizer.ggml.bos_token_id"));
    post_processor = {{"type", "Sequence"}, {"processors", json::array({post_processor, bos_first})}};
  }
  CHECK(!file.boolean("tokenizer.ggml.add_eos_token", false), "'{}': add_eos_token is not supported", file.origin());
  json decoder = byte_level(true, true);
  decoder["add_prefix_space"] = true;

  GgufTokenizerFiles files;
  // By hand, for a tree of 100 000 nodes is built only to be written out.
  files.tokenizer_json = fmt::format(
      "{{\n\"version\":\"1.0\",\n\"truncation\":null,\n\"padding\":null,\n\"added_tokens\":{},\n\"normalizer\":{},\n"
      "\"pre_tokenizer\":{},\n\"post_processor\":{},\n\"decoder\":{},\n\"model\":{{\"type\":\"BPE\",\"dropout\":null,"
      "\"unk_token\":null,\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
      "\"byte_fallback\":false,\"ignore_merges\":{},\n\"vocab\":{},\n\"merges\":{}}}\n}}\n",
      vocabulary.added_tokens_json(), pre.normalizer.dump(), pre.pre_tokenizer.dump(), post_processor.dump(),
      decoder.dump(), pre.ignore_merges, vocabulary.vocab_json(), vocabulary.merges_json());
  files.tokenizer_config_json = config_json(file, vocabulary);
  return files;
}

}  // namespace llmfp8
