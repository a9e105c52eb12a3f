// A parsed template. Made by the parser, walked by the interpreter; never changed once it is made.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace llmfp8::jinja {

class Interpreter;
struct Arguments;
using Filter = Value (*)(Interpreter&, const Value& input, Arguments&);
using Test = bool (*)(Interpreter&, const Value& input, Arguments&);

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr star, double_star;
};

enum class Op {
  constant,  // value
  name,      // name
  list,
  tuple,      // parts
  dict,       // parts: key, value, key, value …
  attribute,  // parts[0].name
  item,       // parts[0][parts[1]]
  slice,      // parts[0][parts[1]:parts[2]:parts[3]], each of which may be null
  call,       // parts[0](arguments)
  filter,     // parts[0] | name(arguments); parts[0] may be null: the text of a filter block
  test,       // parts[0] is name(arguments)
  negate,
  plus,
  logical_not,
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  concat,  // parts
  logical_and,
  logical_or,
  compare,     // parts[0] operators[0] parts[1] operators[1] parts[2] …
  condition,   // parts[1] if parts[0] else parts[2]; parts[2] may be null
  space_item,  // target of `set`: name.text
};

enum class Comparison { equal, not_equal, less, less_equal, greater, greater_equal, in, not_in };

struct Expression {
  Op op = Op::constant;
  int line = 1;
  int depth = 1;
  Value value;
  std::string name, attribute;
  std::vector<ExpressionPtr> parts;
  std::vector<Comparison> operators;
  CallArguments arguments;
  Filter filter = nullptr;
  Test test = nullptr;
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

enum class Action {
  text,        // text
  print,       // value
  loop,        // for target in value [if condition]: body, otherwise
  branch,      // branches, otherwise
  set,         // target = value
  set_block,   // target = body [| value]
  with,        // names = values: body
  macro,       // macro
  call_block,  // value is the call, macro its caller
  filter,      // body | value
  generation,  // body
  break_loop,
  continue_loop,
};

struct Parameter {
  std::string name;
  ExpressionPtr fallback;  // may be null
};

struct MacroCode {
  std::string name;
  std::vector<Parameter> parameters;
  Block body;
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
};

struct Statement {
  Action action = Action::text;
  int line = 1;
  std::string text;
  ExpressionPtr target, value, condition;
  Block body, otherwise;
  std::vector<std::pair<ExpressionPtr, Block>> branches;
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> assignments;  // of `with`
  bool is_recursive = false;
  MacroCode macro;
};

}  // namespace llmfp8::jinja
