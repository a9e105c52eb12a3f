// Expressions of a template: names, attributes, calls, comparisons. Called by the statements.
#include <algorithm>

#include "text/jinja/code_points.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/problem.h"

namespace llmfp8::jinja {

namespace {

struct BoundMethod : FunctionObject {
  Value self;
  Method method = nullptr;
  Value call(Interpreter& run, Arguments& arguments) override { return method(run, self, arguments); }
};

struct GlobalFunction : FunctionObject {
  Function function = nullptr;
  Value call(Interpreter& run, Arguments& arguments) override { return function(run, arguments); }
};

Value bound_method(const Value& self, std::string_view name, Method method) {
  auto bound = std::make_shared<BoundMethod>();
  bound->name = name;
  bound->self = self;
  bound->method = method;
  bound->depth = self.depth() + 1;
  if (bound->depth > kLimits.value_depth) problem("values are nested deeper than {} levels", kLimits.value_depth);
  return Value::of(Kind::function, std::move(bound));
}

}  // namespace

Value Interpreter::text(std::string text, bool markup) {
  charge(1 + text.size() / 8);
  return Value::string(std::move(text), markup);
}

Value Interpreter::list(Values items) {
  charge(1 + 4 * items.size());
  return Value::list(std::move(items));
}

Value Interpreter::lookup(const std::string& name) {
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get())
    for (auto it = scope->names.rbegin(); it != scope->names.rend(); ++it)
      if (it->first == name) return it->second;
  const auto found = global_functions().find(name);
  if (found == global_functions().end() || (name == "strftime_now" && !options_.has_clock))
    return Value::undefined(fmt::format("'{}' is undefined", name.substr(0, 60)));
  auto function = std::make_shared<GlobalFunction>();
  function->name = name;
  function->function = found->second;
  return Value::of(Kind::function, std::move(function));
}

void Interpreter::assign(const std::string& name, Value value) {
  charge(1);
  for (auto& [known, old] : scope_->names) {
    if (known != name) continue;
    old = std::move(value);
    return;
  }
  scope_->names.emplace_back(name, std::move(value));
}

void Interpreter::assign(const Expression& target, const Value& value) {
  if (target.op == Op::name) return assign(target.name, value);
  if (target.op == Op::space_item) {
    const Value space = lookup(target.name);
    if (!space.is(Kind::space)) problem("cannot assign attribute on non-namespace object");
    return set_namespace_item(space, target.attribute, value);
  }
  const Values items = iterate(value);
  charge(items.size());
  if (items.size() != target.parts.size())
    problem("{} values to unpack, {} names stand there", items.size(), target.parts.size());
  for (std::size_t i = 0; i < items.size(); ++i) assign(*target.parts[i], items[i]);
}

Value Interpreter::make_namespace(Entries entries) {
  charge(16);
  auto object = std::make_shared<NamespaceObject>();
  Value space = Value::of(Kind::space, std::move(object));
  namespaces_.push_back(space);
  for (auto& [name, value] : entries) {
    if (!name.is_string()) problem("namespace: a name is no string");
    set_namespace_item(space, name.text(), std::move(value));
  }
  return space;
}

void Interpreter::set_namespace_item(const Value& space, const std::string& name, Value value) {
  if (name.starts_with('_')) problem("a name of a namespace begins with '_': '{}'", name.substr(0, 60));
  charge(4);
  Entries& entries = space.as<NamespaceObject>().entries;
  for (auto& [known, old] : entries) {
    if (known.text() != name) continue;
    old = std::move(value);
    return;
  }
  entries.emplace_back(Value::string(name), std::move(value));
}

Value Interpreter::call(const Value& function, Arguments& arguments) {
  charge(1);
  if (function.is_undefined()) problem("{}", function.why());
  if (function.is(Kind::function)) {
    // A copy keeps the function alive: its body may set the name that holds it.
    const Value held = function;
    return held.as<FunctionObject>().call(*this, arguments);
  }
  if (function.is(Kind::loop)) {
    const Value held = function;
    return call_loop(held.as<LoopObject>(), arguments);
  }
  if (function.is(Kind::joiner) || function.is(Kind::cycler)) {
    const Value method = attribute(function, "__call__");
    if (method.is(Kind::function)) return method.as<FunctionObject>().call(*this, arguments);
  }
  problem("'{}' object is not callable", type_name(function));
}

Value Interpreter::loop_attribute(const Value& value, const std::string& name, bool& found) {
  auto& loop = value.as<LoopObject>();
  found = true;
  if (name == "index") return Value::integer(loop.index0 + 1);
  if (name == "index0") return Value::integer(loop.index0);
  if (name == "first") return Value::boolean(loop.index0 == 0);
  if (name == "last") return Value::boolean(peek_item(loop) == nullptr);
  if (name == "length") return Value::integer(loop_length(loop));
  if (name == "revindex") return Value::integer(loop_length(loop) - loop.index0);
  if (name == "revindex0") return Value::integer(loop_length(loop) - loop.index0 - 1);
  if (name == "depth") return Value::integer(loop.depth0 + 1);
  if (name == "depth0") return Value::integer(loop.depth0);
  if (name == "previtem") return loop.has_previous ? loop.previous : Value::undefined("there is no previous item");
  if (name == "nextitem") {
    const Value* next = peek_item(loop);
    return next != nullptr ? *next : Value::undefined("there is no next item");
  }
  found = false;
  return {};
}

Value Interpreter::real_attribute(const Value& object, const std::string& name, bool& found) {
  found = true;
  if (object.is(Kind::loop)) {
    Value value = loop_attribute(object, name, found);
    if (found) return value;
    found = true;
  }
  if (object.is(Kind::space)) {
    for (const auto& [known, value] : object.as<NamespaceObject>().entries)
      if (known.text() == name) return value;
  }
  if (object.is(Kind::tuple) && object.as<SequenceObject>().name == "group") {
    if (name == "grouper") return object.items()[0];
    if (name == "list") return object.items()[1];
  }
  if (object.is(Kind::function) && name == "name") return text(object.as<FunctionObject>().name);
  if (is_forbidden_method(object, name))
    return Value::undefined(fmt::format("access to attribute '{}' of '{}' object is unsafe", name, type_name(object)));
  if (const Method method = find_method(object, name)) return bound_method(object, name, method);
  found = false;
  return {};
}

Value Interpreter::attribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) problem("{}", object.why());
  bool found = false;
  Value value = real_attribute(object, name, found);
  if (found) return value;
  if (object.is(Kind::dict))
    if (const Value* entry = object.find(name)) return *entry;
  return Value::undefined(fmt::format("'{} object' has no attribute '{}'", type_name(object), name.substr(0, 60)));
}

Value Interpreter::item(const Value& object, const Value& key) {
  if (object.is_undefined()) problem("{}", object.why());
  const auto at = [&](std::int64_t size) -> std::optional<std::int64_t> {
    if (!key.is_whole()) return std::nullopt;
    const std::int64_t index = key.whole() < 0 ? key.whole() + size : key.whole();
    return index >= 0 && index < size ? std::optional(index) : std::nullopt;
  };
  switch (object.kind()) {
    case Kind::dict:
      if (key.is(Kind::list) || key.is(Kind::dict)) break;
      charge(object.entries().size() / 8);
      if (const Value* found = object.find(key)) return *found;
      break;
    case Kind::list:
    case Kind::tuple:
      if (const auto index = at(std::ssize(object.items()))) return object.items()[static_cast<std::size_t>(*index)];
      break;
    case Kind::range:
      if (const auto index = at(object.as<RangeObject>().size)) return object.as<RangeObject>().at(*index);
      break;
    case Kind::string:
      if (key.is_whole()) {
        charge(object.text().size() / 8);
        if (const auto index = at(length(object))) {
          const std::size_t byte = byte_offset(object.text(), *index);
          return text(object.text().substr(byte, code_point_bytes(object.text(), byte)), object.is_markup());
        }
      }
      break;
    default: break;
  }
  if (key.is_string()) {
    bool found = false;
    Value value = real_attribute(object, key.text(), found);
    if (found) return value;
  }
  const std::string named = key.is_string() || key.is_number() ? repr(key).substr(0, 60) : std::string(type_name(key));
  return Value::undefined(fmt::format("'{} object' has no attribute {}", type_name(object), named));
}

// Counts how deep evaluation has called itself.
class Interpreter::Deeper {
 public:
  explicit Deeper(Interpreter& run) : run_(run) {
    if (++run_.depth_ > kLimits.evaluation_depth) {
      --run_.depth_;
      problem("evaluation is nested deeper than {} levels", kLimits.evaluation_depth);
    }
  }
  ~Deeper() { --run_.depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;

 private:
  Interpreter& run_;
};

Value Interpreter::evaluate(const Expression& expression) {
  if (expression.op == Op::constant) return expression.value;
  const Deeper deeper(*this);
  charge(1);
  line_ = expression.line;
  return evaluate_unguarded(expression);
}

Value Interpreter::evaluate_unguarded(const Expression& e) {
  const auto part = [&](std::size_t i) { return evaluate(*e.parts[i]); };
  switch (e.op) {
    case Op::constant: return e.value;
    case Op::name: return lookup(e.name);
    case Op::list: return list(evaluate_all(e.parts));
    case Op::tuple: charge(4 * e.parts.size()); return Value::tuple(evaluate_all(e.parts));
    case Op::dict: return evaluate_dict(e);
    case Op::attribute: return attribute(part(0), e.name);
    case Op::item: {
      const Value object = part(0);
      return item(object, part(1));
    }
    case Op::slice: {
      const Value object = part(0);
      const auto bound = [&](std::size_t i) { return e.parts[i] ? evaluate(*e.parts[i]) : Value::none(); };
      const Value start = bound(1), stop = bound(2), step = bound(3);
      return slice(*this, object, start, stop, step);
    }
    case Op::call: return evaluate_call(e);
    case Op::filter: return evaluate_filter(e, nullptr);
    case Op::test: {
      const Value input = part(0);
      Arguments arguments;
      evaluate_arguments(e.arguments, arguments);
      return Value::boolean(e.test(*this, input, arguments));
    }
    case Op::negate: return negate(part(0));
    case Op::plus: {
      const Value value = part(0);
      if (!value.is_number()) problem("bad operand type for unary +: '{}'", type_name(value));
      return value.is(Kind::boolean) ? Value::integer(value.whole()) : value;
    }
    case Op::logical_not: return Value::boolean(!truth(part(0)));
    case Op::add:
    case Op::subtract:
    case Op::multiply:
    case Op::divide:
    case Op::floor_divide:
    case Op::modulo:
    case Op::power: {
      const Value left = part(0), right = part(1);
      return e.op == Op::add ? add(*this, left, right) : arithmetic(*this, e.op, left, right);
    }
    case Op::concat: return evaluate_concat(e);
    case Op::logical_and: {
      Value left = part(0);
      return truth(left) ? part(1) : left;
    }
    case Op::logical_or: {
      Value left = part(0);
      return truth(left) ? left : part(1);
    }
    case Op::compare: return evaluate_comparison(e);
    case Op::condition:
      if (truth(part(0))) return part(1);
      if (e.parts[2]) return part(2);
      return Value::undefined("the inline if-expression evaluated to false and no else section was defined");
    case Op::space_item: break;
  }
  problem("an expression that cannot be evaluated");
}

Values Interpreter::evaluate_all(const std::vector<ExpressionPtr>& parts) {
  Values values;
  values.reserve(parts.size());
  for (const ExpressionPtr& part : parts) values.push_back(evaluate(*part));
  return values;
}

Value Interpreter::evaluate_dict(const Expression& e) {
  Entries entries;
  for (std::size_t i = 0; i < e.parts.size(); i += 2) {
    Value key = evaluate(*e.parts[i]);
    entries.emplace_back(std::move(key), evaluate(*e.parts[i + 1]));
  }
  charge(entries.size() * (4 + entries.size() / 8));
  return Value::dict(std::move(entries));
}

Value Interpreter::evaluate_concat(const Expression& e) {
  std::string joined;
  for (const ExpressionPtr& part : e.parts) {
    joined += str(evaluate(*part));
    if (joined.size() > kLimits.text_bytes) problem("a text of more than {} bytes", kLimits.text_bytes);
  }
  return text(std::move(joined));
}

void Interpreter::evaluate_arguments(const CallArguments& from, Arguments& to) {
  to.positional = evaluate_all(from.positional);
  for (const auto& [name, value] : from.named) to.named.emplace_back(name, evaluate(*value));
  if (from.star) {
    const Values more = iterate(evaluate(*from.star));
    charge(more.size());
    to.positional.insert(to.positional.end(), more.begin(), more.end());
  }
  if (from.double_star) {
    const Value more = evaluate(*from.double_star);
    if (!more.is(Kind::dict)) problem("argument after ** must be a mapping, not {}", type_name(more));
    charge(more.entries().size());
    for (const auto& [name, value] : more.entries()) {
      if (!name.is_string()) problem("keywords must be strings");
      for (const auto& [other, given] : to.named)
        if (other == name.text()) problem("multiple values for keyword argument '{}'", other);
      to.named.emplace_back(name.text(), value);
    }
  }
}

Value Interpreter::evaluate_call(const Expression& e) {
  const Value function = evaluate(*e.parts[0]);
  Arguments arguments;
  evaluate_arguments(e.arguments, arguments);
  line_ = e.line;
  return call(function, arguments);
}

Value Interpreter::evaluate_filter(const Expression& e, const Value* input) {
  if (e.op != Op::filter) problem("a filter is wanted");
  const Value value =
      e.parts[0] ? (input != nullptr ? evaluate_filter(*e.parts[0], input) : evaluate(*e.parts[0])) : *input;
  Arguments arguments;
  evaluate_arguments(e.arguments, arguments);
  line_ = e.line;
  return e.filter(*this, value, arguments);
}

bool Interpreter::compare_values(Comparison op, const Value& left, const Value& right) {
  if (left.is_string() && right.is_string())
    charge(std::min(left.text().size(), right.text().size()) / 64);
  else
    charge(std::min(left.weight(), right.weight()));
  switch (op) {
    case Comparison::equal: return equal(left, right);
    case Comparison::not_equal: return !equal(left, right);
    case Comparison::less: return compare(left, right, "<") < 0;
    case Comparison::less_equal: return compare(left, right, "<=") <= 0;
    case Comparison::greater: return compare(left, right, ">") > 0;
    case Comparison::greater_equal: return compare(left, right, ">=") >= 0;
    case Comparison::in:
    case Comparison::not_in:
      if (right.is_string())
        charge(right.text().size() / 64);
      else
        charge(right.weight());
      return contains(right, left) == (op == Comparison::in);
  }
  return false;
}

Value Interpreter::evaluate_comparison(const Expression& e) {
  Value left = evaluate(*e.parts[0]);
  for (std::size_t i = 0; i < e.operators.size(); ++i) {
    Value right = evaluate(*e.parts[i + 1]);
    if (!compare_values(e.operators[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::filter(const std::string& name, const Value& input, Arguments& arguments) {
  const Filter found = find_filter(name);
  if (found == nullptr) problem("there is no filter '{}'", name.substr(0, 60));
  charge(1);
  return found(*this, input, arguments);
}

bool Interpreter::test(const std::string& name, const Value& input, Arguments& arguments) {
  const Test found = find_test(name);
  if (found == nullptr) problem("there is no test '{}'", name.substr(0, 60));
  charge(1);
  return found(*this, input, arguments);
}

}  // namespace llmfp8::jinja
