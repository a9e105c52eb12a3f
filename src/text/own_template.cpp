// A model's own chat template: its variables, and where the assistants' turns lie in its text. Called by ChatTemplate.
#include "text/own_template.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "core/crc32c.h"
#include "core/error.h"

namespace llmfp8 {

namespace {

using Json = nlohmann::ordered_json;

// A message as transformers hands it on: keys without a value are left out, and the thought of an assistant goes by
// each of its names.
Json prepared(const ChatMessage& message) {
  if (message.json.empty()) return {{"role", message.role}, {"content", message.content}};
  const Json given = Json::parse(message.json);
  Json kept = Json::object();
  for (const auto& [key, value] : given.items())
    if (!value.is_null()) kept[key] = value;
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    if (!kept.contains(name)) continue;
    const Json thought = kept[name];
    Json result = {{"thinking", thought}};
    for (const auto& [key, value] : kept.items()) result[key] = value;
    result["reasoning_content"] = thought;
    return result;
  }
  return kept;
}

std::string spaces_cut(std::string text) {
  while (!text.empty() && std::string_view(" \t\r\n").find(text.back()) != std::string_view::npos) text.pop_back();
  return text;
}

}  // namespace

std::optional<ChatMessage> message_of(const Json& item) {
  if (!item.is_object() || !item.contains("role") || !item["role"].is_string()) return std::nullopt;
  ChatMessage message{item["role"].get<std::string>(), "", ""};
  const bool has_text = item.contains("content") && item["content"].is_string();
  if (has_text) message.content = item["content"].get<std::string>();
  if (!has_text || item.size() > 2) message.json = item.dump();
  return message;
}

TemplateDate TemplateDate::parse(const std::string& text) {
  TemplateDate date;
  date.is_given = !text.empty();
  if (text.empty()) {
    const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    localtime_r(&now, &date.day);
    return date;
  }
  std::tm day = {};
  const char* end = strptime(text.c_str(), "%Y-%m-%d", &day);
  if (end == nullptr || *end != '\0') {
    day = {};
    end = strptime(text.c_str(), "%d %b %Y", &day);
  }
  if (end == nullptr || *end != '\0')
    fail_usage("--template_date {}: no date, wanted: 2024-07-26 or 26 Jul 2024", text);
  // mktime fills in the weekday, and turns February 30th into a day of March.
  day.tm_hour = 12;
  day.tm_isdst = -1;
  const int wanted_day = day.tm_mday, wanted_month = day.tm_mon;
  if (std::mktime(&day) == -1 || day.tm_mday != wanted_day || day.tm_mon != wanted_month)
    fail_usage("--template_date {}: there is no such day", text);
  day.tm_hour = 0;
  date.day = day;
  return date;
}

TemplateDate TemplateDate::as_on(const std::string& text) {
  TemplateDate date = parse(text);
  date.is_given = false;
  return date;
}

std::string TemplateDate::iso() const { return jinja::format_date("%Y-%m-%d", day); }

OwnTemplate::OwnTemplate(std::string_view source, std::string origin, const Tokenizer& tokenizer,
                         const TemplateDate& date)
    : template_(source, std::move(origin)), date_(date) {
  for (const auto& [name, text] : tokenizer.special_tokens()) {
    tokens_[name] = text;
    special_.push_back(text);
  }
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    if (tokenizer.is_special(id)) special_.push_back(tokenizer.id_to_token(id));
  std::erase(special_, "");
  find_need_of_clock();
  end_of_turn_ = find_end_of_turn();
}

jinja::Rendered OwnTemplate::render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                                    const ChatExtras& extras) const {
  Json variables = Json::object();
  variables["messages"] = Json::array();
  for (const ChatMessage& message : messages) variables["messages"].push_back(prepared(message));
  variables["tools"] = extras.tools.empty() ? Json() : Json::parse(extras.tools);
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = add_generation_prompt;
  for (const auto& [name, text] : tokens_.items()) variables[name] = text;
  if (date_.is_given) variables["date_string"] = jinja::format_date("%d %b %Y", date_.day);
  const Json more = extras.variables.empty() ? Json::object() : Json::parse(extras.variables);
  for (const auto& [name, value] : more.items()) variables[name] = value;
  return template_.render(variables, {date_.day, needs_clock_ || date_.is_given});
}

std::vector<TextSegment> OwnTemplate::render_supervised(const std::vector<ChatMessage>& messages,
                                                        std::size_t first_learnt, const ChatExtras& extras) const {
  const jinja::Rendered whole = render(messages, false, extras);
  std::vector<jinja::Span> spans;
  if (template_.has_generation()) {
    const auto is_assistant = [](const ChatMessage& message) { return message.role == "assistant"; };
    const auto turns = std::count_if(messages.begin(), messages.end(), is_assistant);
    CHECK(std::ssize(whole.generated) == turns,
          "the chat template writes {} {{% generation %}} blocks for {} assistant turns: what is learnt cannot be told",
          whole.generated.size(), turns);
    const auto before =
        std::count_if(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(first_learnt), is_assistant);
    for (auto i = static_cast<std::size_t>(before); i < whole.generated.size(); ++i)
      spans.push_back(closed(whole.generated[i], whole.text));
  } else {
    for (std::size_t i = first_learnt; i < messages.size(); ++i)
      if (messages[i].role == "assistant") spans.push_back(closed(turn(messages, i, whole.text, extras), whole.text));
  }
  std::vector<TextSegment> segments;
  std::size_t at = 0;
  for (const jinja::Span& span : spans) {
    CHECK(span.begin >= at,
          "the chat template writes the assistant's turns one into the other: what is learnt cannot be told");
    if (span.begin > at) segments.push_back({whole.text.substr(at, span.begin - at), false});
    segments.push_back({whole.text.substr(span.begin, span.end - span.begin), true});
    at = span.end;
  }
  if (at < whole.text.size()) segments.push_back({whole.text.substr(at), false});
  return segments;
}

jinja::Span OwnTemplate::turn(const std::vector<ChatMessage>& messages, std::size_t index, const std::string& whole,
                              const ChatExtras& extras) const {
  const auto upto = [&](std::size_t count) {
    return std::vector<ChatMessage>(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(count));
  };
  const std::string before = render(upto(index), true, extras).text;
  const std::string with = index + 1 == messages.size() ? whole : render(upto(index + 1), false, extras).text;
  CHECK(whole.starts_with(before) && with.size() >= before.size(),
        "the chat template writes the assistant's turn (message {}) otherwise than its generation prompt begins it: "
        "what is "
        "learnt cannot be told; --loss_on all, or a template with {{% generation %}} blocks",
        index);
  CHECK(whole.starts_with(with),
        "the chat template writes the assistant's turn (message {}) otherwise when messages follow it: what is learnt "
        "cannot be "
        "told; --loss_on completion or all, or a template with {{% generation %}} blocks",
        index);
  return {before.size(), with.size()};
}

jinja::Span OwnTemplate::closed(jinja::Span span, const std::string& whole) const {
  const std::string text = spaces_cut(whole.substr(span.begin, span.end - span.begin));
  const std::string_view behind = std::string_view(whole).substr(span.end);
  for (const std::string& token : special_)
    if (text.ends_with(token)) return {span.begin, span.begin + text.size()};
  for (const std::string& token : special_)
    if (behind.starts_with(token)) return {span.begin, span.end + token.size()};
  fail(
      "the chat template ends an assistant's turn with no special token ('{}'): nothing would teach the model to stop; "
      "--loss_on all, or another --chat_template",
      text.size() > 20 ? "…" : text);
}

std::string OwnTemplate::find_end_of_turn() const {
  try {
    const std::vector<ChatMessage> probe = {{"user", "one", ""}, {"assistant", "two", ""}};
    const std::string text = spaces_cut(render(probe, false, {}).text);
    std::string longest;
    for (const std::string& token : special_)
      if (text.ends_with(token) && token.size() > longest.size()) longest = token;
    return longest;
  } catch (const Error&) {
    return "";  // it takes no such conversation
  }
}

// A template may refuse a probe for a reason of its own (no system turn, say): only what a clock changes counts.
void OwnTemplate::find_need_of_clock() {
  if (!template_.mentions("strftime_now")) return;
  const auto is_taken = [&](const std::vector<ChatMessage>& probe, bool clock) {
    needs_clock_ = clock;
    try {
      render(probe, true, {});
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  const std::vector<std::vector<ChatMessage>> probes = {{{"user", "one", ""}, {"assistant", "two", ""}},
                                                        {{"system", "none", ""}, {"user", "one", ""}}};
  for (const std::vector<ChatMessage>& probe : probes)
    if (!is_taken(probe, false) && is_taken(probe, true)) return;
  needs_clock_ = false;
}

std::string OwnTemplate::description() const {
  const std::string& source = template_.source();
  const std::string date = writes_date() ? fmt::format(", date {}{}", date_.iso(), date_.is_given ? " given" : "") : "";
  return fmt::format("own {:08x} of {} bytes{}", crc32c(source), source.size(), date);
}

}  // namespace llmfp8
