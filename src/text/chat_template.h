// From a conversation to the text that is tokenised, in the built-in templates llama3, chatml and legacy. A model's own
// Jinja template is recognised and mapped to one of these where it is known to give the same text.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace llmfp8 {

// "You are a helpful assistant that solves math problems step by step. …"
extern const std::string kMathSystemText;

struct ChatMessage {
  std::string role;  // "system" | "user" | "assistant"
  std::string content;
};

enum class ChatTemplateKind { llama3, chatml, legacy };

// What models' own templates add to the plain ones.
struct ChatTemplateDetails {
  bool trim_contents = false;  // white space at both ends of every content is cut off
  std::string default_system;  // the system text of a conversation that has none; empty: no system turn then
};

class ChatTemplate {
 public:
  explicit ChatTemplate(ChatTemplateKind kind, ChatTemplateDetails details = {})
      : kind_(kind), details_(std::move(details)) {}

  // name: the value of --chat_template (auto|model|llama3|chatml|legacy|FILE); tokenizer: for auto (its special tokens
  // and template tell the family). Throws a usage Error for an unknown name, or for `model`/FILE where the template is
  // not one of those that are built in (native Jinja is not built yet). auto with such a template takes its family's
  // plain one and warns.
  static ChatTemplate choose(std::string_view name, const Tokenizer& tokenizer);

  ChatTemplateKind kind() const { return kind_; }
  std::string_view name() const;  // "llama3" …
  std::string description() const;  // everything that its text depends on beside the messages

  // Every segment of the conversation; the assistants' contents, with the token that ends their turn, are supervised.
  // Exactly one BOS (in the text) where the template has one. add_generation_prompt: ends with the assistant's header.
  std::vector<TextSegment> render(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const;
  std::string render_text(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const;

  // Tokens that end an assistant's turn ("<|eot_id|>", "<|im_end|>").
  std::string_view end_of_turn() const;

 private:
  ChatTemplateKind kind_;
  ChatTemplateDetails details_;
};

}  // namespace llmfp8
