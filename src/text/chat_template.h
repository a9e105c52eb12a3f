// From a conversation to the text that is tokenised: a model's own Jinja template, or one of the built-in llama3,
// chatml and legacy. Called by the encoder of rows and by the commands that chat.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/own_template.h"
#include "text/tokenizer.h"

namespace llmfp8 {

// "You are a helpful assistant that solves math problems step by step. …"
extern const std::string kMathSystemText;

enum class ChatTemplateKind { llama3, chatml, legacy, own };

// Which assistants' turns are supervised. completion: what follows the last user message that is answered.
enum class Learnt { nothing, completion, assistant };

// What models' own templates add to the plain ones.
struct ChatTemplateDetails {
  bool trim_contents = false;  // white space at both ends of every content is cut off
  std::string default_system;  // the system text of a conversation that has none; empty: no system turn then
};

class ChatTemplate {
 public:
  explicit ChatTemplate(ChatTemplateKind kind, ChatTemplateDetails details = {})
      : kind_(kind), details_(std::move(details)) {}

  // name: the value of --chat_template (auto|model|llama3|chatml|legacy|FILE); auto: the tokenizer's own template, else
  // the one of the family that its special tokens tell. A Jinja template that writes probes as a built-in one does is
  // replaced by that for conversations of plain text. date: a text is --template_date. Throws a usage Error for an unknown
  // name, for a date that is none, and for `model`/FILE with a template that cannot be read; auto then takes the family's
  // and warns.
  static ChatTemplate choose(std::string_view name, const Tokenizer& tokenizer, const std::string& date = "") {
    return choose(name, tokenizer, TemplateDate::parse(date));
  }
  static ChatTemplate choose(std::string_view name, const Tokenizer& tokenizer, const TemplateDate& date);

  ChatTemplateKind kind() const { return kind_; }
  std::string_view name() const;    // "llama3" …
  std::string description() const;  // everything that its text depends on beside the messages

  // The day that the text tells, "" where it tells none.
  std::string date() const;

  // Whether it can write such a conversation: a built-in one takes roles and texts alone.
  bool takes(const std::vector<ChatMessage>& messages, const ChatExtras& extras = {}) const;
  // Every segment of the conversation; the assistants' contents, with the token that ends their turn, are supervised.
  // Exactly one BOS (in the text) where the template has one.
  std::vector<TextSegment> render(const std::vector<ChatMessage>& messages, Learnt learnt,
                                  const ChatExtras& extras = {}) const;
  // add_generation_prompt: ends with the assistant's header.
  std::string render_text(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                          const ChatExtras& extras = {}) const;

  // Tokens that end an assistant's turn ("<|eot_id|>", "<|im_end|>").
  std::string_view end_of_turn() const;

 private:
  bool uses_own(const std::vector<ChatMessage>& messages, const ChatExtras& extras) const;
  std::vector<TextSegment> render_built_in(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                                           std::size_t first_learnt) const;
  static ChatTemplate of_source(std::string_view source, std::string_view name, const Tokenizer& tokenizer,
                                const TemplateDate& date);
  static ChatTemplate choose_auto(const Tokenizer& tokenizer, const TemplateDate& date);

  ChatTemplateKind kind_;
  ChatTemplateDetails details_;
  std::string name_;                        // of an own one: "model", or its file
  std::shared_ptr<const OwnTemplate> own_;  // with a built-in kind: for what that cannot write
};

}  // namespace llmfp8
