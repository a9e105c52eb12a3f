// From tokenizer.json and tokenizer_config.json to the parts of a tokenizer. Called by Tokenizer.
#include "text/tokenizer_json.h"

#include <optional>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "text/json_reader.h"
#include "text/utf8.h"

namespace llmfp8 {
namespace {

constexpr int kMaxDepth = 16;  // of Sequence inside Sequence

[[noreturn]] void refuse(const JsonReader& reader, const std::string& what, const char* supported) {
  fail("{}: {} {} is not supported (supported: {})", reader.origin(), reader.path(), what.substr(0, 80), supported);
}

void check_depth(const JsonReader& reader, int depth) {
  CHECK(depth < kMaxDepth, "{}: {} nests Sequence more than {} deep", reader.origin(), reader.path().substr(0, 120),
        kMaxDepth);
}

// Model

StringTable parse_vocabulary(const JsonReader& vocab) {
  const auto& object = vocab.object();
  CHECK(!object.empty(), "{}: model.vocab is empty", vocab.origin());
  CHECK(object.size() <= static_cast<std::size_t>(kMaxTokenId) + 1,
        "{}: model.vocab has {} tokens, at most {} are supported", vocab.origin(), object.size(), kMaxTokenId + 1);
  StringTable table;
  table.reserve(object.size(), object.size() * 8);
  std::unordered_map<std::int32_t, std::string_view> by_id;
  by_id.reserve(object.size());
  for (const auto& [token, value] : object) {
    CHECK(token.size() <= (std::size_t{1} << 20), "{}: model.vocab has a token of {} bytes", vocab.origin(),
          token.size());
    // The path is put together only where it is needed: this loop runs a hundred thousand times.
    const bool quick =
        value.is_number_unsigned() && value.get<std::uint64_t>() <= static_cast<std::uint64_t>(kMaxTokenId);
    const std::int32_t id =
        quick ? static_cast<std::int32_t>(value.get<std::uint64_t>())
              : JsonReader(value, vocab.origin(), "model.vocab[\"" + token + "\"]").integer(kMaxTokenId);
    const auto [other, fresh] = by_id.emplace(id, token);
    CHECK(fresh, "{}: model.vocab gives the id {} to both \"{}\" and \"{}\"", vocab.origin(), id,
          other->second.substr(0, 60), std::string_view(token).substr(0, 60));
    table.insert(token, id);
  }
  return table;
}

void parse_merges(const JsonReader& merges, BpeModel& model) {
  const auto& list = merges.array();
  model.reserve_merges(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const nlohmann::json& merge = list[i];
    if (merge.is_string()) {
      const std::string_view both = merge.get_ref<const std::string&>();
      const std::size_t space = both.find(' ');
      if (space == std::string_view::npos || both.find(' ', space + 1) != std::string_view::npos) {
        merges.element(i).wrong("two tokens with one space between them");
      }
      model.add_merge(both.substr(0, space), both.substr(space + 1));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      model.add_merge(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>());
    } else {
      merges.element(i).wrong("\"a b\" or [\"a\", \"b\"]");
    }
  }
}

BpeModel parse_model(const JsonReader& model) {
  const std::string& origin = model.origin();
  if (!model.is_object()) model.wrong("an object");
  // Files of old tokenizers versions leave the type out; what has merges is BPE.
  const JsonReader type = model.at("type");
  const bool is_bpe = type.is_null() ? model.at("merges").is_array() : type.string() == "BPE";
  if (!is_bpe) refuse(model, type.is_null() ? "without a type" : "of type \"" + type.string() + "\"", "BPE");
  if (model.at("byte_fallback").boolean(false))
    refuse(model, "with byte_fallback", "byte-level BPE, in which no byte is unknown");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const JsonReader value = model.at(affix);
    if (!value.is_null() && !value.string().empty()) refuse(value, "\"" + value.string() + "\"", "none");
  }
  if (!model.at("dropout").is_null()) refuse(model.at("dropout"), "other than null", "null");
  BpeOptions options;
  options.ignore_merges = model.at("ignore_merges").boolean(false);
  options.fuse_unk = model.at("fuse_unk").boolean(false);
  if (!model.at("unk_token").is_null()) options.unk_token = model.at("unk_token").string();
  BpeModel result(parse_vocabulary(model.at("vocab")), options, origin);
  parse_merges(model.at("merges"), result);
  return result;
}

// Normalizer

bool has_nfc(const JsonReader& normalizer, int depth = 0) {
  check_depth(normalizer, depth);
  if (normalizer.is_null()) return false;
  const std::string& type = normalizer.at("type").string();
  if (type == "NFC") return true;
  if (type != "Sequence") refuse(normalizer, "of type \"" + type + "\"", "none, NFC, Sequence");
  const JsonReader list = normalizer.at("normalizers");
  bool found = false;
  for (std::size_t i = 0; i < list.array().size(); ++i) found = has_nfc(list.element(i), depth + 1) || found;
  return found;
}

// Pre-tokenizer

SplitBehavior parse_behavior(const JsonReader& behavior) {
  const std::string& name = behavior.string();
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  behavior.wrong("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

SplitStep parse_split(const JsonReader& split) {
  const SplitBehavior behavior = parse_behavior(split.at("behavior"));
  const bool invert = split.at("invert").boolean(false);
  const JsonReader pattern = split.at("pattern");
  if (pattern.is_string()) return {pattern.string(), behavior, invert};
  const JsonReader regex = pattern.at("Regex");
  if (!regex.is_null()) return {Regex(regex.string(), split.origin()), behavior, invert};
  const JsonReader literal = pattern.at("String");
  if (literal.is_null()) pattern.wrong("{\"Regex\": …} or {\"String\": …}");
  return {literal.string(), behavior, invert};
}

void parse_pretokenizer(const JsonReader& pretokenizer, std::vector<PretokenizerStep>& steps, int depth = 0) {
  check_depth(pretokenizer, depth);
  constexpr const char* kSupported = "ByteLevel, or a Sequence of Split and Digits that ends with ByteLevel";
  if (pretokenizer.is_null()) refuse(pretokenizer, "null", kSupported);
  if (!steps.empty() && std::holds_alternative<ByteLevelStep>(steps.back())) {
    refuse(pretokenizer, "after ByteLevel", kSupported);
  }
  const std::string& type = pretokenizer.at("type").string();
  if (type == "Sequence") {
    const JsonReader list = pretokenizer.at("pretokenizers");
    CHECK(list.array().size() <= 64, "{}: {} has {} steps, at most 64 are supported", list.origin(), list.path(),
          list.size());
    for (std::size_t i = 0; i < list.size(); ++i) parse_pretokenizer(list.element(i), steps, depth + 1);
  } else if (type == "Split") {
    steps.emplace_back(parse_split(pretokenizer));
  } else if (type == "Digits") {
    steps.emplace_back(DigitsStep{pretokenizer.at("individual_digits").boolean(false)});
  } else if (type == "ByteLevel") {
    ByteLevelStep step;
    step.add_prefix_space = pretokenizer.at("add_prefix_space").boolean(true);
    if (pretokenizer.at("use_regex").boolean(true))
      step.regex = std::make_unique<Regex>(kGpt2Pattern, pretokenizer.origin());
    steps.emplace_back(std::move(step));
  } else {
    refuse(pretokenizer, "of type \"" + type + "\"", kSupported);
  }
}

// Post-processor

void parse_template(const JsonReader& processor, TokenizerParts& parts) {
  const JsonReader single = processor.at("single");
  const JsonReader special = processor.at("special_tokens");
  std::vector<std::int32_t> before, after;
  bool seen = false;
  for (std::size_t i = 0; i < single.array().size(); ++i) {
    const JsonReader piece = single.element(i);
    const JsonReader sequence = piece.at("Sequence"), token = piece.at("SpecialToken");
    if (!sequence.is_null()) {
      if (seen || sequence.at("id").string() != "A") piece.wrong("one Sequence, A");
      seen = true;
    } else if (!token.is_null()) {
      const JsonReader ids = special.at(token.at("id").string().c_str()).at("ids");
      for (std::size_t j = 0; j < ids.array().size(); ++j) {
        (seen ? after : before).push_back(ids.element(j).integer(kMaxTokenId));
      }
    } else {
      piece.wrong("{\"Sequence\": …} or {\"SpecialToken\": …}");
    }
  }
  if (!seen) single.wrong("a list with the Sequence A");
  parts.before.insert(parts.before.begin(), before.begin(), before.end());
  parts.after.insert(parts.after.end(), after.begin(), after.end());
}

void parse_post_processor(const JsonReader& processor, TokenizerParts& parts, int depth = 0) {
  check_depth(processor, depth);
  if (processor.is_null()) return;
  const std::string& type = processor.at("type").string();
  if (type == "ByteLevel") return;  // changes offsets only
  if (type == "TemplateProcessing") return parse_template(processor, parts);
  if (type != "Sequence")
    refuse(processor, "of type \"" + type + "\"", "none, ByteLevel, TemplateProcessing, Sequence");
  const JsonReader list = processor.at("processors");
  for (std::size_t i = 0; i < list.array().size(); ++i) parse_post_processor(list.element(i), parts, depth + 1);
}

// Decoder

void check_decoder(const JsonReader& decoder, int depth = 0) {
  check_depth(decoder, depth);
  constexpr const char* kSupported = "ByteLevel";
  if (decoder.is_null()) refuse(decoder, "null", kSupported);
  const std::string& type = decoder.at("type").string();
  if (type == "ByteLevel") return;
  const JsonReader list = decoder.at("decoders");
  if (type == "Sequence" && list.is_array() && list.size() == 1) return check_decoder(list.element(0), depth + 1);
  refuse(decoder, "of type \"" + type + "\"", kSupported);
}

// Added tokens

std::vector<AddedToken> parse_added_tokens(const JsonReader& list, const StringTable& vocabulary) {
  std::vector<AddedToken> tokens;
  if (list.is_null()) return tokens;
  std::unordered_map<std::int32_t, std::string_view> by_id;
  std::unordered_map<std::string_view, std::int32_t> by_content;
  for (std::size_t i = 0; i < vocabulary.size(); ++i) by_id.emplace(vocabulary.value(i), vocabulary.text(i));
  tokens.reserve(list.array().size());
  for (std::size_t i = 0; i < list.array().size(); ++i) {
    const JsonReader entry = list.element(i);
    AddedToken token;
    token.id = entry.at("id").integer(kMaxTokenId);
    token.content = entry.at("content").string();
    token.special = entry.at("special").boolean(false);
    token.single_word = entry.at("single_word").boolean(false);
    token.lstrip = entry.at("lstrip").boolean(false);
    token.rstrip = entry.at("rstrip").boolean(false);
    token.normalized = entry.at("normalized").boolean(!token.special);
    const std::string shown = token.content.substr(0, 60);
    if (token.content.empty()) entry.at("content").wrong("a string that is not empty");
    const std::int32_t in_vocabulary = vocabulary.find(token.content);
    CHECK(in_vocabulary < 0 || in_vocabulary == token.id, "{}: {} gives \"{}\" the id {}, model.vocab gives it {}",
          entry.origin(), entry.path(), shown, token.id, in_vocabulary);
    tokens.push_back(std::move(token));
    const AddedToken& kept = tokens.back();
    const auto [other, fresh] = by_id.emplace(kept.id, kept.content);
    CHECK(fresh || other->second == kept.content, "{}: {} gives \"{}\" the id {}, which is that of \"{}\"",
          entry.origin(), entry.path(), shown, kept.id, other->second.substr(0, 60));
    CHECK(by_content.emplace(kept.content, kept.id).second, "{}: {} lists \"{}\" a second time", entry.origin(),
          entry.path(), shown);
  }
  return tokens;
}

// tokenizer_config.json

std::string token_text(const JsonReader& token) {
  if (token.is_null()) return "";
  return token.is_object() ? token.at("content").string() : token.string();
}

std::string template_text(const JsonReader& chat_template) {
  if (chat_template.is_null()) return "";
  if (!chat_template.is_array()) return chat_template.string();
  for (std::size_t i = 0; i < chat_template.size(); ++i) {
    const JsonReader entry = chat_template.element(i);
    if (entry.at("name").string() == "default") return entry.at("template").string();
  }
  return "";
}

}  // namespace

TokenizerParts parse_tokenizer(std::string_view json, const std::string& origin) {
  const nlohmann::json document = parse_json(json, origin);
  const JsonReader root(document, origin);
  // "truncation" and "padding" are what a program left there; transformers does not apply them to a text either.
  TokenizerParts parts(parse_model(root.at("model")));
  parts.normalizer = Normalizer(has_nfc(root.at("normalizer")) ? NormalizerKind::nfc : NormalizerKind::none);
  std::vector<PretokenizerStep> steps;
  parse_pretokenizer(root.at("pre_tokenizer"), steps);
  if (steps.empty() || !std::holds_alternative<ByteLevelStep>(steps.back())) {
    refuse(root.at("pre_tokenizer"), "without ByteLevel", "byte-level BPE");
  }
  parts.pretokenizer = Pretokenizer(std::move(steps));
  check_decoder(root.at("decoder"));
  parts.added = parse_added_tokens(root.at("added_tokens"), parts.model.vocabulary());
  parse_post_processor(root.at("post_processor"), parts);
  return parts;
}

TokenizerConfig parse_tokenizer_config(std::string_view json, const std::string& origin) {
  if (json.empty()) return {};
  const nlohmann::json document = parse_json(json, origin);
  const JsonReader root(document, origin);
  std::vector<std::pair<std::string, std::string>> special;
  for (const char* name : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"})
    if (std::string text = token_text(root.at(name)); !text.empty()) special.emplace_back(name, std::move(text));
  return {token_text(root.at("bos_token")), token_text(root.at("eos_token")), template_text(root.at("chat_template")), std::move(special)};
}

}  // namespace llmfp8
