// Expressions of a template, by jinja2's grammar and precedences. Called by the statement parser.
#include <algorithm>
#include <map>

#include "text/jinja/filters.h"
#include "text/jinja/parser.h"
#include "text/jinja/problem.h"

namespace llmfp8::jinja {

// Counts how deep the parser has called itself.
struct ExpressionParser::Nesting {
  explicit Nesting(ExpressionParser& parser) : count(parser.nesting_) {
    if (++count > kLimits.expression_depth)
      parser.wrong(fmt::format("nested deeper than {} levels", kLimits.expression_depth));
  }
  ~Nesting() { --count; }
  int& count;
};

void ExpressionParser::wrong(const std::string& what) const { problem("line {}: {}", current().line, what); }

std::string ExpressionParser::describe(const Token& token) {
  switch (token.type) {
    case TokenType::data: return "template text";
    case TokenType::variable_begin: return "'{{'";
    case TokenType::variable_end: return "'}}'";
    case TokenType::block_begin: return "'{%'";
    case TokenType::block_end: return "'%}'";
    case TokenType::string: return "a string";
    case TokenType::integer:
    case TokenType::real: return "a number";
    case TokenType::end: return "the end of the template";
    default: return fmt::format("'{}'", token.text.substr(0, 40));
  }
}

void ExpressionParser::unexpected() const { wrong("unexpected " + describe(current())); }

bool ExpressionParser::skip_op(std::string_view text) {
  if (!is_op(text)) return false;
  next();
  return true;
}

bool ExpressionParser::skip_name(std::string_view text) {
  if (!is_name(text)) return false;
  next();
  return true;
}

void ExpressionParser::expect_op(std::string_view text) {
  if (!skip_op(text)) wrong(fmt::format("expected '{}', got {}", text, describe(current())));
}

std::string ExpressionParser::expect_name() {
  if (current().type != TokenType::name) wrong("expected a name, got " + describe(current()));
  return next().text;
}

void ExpressionParser::expect(TokenType type) {
  if (current().type != type)
    wrong(fmt::format("expected {}, got {}", describe(Token{type, 1, "", 0, 0}), describe(current())));
  next();
}

ExpressionPtr ExpressionParser::node(Op op, int line, std::vector<ExpressionPtr> parts) const {
  auto result = std::make_unique<Expression>();
  result->op = op;
  result->line = line;
  result->parts = std::move(parts);
  settle(*result);
  return result;
}

void ExpressionParser::settle(Expression& node) const {
  int depth = 0;
  const auto look = [&](const ExpressionPtr& part) { depth = std::max(depth, part ? part->depth : 0); };
  for (const ExpressionPtr& part : node.parts) look(part);
  for (const ExpressionPtr& part : node.arguments.positional) look(part);
  for (const auto& [name, part] : node.arguments.named) look(part);
  look(node.arguments.star);
  look(node.arguments.double_star);
  node.depth = depth + 1;
  if (node.depth > kLimits.expression_depth)
    wrong(fmt::format("nested deeper than {} levels", kLimits.expression_depth));
}

namespace {

std::vector<ExpressionPtr> pair_of(ExpressionPtr left, ExpressionPtr right) {
  std::vector<ExpressionPtr> parts;
  parts.push_back(std::move(left));
  parts.push_back(std::move(right));
  return parts;
}

std::vector<ExpressionPtr> one(ExpressionPtr part) {
  std::vector<ExpressionPtr> parts;
  parts.push_back(std::move(part));
  return parts;
}

}  // namespace

ExpressionPtr ExpressionParser::condition() {
  const Nesting nesting(*this);
  ExpressionPtr value = logical_or();
  while (is_name("if")) {
    const int line = next().line;
    std::vector<ExpressionPtr> parts = pair_of(logical_or(), std::move(value));
    parts.push_back(skip_name("else") ? condition() : nullptr);
    value = node(Op::condition, line, std::move(parts));
  }
  return value;
}

ExpressionPtr ExpressionParser::logical_or() {
  ExpressionPtr left = logical_and();
  while (is_name("or")) {
    const int line = next().line;
    left = node(Op::logical_or, line, pair_of(std::move(left), logical_and()));
  }
  return left;
}

ExpressionPtr ExpressionParser::logical_and() {
  ExpressionPtr left = logical_not();
  while (is_name("and")) {
    const int line = next().line;
    left = node(Op::logical_and, line, pair_of(std::move(left), logical_not()));
  }
  return left;
}

ExpressionPtr ExpressionParser::logical_not() {
  if (!is_name("not")) return comparison();
  const Nesting nesting(*this);
  const int line = next().line;
  return node(Op::logical_not, line, one(logical_not()));
}

ExpressionPtr ExpressionParser::comparison() {
  static const std::map<std::string_view, Comparison> kOperators = {
      {"==", Comparison::equal},      {"!=", Comparison::not_equal}, {"<", Comparison::less},
      {"<=", Comparison::less_equal}, {">", Comparison::greater},    {">=", Comparison::greater_equal}};
  const int line = current().line;
  std::vector<ExpressionPtr> parts = one(sum());
  std::vector<Comparison> operators;
  while (true) {
    const auto found = current().type == TokenType::op ? kOperators.find(current().text) : kOperators.end();
    if (found != kOperators.end()) {
      next();
      operators.push_back(found->second);
    } else if (skip_name("in")) {
      operators.push_back(Comparison::in);
    } else if (is_name("not") && ahead().type == TokenType::name && ahead().text == "in") {
      next();
      next();
      operators.push_back(Comparison::not_in);
    } else {
      break;
    }
    parts.push_back(sum());
  }
  if (operators.empty()) return std::move(parts[0]);
  ExpressionPtr result = node(Op::compare, line, std::move(parts));
  result->operators = std::move(operators);
  return result;
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = concat();
  while (is_op("+") || is_op("-")) {
    const Op op = is_op("+") ? Op::add : Op::subtract;
    const int line = next().line;
    left = node(op, line, pair_of(std::move(left), concat()));
  }
  return left;
}

ExpressionPtr ExpressionParser::concat() {
  const int line = current().line;
  std::vector<ExpressionPtr> parts = one(product());
  while (skip_op("~")) parts.push_back(product());
  if (parts.size() == 1) return std::move(parts[0]);
  return node(Op::concat, line, std::move(parts));
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = power();
  while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
    const Op op = is_op("*") ? Op::multiply : is_op("/") ? Op::divide : is_op("//") ? Op::floor_divide : Op::modulo;
    const int line = next().line;
    left = node(op, line, pair_of(std::move(left), power()));
  }
  return left;
}

ExpressionPtr ExpressionParser::power() {
  ExpressionPtr left = unary(true);
  while (is_op("**")) {
    const int line = next().line;
    left = node(Op::power, line, pair_of(std::move(left), unary(true)));
  }
  return left;
}

ExpressionPtr ExpressionParser::unary(bool with_filter) {
  const Nesting nesting(*this);
  ExpressionPtr result;
  if (is_op("-") || is_op("+")) {
    const Op op = is_op("-") ? Op::negate : Op::plus;
    const int line = next().line;
    result = node(op, line, one(unary(false)));
  } else {
    result = primary();
  }
  result = postfix(std::move(result));
  return with_filter ? filters_behind(std::move(result)) : std::move(result);
}

ExpressionPtr ExpressionParser::primary() {
  const int line = current().line;
  const auto constant = [&](Value value) {
    ExpressionPtr result = node(Op::constant, line);
    result->value = std::move(value);
    return result;
  };
  switch (current().type) {
    case TokenType::name: {
      const std::string name = next().text;
      if (name == "true" || name == "True") return constant(Value::boolean(true));
      if (name == "false" || name == "False") return constant(Value::boolean(false));
      if (name == "none" || name == "None") return constant(Value::none());
      ExpressionPtr result = node(Op::name, line);
      result->name = name;
      for (MacroCode* macro : macros_) {
        macro->uses_caller |= name == "caller";
        macro->uses_varargs |= name == "varargs";
        macro->uses_kwargs |= name == "kwargs";
      }
      return result;
    }
    case TokenType::string: {
      std::string text;
      while (current().type == TokenType::string) text += next().text;
      return constant(Value::string(std::move(text)));
    }
    case TokenType::integer: return constant(Value::integer(next().integer));
    case TokenType::real: return constant(Value::real(next().real));
    default: break;
  }
  if (is_op("[")) return list();
  if (is_op("{")) return dict();
  if (!skip_op("(")) unexpected();
  ExpressionPtr result = tuple(Inline::yes, true);
  expect_op(")");
  return result;
}

bool ExpressionParser::at_tuple_end() const {
  return current().type == TokenType::variable_end || current().type == TokenType::block_end || is_op(")");
}

ExpressionPtr ExpressionParser::tuple(Inline inline_if, bool may_be_empty) {
  const int line = current().line;
  std::vector<ExpressionPtr> parts;
  bool is_tuple = false;
  while (true) {
    if (!parts.empty()) expect_op(",");
    if (at_tuple_end()) break;
    parts.push_back(expression(inline_if));
    if (!is_op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!parts.empty()) return std::move(parts[0]);
    if (!may_be_empty) wrong("expected an expression, got " + describe(current()));
  }
  return node(Op::tuple, line, std::move(parts));
}

ExpressionPtr ExpressionParser::target_item(bool with_space) {
  const int line = current().line;
  if (skip_op("(")) {
    ExpressionPtr inner = target(with_space, "");
    expect_op(")");
    return inner;
  }
  const std::string name = expect_name();
  for (const char* constant : {"true", "false", "none", "True", "False", "None"})
    if (name == constant) wrong(fmt::format("can't assign to '{}'", name));
  ExpressionPtr result = node(Op::name, line);
  result->name = name;
  if (with_space && skip_op(".")) {
    result->op = Op::space_item;
    result->attribute = expect_name();
  }
  return result;
}

ExpressionPtr ExpressionParser::target(bool with_space, std::string_view end) {
  const Nesting nesting(*this);
  const int line = current().line;
  std::vector<ExpressionPtr> parts;
  bool is_tuple = false;
  while (true) {
    if (!parts.empty()) expect_op(",");
    if (at_tuple_end() || (!end.empty() && is_name(end)) || is_op("=")) break;
    parts.push_back(target_item(with_space));
    if (!is_op(",")) break;
    is_tuple = true;
  }
  if (parts.empty()) unexpected();
  if (!is_tuple) return std::move(parts[0]);
  return node(Op::tuple, line, std::move(parts));
}

ExpressionPtr ExpressionParser::list() {
  const int line = next().line;
  std::vector<ExpressionPtr> parts;
  while (!is_op("]")) {
    if (!parts.empty()) expect_op(",");
    if (is_op("]")) break;
    parts.push_back(expression());
  }
  expect_op("]");
  return node(Op::list, line, std::move(parts));
}

ExpressionPtr ExpressionParser::dict() {
  const int line = next().line;
  std::vector<ExpressionPtr> parts;
  while (!is_op("}")) {
    if (!parts.empty()) expect_op(",");
    if (is_op("}")) break;
    parts.push_back(expression());
    expect_op(":");
    parts.push_back(expression());
  }
  expect_op("}");
  return node(Op::dict, line, std::move(parts));
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr left) {
  while (true) {
    if (is_op(".") || is_op("[")) {
      left = subscript(std::move(left));
    } else if (is_op("(")) {
      const int line = current().line;
      CallArguments arguments = call_arguments();
      left = node(Op::call, line, one(std::move(left)));
      left->arguments = std::move(arguments);
      settle(*left);
    } else {
      return left;
    }
  }
}

ExpressionPtr ExpressionParser::filters_behind(ExpressionPtr left) {
  while (true) {
    if (skip_op("|")) {
      left = filter(std::move(left));
    } else if (skip_name("is")) {
      left = test(std::move(left));
    } else if (is_op("(")) {
      left = postfix(std::move(left));
    } else {
      return left;
    }
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr left) {
  const int line = current().line;
  if (skip_op(".")) {
    if (current().type == TokenType::integer) {
      ExpressionPtr index = node(Op::constant, line);
      index->value = Value::integer(next().integer);
      return node(Op::item, line, pair_of(std::move(left), std::move(index)));
    }
    if (current().type != TokenType::name) wrong("expected a name or a number behind '.'");
    const std::string name = next().text;
    ExpressionPtr result = node(Op::attribute, line, one(std::move(left)));
    result->name = name;
    return result;
  }
  expect_op("[");
  std::vector<ExpressionPtr> arguments;
  bool is_slice = false;
  while (!is_op("]")) {
    if (!arguments.empty()) expect_op(",");
    arguments.push_back(subscript_argument(is_slice));
  }
  expect_op("]");
  if (arguments.size() != 1 && is_slice) wrong("a slice beside other subscripts");
  if (arguments.size() == 1 && is_slice) {
    arguments[0]->parts[0] = std::move(left);
    settle(*arguments[0]);
    return std::move(arguments[0]);
  }
  ExpressionPtr index = arguments.size() == 1 ? std::move(arguments[0]) : node(Op::tuple, line, std::move(arguments));
  return node(Op::item, line, pair_of(std::move(left), std::move(index)));
}

ExpressionPtr ExpressionParser::subscript_argument(bool& is_slice) {
  const int line = current().line;
  std::vector<ExpressionPtr> bounds(4);
  if (!is_op(":")) {
    ExpressionPtr index = expression();
    if (!is_op(":")) return index;
    bounds[1] = std::move(index);
  }
  next();
  is_slice = true;
  const auto at_end = [&] { return is_op("]") || is_op(","); };
  if (!is_op(":") && !at_end()) bounds[2] = expression();
  if (skip_op(":") && !at_end()) bounds[3] = expression();
  return node(Op::slice, line, std::move(bounds));
}

CallArguments ExpressionParser::call_arguments() {
  expect_op("(");
  CallArguments result;
  bool needs_comma = false;
  const auto ensure = [&](bool right) {
    if (!right) wrong("invalid syntax for function call expression");
  };
  while (!is_op(")")) {
    if (needs_comma) {
      expect_op(",");
      if (is_op(")")) break;
    }
    if (skip_op("*")) {
      ensure(!result.star && !result.double_star);
      result.star = expression();
    } else if (skip_op("**")) {
      ensure(!result.double_star);
      result.double_star = expression();
    } else if (current().type == TokenType::name && ahead().type == TokenType::op && ahead().text == "=") {
      ensure(!result.double_star);
      const std::string name = next().text;
      next();
      for (const auto& [other, value] : result.named) ensure(other != name);
      result.named.emplace_back(name, expression());
    } else {
      ensure(!result.star && !result.double_star && result.named.empty());
      result.positional.push_back(expression());
    }
    needs_comma = true;
  }
  expect_op(")");
  return result;
}

ExpressionPtr ExpressionParser::filter(ExpressionPtr left) {
  const int line = current().line;
  const std::string name = expect_name();
  ExpressionPtr result = node(Op::filter, line, one(std::move(left)));
  result->name = name;
  result->filter = find_filter(name);
  if (result->filter == nullptr) problem("line {}: there is no filter '{}'", line, name.substr(0, 40));
  if (is_op("(")) result->arguments = call_arguments();
  settle(*result);
  return result;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr left) {
  const int line = current().line;
  const bool is_negated = skip_name("not");
  const std::string name = expect_name();
  ExpressionPtr result = node(Op::test, line, one(std::move(left)));
  result->name = name;
  result->test = find_test(name);
  if (result->test == nullptr) problem("line {}: there is no test '{}'", line, name.substr(0, 40));
  const bool is_argument = current().type == TokenType::string || current().type == TokenType::integer ||
                           current().type == TokenType::real || is_op("[") || is_op("{") ||
                           (current().type == TokenType::name && !is_name("else") && !is_name("or") && !is_name("and"));
  if (is_op("(")) {
    result->arguments = call_arguments();
  } else if (is_argument) {
    if (is_name("is")) wrong("You cannot chain multiple tests with is");
    result->arguments.positional.push_back(postfix(primary()));
  }
  settle(*result);
  return is_negated ? node(Op::logical_not, line, one(std::move(result))) : std::move(result);
}

}  // namespace llmfp8::jinja
