// Statements of a template: for, if, set, macro and the others. Called by Template.
#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/parser.h"
#include "text/jinja/problem.h"

namespace llmfp8::jinja {

namespace {

using StatementPtr = std::unique_ptr<Statement>;

class StatementParser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Block whole() {
    Block body;
    until({}, body);
    return body;
  }

 private:
  using Ends = std::vector<std::string_view>;

  // Reads up to one of the names that end it and stands on that name; without names, up to the end.
  void until(const Ends& ends, Block& body) {
    if (++depth_ > kLimits.statement_depth)
      wrong(fmt::format("statements nested deeper than {} levels", kLimits.statement_depth));
    while (current().type != TokenType::end) {
      if (current().type == TokenType::data) {
        StatementPtr text = make(Action::text);
        text->text = next().text;
        body.push_back(std::move(text));
      } else if (current().type == TokenType::variable_begin) {
        next();
        StatementPtr print = make(Action::print);
        print->value = tuple(Inline::yes, false);
        expect(TokenType::variable_end);
        body.push_back(std::move(print));
      } else {
        expect(TokenType::block_begin);
        if (std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return is_name(end); })) {
          --depth_;
          return;
        }
        body.push_back(statement());
        expect(TokenType::block_end);
      }
    }
    if (!ends.empty()) wrong(fmt::format("the template ends where '{}' is wanted", fmt::join(ends, "' or '")));
    --depth_;
  }

  // "%}", a body, and the name that ends it.
  Block body_until(std::string_view end) {
    if (skip_op(":")) {
    }  // jinja2 lets a colon stand there
    expect(TokenType::block_end);
    Block body;
    until({end}, body);
    next();
    return body;
  }

  StatementPtr make(Action action) const {
    auto result = std::make_unique<Statement>();
    result->action = action;
    result->line = current().line;
    return result;
  }

  StatementPtr statement() {
    if (current().type != TokenType::name) wrong("tag name expected, got " + describe(current()));
    const int line = current().line;
    const std::string name = next().text;
    StatementPtr result = parse(name, line);
    result->line = line;
    return result;
  }

  StatementPtr parse(const std::string& name, int line) {
    if (name == "for") return loop();
    if (name == "if") return branch();
    if (name == "set") return set();
    if (name == "macro") return macro();
    if (name == "call") return call_block();
    if (name == "filter") return filter_block();
    if (name == "with") return with();
    if (name == "generation") {
      const int outer = std::exchange(loops_, 0);
      StatementPtr result = make(Action::generation);
      result->body = body_until("endgeneration");
      loops_ = outer;
      return result;
    }
    if (name == "print") return print();
    if (name == "break" || name == "continue") {
      if (loops_ == 0) wrong(fmt::format("'{}' outside of a loop", name));
      return make(name == "break" ? Action::break_loop : Action::continue_loop);
    }
    for (const char* known : {"include", "import", "from", "extends", "block", "autoescape", "do", "trans"})
      if (name == known) problem("line {}: the statement '{}' is not supported in a chat template", line, name);
    problem("line {}: unknown statement '{}'", line, name.substr(0, 40));
  }

  // Every expression by itself.
  StatementPtr print() {
    StatementPtr result = make(Action::branch);
    do {
      StatementPtr one = make(Action::print);
      one->value = expression();
      result->otherwise.push_back(std::move(one));
    } while (skip_op(","));
    return result;
  }

  StatementPtr loop() {
    StatementPtr result = make(Action::loop);
    result->target = target(false, "in");
    if (!skip_name("in")) wrong("expected 'in', got " + describe(current()));
    result->value = tuple(Inline::no, false);
    if (skip_name("if")) result->condition = expression();
    result->is_recursive = skip_name("recursive");
    skip_op(":");
    expect(TokenType::block_end);
    ++loops_;
    until({"endfor", "else"}, result->body);
    --loops_;
    if (next().text == "else") result->otherwise = body_until("endfor");
    return result;
  }

  StatementPtr branch() {
    StatementPtr result = make(Action::branch);
    while (true) {
      ExpressionPtr condition = tuple(Inline::no, false);
      skip_op(":");
      expect(TokenType::block_end);
      Block body;
      until({"elif", "else", "endif"}, body);
      result->branches.emplace_back(std::move(condition), std::move(body));
      const std::string end = next().text;
      if (end == "elif") continue;
      if (end == "else") result->otherwise = body_until("endif");
      return result;
    }
  }

  StatementPtr set() {
    StatementPtr result = make(Action::set);
    result->target = target(true, "");
    if (skip_op("=")) {
      result->value = tuple(Inline::yes, false);
      return result;
    }
    result->action = Action::set_block;
    if (skip_op("|")) result->value = filter_chain();
    result->body = body_until("endset");
    return result;
  }

  // name(…) | name(…) …, around a text that is still to come.
  ExpressionPtr filter_chain() {
    ExpressionPtr chain = filter(nullptr);
    while (skip_op("|")) chain = filter(std::move(chain));
    return chain;
  }

  StatementPtr filter_block() {
    StatementPtr result = make(Action::filter);
    result->value = filter_chain();
    const int outer = std::exchange(loops_, 0);
    result->body = body_until("endfilter");
    loops_ = outer;
    return result;
  }

  StatementPtr with() {
    StatementPtr result = make(Action::with);
    while (current().type != TokenType::block_end) {
      if (!result->assignments.empty()) expect_op(",");
      ExpressionPtr name = target(false, "");
      expect_op("=");
      result->assignments.emplace_back(std::move(name), expression());
    }
    result->body = body_until("endwith");
    return result;
  }

  void parameters(MacroCode& code) {
    expect_op("(");
    while (!is_op(")")) {
      if (!code.parameters.empty()) expect_op(",");
      Parameter parameter;
      parameter.name = expect_name();
      for (const Parameter& other : code.parameters)
        if (other.name == parameter.name) wrong(fmt::format("the parameter '{}' stands twice", parameter.name));
      if (skip_op("="))
        parameter.fallback = expression();
      else if (!code.parameters.empty() && code.parameters.back().fallback)
        wrong("non-default argument follows default argument");
      code.parameters.push_back(std::move(parameter));
    }
    expect_op(")");
  }

  void macro_body(MacroCode& code, std::string_view end) {
    macros_.push_back(&code);
    const int outer = std::exchange(loops_, 0);
    code.body = body_until(end);
    loops_ = outer;
    macros_.pop_back();
    for (const Parameter& parameter : code.parameters) {
      if (parameter.name == "caller") code.uses_caller = true;
      if (parameter.name == "varargs") code.uses_varargs = false;
      if (parameter.name == "kwargs") code.uses_kwargs = false;
    }
  }

  StatementPtr macro() {
    StatementPtr result = make(Action::macro);
    result->macro.name = expect_name();
    parameters(result->macro);
    macro_body(result->macro, "endmacro");
    return result;
  }

  StatementPtr call_block() {
    StatementPtr result = make(Action::call_block);
    result->macro.name = "caller";
    if (is_op("(")) parameters(result->macro);
    result->value = expression();
    if (result->value->op != Op::call) wrong("expected a call");
    macro_body(result->macro, "endcall");
    return result;
  }

  int depth_ = 0;
  int loops_ = 0;  // around this place, inside the macro
};

}  // namespace

Block parse_template(std::string_view source) {
  if (source.size() > kLimits.source_bytes)
    problem("line 1: {} bytes, a template may have {}", source.size(), kLimits.source_bytes);
  return StatementParser(tokenize(source)).whole();
}

}  // namespace llmfp8::jinja
