// A model's own chat template with what goes into it: messages as transformers prepares them, special tokens, the date.
// Called by ChatTemplate.
#pragma once

#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/template.h"
#include "text/tokenizer.h"

namespace llmfp8 {

struct ChatMessage {
  std::string role;       // "system" | "user" | "assistant"; for a model's own template whatever it takes
  std::string content;    // empty where it is no text
  std::string json = {};  // the whole message as JSON, keys in their order, where it is more than these two
};

// Of an object with a "role" that is a string; nothing where it is something else.
std::optional<ChatMessage> message_of(const nlohmann::ordered_json& item);

// What a conversation has beside its messages, as JSON; empty: nothing.
struct ChatExtras {
  std::string tools;      // a list
  std::string variables;  // an object: enable_thinking and the like, as apply_chat_template takes them by name
};

// The day that a template is told: the one that was given, else today's, which only a template without a day of its own gets
// to know.
struct TemplateDate {
  std::tm day = {};
  bool is_given = false;

  // text: --template_date, "2024-07-26" or "26 Jul 2024"; empty: today. Throws a usage Error.
  static TemplateDate parse(const std::string& text);
  // As parse(""), were today that day: what was written then is written again.
  static TemplateDate as_on(const std::string& text);
  std::string iso() const;
};

class OwnTemplate {
 public:
  // Throws Error: see jinja::Template.
  OwnTemplate(std::string_view source, std::string origin, const Tokenizer& tokenizer, const TemplateDate& date);

  jinja::Rendered render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                         const ChatExtras& extras) const;
  // The same, the assistants' turns from message number `first_learnt` on supervised, each up to the token that ends
  // it. Throws Error where the template does not let them be found: a turn's text changes with what follows it, or no
  // special token ends it.
  std::vector<TextSegment> render_supervised(const std::vector<ChatMessage>& messages, std::size_t first_learnt,
                                             const ChatExtras& extras) const;

  // Whether its text depends on date(). A template that carries a day (Llama 3's) writes that one unless another is given:
  // the same rows tomorrow are the same tokens.
  bool writes_date() const {
    return needs_clock_ || (date_.is_given && (template_.mentions("strftime_now") || template_.mentions("date_string")));
  }
  const TemplateDate& date() const { return date_; }
  const std::string& end_of_turn() const { return end_of_turn_; }  // empty: none was found
  std::string description() const;

 private:
  // Where the assistant's turn in message number `index` lies in `whole`, the text of all messages.
  jinja::Span turn(const std::vector<ChatMessage>& messages, std::size_t index, const std::string& whole,
                   const ChatExtras& extras) const;
  // Up to the end of the special token that closes it.
  jinja::Span closed(jinja::Span span, const std::string& whole) const;
  std::string find_end_of_turn() const;
  void find_need_of_clock();

  jinja::Template template_;
  TemplateDate date_;
  bool needs_clock_ = false;  // it calls strftime_now without asking whether there is one
  nlohmann::ordered_json tokens_;  // bos_token … by name
  std::vector<std::string> special_;
  std::string end_of_turn_;
};

}  // namespace llmfp8
