// From a conversation to the text that is tokenised: the built-in templates, and when a model's own takes their place.
#include "text/chat_template.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "core/error.h"
#include "core/log.h"
#include "text/utf8.h"

namespace llmfp8 {

const std::string kMathSystemText =
    "You are a helpful assistant that solves math problems step by step. Please reason step by step, and put your "
    "final answer "
    "within \\boxed{}.";

namespace {

// The text around the contents of one template.
struct Frame {
  std::string_view name;
  std::string_view start;  // of the conversation
  std::string_view before_role;
  std::string_view after_role;
  std::string_view before_end;       // between content and end of turn, but not for the assistant
  std::string_view end_of_turn;      // what the assistant learns to say
  std::string_view after_end;        // behind the end of a turn
  std::string_view after_assistant;  // the same for the assistant's turns
};

constexpr Frame kLlama3 = {
    "llama3", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>\n\n", "", "<|eot_id|>", "", ""};
constexpr Frame kChatml = {"chatml", "", "<|im_start|>", "\n", "", "<|im_end|>", "\n", "\n"};
constexpr Frame kLegacy = {
    "legacy", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>\n", "\n", "<|eot_id|>", "\n", ""};

const Frame& frame_of(ChatTemplateKind kind) {
  switch (kind) {
    case ChatTemplateKind::llama3: return kLlama3;
    case ChatTemplateKind::chatml: return kChatml;
    case ChatTemplateKind::legacy: return kLegacy;
    case ChatTemplateKind::own: break;
  }
  fail("unknown chat template kind {}", static_cast<int>(kind));
}

// White space of Python's str.strip, which is what Jinja's trim calls.
bool is_python_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F ||
         code == 0x205F || code == 0x3000;
}

std::string_view trimmed(std::string_view text) {
  if (first_invalid_utf8(text)) return text;  // the tokenizer will refuse it
  while (!text.empty()) {
    const CodePoint first = code_point_at(text, 0);
    if (!is_python_space(first.code)) break;
    text.remove_prefix(first.size);
  }
  while (!text.empty()) {
    const std::size_t last = code_point_start_before(text, text.size());
    if (!is_python_space(code_point_at(text, last).code)) break;
    text = text.substr(0, last);
  }
  return text;
}

// Segments end to end, those that are treated alike in one.
class SegmentWriter {
 public:
  void plain(std::string_view text) { add(text, false); }
  void learnt(std::string_view text) { add(text, true); }
  std::vector<TextSegment> take() { return std::move(segments_); }

 private:
  void add(std::string_view text, bool supervised) {
    if (text.empty()) return;
    if (segments_.empty() || segments_.back().supervised != supervised) segments_.push_back({"", supervised});
    segments_.back().text += text;
  }

  std::vector<TextSegment> segments_;
};

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// The text of a Jinja string literal that begins at `at`, behind its opening quote; nothing if it does not end.
std::optional<std::string> jinja_literal(std::string_view source, std::size_t at, char quote) {
  std::string text;
  for (; at < source.size(); ++at) {
    const char c = source[at];
    if (c == quote) return text;
    if (c != '\\' || at + 1 == source.size()) {
      text += c;
      continue;
    }
    const char escaped = source[++at];
    text += escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped == 'r' ? '\r' : escaped;
  }
  return std::nullopt;
}

// The system turn that a chatml template writes where the conversation has none: '<|im_start|>system\n…<|im_end|>\n',
// as one literal or as text outside the tags.
std::string find_default_system(std::string_view source) {
  constexpr std::string_view kOpening = "<|im_start|>system", kClosing = "<|im_end|>";
  for (std::size_t at = source.find(kOpening); at != std::string_view::npos; at = source.find(kOpening, at + 1)) {
    const char before = at > 0 ? source[at - 1] : ' ';
    const bool quoted = before == '\'' || before == '"';
    const std::optional<std::string> literal =
        quoted ? jinja_literal(source, at, before) : std::string(source.substr(at));
    if (!literal) continue;
    const std::size_t end = literal->find(kClosing);
    if (end == std::string::npos || !literal->substr(kOpening.size()).starts_with('\n')) continue;
    const std::size_t begin = kOpening.size() + 1;
    if (end <= begin) continue;
    const std::string text = literal->substr(begin, end - begin);
    if (quoted || (!contains(text, "{{") && !contains(text, "{%"))) return text;
  }
  return "";
}

struct Recognised {
  ChatTemplateKind kind;
  ChatTemplateDetails details;
  bool same_text = false;  // the model's template writes the same text
};

std::optional<Recognised> recognise(std::string_view source) {
  std::optional<Recognised> result;
  if (contains(source, "<|start_header_id|>")) {
    result = Recognised{ChatTemplateKind::llama3, {}, true};
  } else if (contains(source, "<|im_start|>")) {
    result = Recognised{ChatTemplateKind::chatml, {false, find_default_system(source)}, true};
  } else {
    return std::nullopt;
  }
  for (const std::string_view trim :
       {"content'] | trim", "content']|trim", "content | trim", "content|trim", "content\"] | trim"}) {
    if (contains(source, trim)) result->details.trim_contents = true;
  }
  // Dates and thoughts are written by no built-in template.
  for (const std::string_view more :
       {"date_string", "strftime_now", "Cutting Knowledge Date", "<think>", "enable_thinking"}) {
    if (contains(source, more)) result->same_text = false;
  }
  return result;
}

constexpr std::string_view kWanted = "auto, model, llama3, chatml, legacy or a template's file";

bool is_plain(const ChatMessage& message) {
  return message.json.empty() && (message.role == "system" || message.role == "user" || message.role == "assistant");
}

// The message behind the last user's that is answered; 0 where none is.
std::size_t after_answered(const std::vector<ChatMessage>& messages) {
  bool is_answered = false;
  for (std::size_t i = messages.size(); i > 0; --i) {
    if (messages[i - 1].role == "user" && is_answered) return i;
    is_answered |= messages[i - 1].role == "assistant";
  }
  return 0;
}

// Conversations that tell whether two templates write the same.
std::vector<std::vector<ChatMessage>> probes() {
  const ChatMessage system = {"system", " Be\n\nbrief. ", ""}, user = {"user", " What's {{ 1+1 }}?\n", ""},
                    assistant = {"assistant", "\n Two <b> ", ""}, other = {"user", "Why?", ""},
                    last = {"assistant", "So.", ""};
  return {{user}, {system, user}, {system, user, assistant}, {user, assistant, other, last}, {user, assistant, other}};
}

}  // namespace

ChatTemplate ChatTemplate::of_source(std::string_view source, std::string_view name, const Tokenizer& tokenizer,
                                     const TemplateDate& date) {
  const std::string origin =
      name == "model" || name == "auto" ? "the model's chat template" : fmt::format("chat template {}", name);
  auto own = std::make_shared<const OwnTemplate>(source, origin, tokenizer, date);
  const auto writes_same = [&](const ChatTemplate& built_in) {
    try {
      for (const std::vector<ChatMessage>& probe : probes())
        for (const bool prompt : {false, true})
          if (own->render(probe, prompt, {}).text != built_in.render_text(probe, prompt)) return false;
    } catch (const Error&) {
      return false;
    }
    return true;
  };
  if (std::optional<Recognised> found = recognise(source); found && found->same_text) {
    ChatTemplate built_in(found->kind, std::move(found->details));
    if (writes_same(built_in)) {
      built_in.own_ = std::move(own);
      return built_in;
    }
  }
  ChatTemplate result(ChatTemplateKind::own);
  result.name_ = name == "auto" ? "model" : std::string(name);
  result.own_ = std::move(own);
  return result;
}

ChatTemplate ChatTemplate::choose_auto(const Tokenizer& tokenizer, const TemplateDate& date) {
  std::string problem;
  if (!tokenizer.chat_template().empty()) {
    try {
      return of_source(tokenizer.chat_template(), "auto", tokenizer, date);
    } catch (const Error& error) {
      problem = error.what();
    }
  }
  const auto has = [&](std::string_view token) { return tokenizer.token_to_id(token).has_value(); };
  const bool is_llama = has("<|start_header_id|>") && has("<|end_header_id|>") && has("<|eot_id|>");
  const bool is_chatml = has("<|im_start|>") && has("<|im_end|>");
  if (!is_llama && !is_chatml && !problem.empty()) fail_usage("--chat_template auto: {}", problem);
  if (!is_llama && !is_chatml) {
    fail_usage(
        "--chat_template auto: the tokenizer has neither a template nor Llama-3's tokens (<|start_header_id|>) nor "
        "ChatML's "
        "(<|im_start|>), wanted: llama3, chatml or legacy");
  }
  const ChatTemplate family(is_llama ? ChatTemplateKind::llama3 : ChatTemplateKind::chatml);
  if (!problem.empty()) log::warning("{}; its family's plain {} template is used", problem, family.name());
  return family;
}

ChatTemplate ChatTemplate::choose(std::string_view name, const Tokenizer& tokenizer, const TemplateDate& date) {
  const auto of_named = [&](std::string_view source) {
    try {
      return of_source(source, name, tokenizer, date);
    } catch (const Error& error) {
      fail_usage("--chat_template {}: {}", name, error.what());
    }
  };
  if (name == "auto") return choose_auto(tokenizer, date);
  if (name == "model") {
    if (tokenizer.chat_template().empty())
      fail_usage("--chat_template model: the model has no chat template, wanted: {}", kWanted);
    return of_named(tokenizer.chat_template());
  }
  for (const ChatTemplateKind kind : {ChatTemplateKind::llama3, ChatTemplateKind::chatml, ChatTemplateKind::legacy}) {
    if (name == frame_of(kind).name) return ChatTemplate(kind);
  }
  const std::filesystem::path path(name);
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored))
    fail_usage("--chat_template {}: no such template or file, wanted: {}", name, kWanted);
  std::ifstream in(path, std::ios::binary);
  if (!in) fail_usage("--chat_template {}: the file cannot be opened", name);
  const std::string source{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  return of_named(source);
}

std::string_view ChatTemplate::name() const {
  return kind_ == ChatTemplateKind::own ? std::string_view(name_) : frame_of(kind_).name;
}

std::string ChatTemplate::date() const {
  return kind_ == ChatTemplateKind::own && own_->writes_date() ? own_->date().iso() : "";
}

std::string ChatTemplate::description() const {
  const std::string own = own_ ? own_->description() : "none";
  if (kind_ == ChatTemplateKind::own) return own;
  return fmt::format("{}{}, default system text '{}', else {}", name(),
                     details_.trim_contents ? ", contents trimmed" : "", details_.default_system, own);
}

std::string_view ChatTemplate::end_of_turn() const {
  return kind_ == ChatTemplateKind::own ? std::string_view(own_->end_of_turn()) : frame_of(kind_).end_of_turn;
}

bool ChatTemplate::uses_own(const std::vector<ChatMessage>& messages, const ChatExtras& extras) const {
  if (kind_ == ChatTemplateKind::own) return true;
  const bool is_simple =
      extras.tools.empty() && extras.variables.empty() && std::all_of(messages.begin(), messages.end(), is_plain);
  return own_ != nullptr && !is_simple;
}

bool ChatTemplate::takes(const std::vector<ChatMessage>& messages, const ChatExtras& extras) const {
  if (uses_own(messages, extras)) return true;
  return std::all_of(messages.begin(), messages.end(), [](const ChatMessage& message) {
    const bool is_role = message.role == "system" || message.role == "user" || message.role == "assistant";
    return is_role && (message.json.empty() || !message.content.empty());
  });
}

std::vector<TextSegment> ChatTemplate::render(const std::vector<ChatMessage>& messages, Learnt learnt,
                                              const ChatExtras& extras) const {
  const std::size_t first = learnt == Learnt::completion  ? after_answered(messages)
                            : learnt == Learnt::assistant ? 0
                                                          : messages.size();
  if (!uses_own(messages, extras)) return render_built_in(messages, false, first);
  if (learnt == Learnt::nothing) return {{own_->render(messages, false, extras).text, false}};
  return own_->render_supervised(messages, first, extras);
}

std::string ChatTemplate::render_text(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                                      const ChatExtras& extras) const {
  if (uses_own(messages, extras)) return own_->render(messages, add_generation_prompt, extras).text;
  std::string text;
  for (const TextSegment& segment : render_built_in(messages, add_generation_prompt, messages.size()))
    text += segment.text;
  return text;
}

std::vector<TextSegment> ChatTemplate::render_built_in(const std::vector<ChatMessage>& messages,
                                                       bool add_generation_prompt, std::size_t first_learnt) const {
  const Frame& frame = frame_of(kind_);
  SegmentWriter out;
  out.plain(frame.start);
  const auto header = [&](std::string_view role) {
    out.plain(frame.before_role);
    out.plain(role);
    out.plain(frame.after_role);
  };
  const auto turn = [&](std::string_view role, std::string_view content, bool is_learnt) {
    header(role);
    if (role == "assistant") {
      for (const std::string_view part : {content, frame.end_of_turn}) is_learnt ? out.learnt(part) : out.plain(part);
      out.plain(frame.after_assistant);
    } else {
      out.plain(content);
      out.plain(frame.before_end);
      out.plain(frame.end_of_turn);
      out.plain(frame.after_end);
    }
  };
  if (!details_.default_system.empty() && !messages.empty() && messages[0].role != "system")
    turn("system", details_.default_system, false);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    CHECK(message.role == "system" || message.role == "user" || message.role == "assistant",
          "a message of the role \"{}\", wanted: system, user or assistant", message.role.substr(0, 40));
    turn(message.role, details_.trim_contents ? trimmed(message.content) : std::string_view(message.content),
         i >= first_learnt);
  }
  if (add_generation_prompt) header("assistant");
  return out.take();
}

}  // namespace llmfp8
