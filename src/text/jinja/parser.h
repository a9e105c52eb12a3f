// Tokens of a template to its tree. Called by Template.
#pragma once

#include <string_view>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace llmfp8::jinja {

// Throws Problem "line N: …": a syntax error, an unknown statement, filter or test, or one beyond the limits.
Block parse_template(std::string_view source);

// Expressions; ParserBase of the statements.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  enum class Inline { yes, no };  // may "a if b" stand here

  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& next() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_[at_]; }
  bool is_op(std::string_view text) const { return current().type == TokenType::op && current().text == text; }
  bool is_name(std::string_view text) const { return current().type == TokenType::name && current().text == text; }
  bool skip_op(std::string_view text);
  bool skip_name(std::string_view text);
  void expect_op(std::string_view text);
  std::string expect_name();
  void expect(TokenType type);
  [[noreturn]] void wrong(const std::string& what) const;
  [[noreturn]] void unexpected() const;
  static std::string describe(const Token& token);

  ExpressionPtr expression(Inline inline_if = Inline::yes) {
    return inline_if == Inline::yes ? condition() : logical_or();
  }
  // One expression or, with a comma behind it, a tuple. end: the name that ends it ("in"), or none.
  ExpressionPtr tuple(Inline inline_if, bool may_be_empty);
  // Names and tuples of names: the target of `for` and `set`. with_space: also name.attribute.
  ExpressionPtr target(bool with_space, std::string_view end);
  ExpressionPtr filters_behind(ExpressionPtr node);  // "| upper | trim", or without the first bar when starting inline
  ExpressionPtr filter(ExpressionPtr node);
  CallArguments call_arguments();
  ExpressionPtr postfix(ExpressionPtr node);
  ExpressionPtr unary(bool with_filter);
  ExpressionPtr primary();

  ExpressionPtr node(Op op, int line, std::vector<ExpressionPtr> parts = {}) const;
  void settle(Expression& node) const;  // its depth, checked

  // While a macro's body is read: what it mentions.
  std::vector<MacroCode*> macros_;

 private:
  ExpressionPtr condition();
  ExpressionPtr logical_or();
  ExpressionPtr logical_and();
  ExpressionPtr logical_not();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concat();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr subscript(ExpressionPtr node);
  ExpressionPtr subscript_argument(bool& is_slice);
  ExpressionPtr test(ExpressionPtr node);
  ExpressionPtr target_item(bool with_space);
  bool at_tuple_end() const;

  struct Nesting;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace llmfp8::jinja
