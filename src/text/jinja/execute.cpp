// Statements of a template: what they write, set and repeat. Called by Template.
#include <algorithm>

#include "text/jinja/interpreter.h"
#include "text/jinja/problem.h"

namespace llmfp8::jinja {

namespace {

struct Macro : FunctionObject {
  const MacroCode* code = nullptr;
  ScopePtr scope;
  Value call(Interpreter& run, Arguments& arguments) override { return run.call_macro(*code, scope, arguments); }
};

Value macro_value(const MacroCode& code, const ScopePtr& scope) {
  auto macro = std::make_shared<Macro>();
  macro->name = code.name;
  macro->code = &code;
  macro->scope = scope;
  return Value::of(Kind::function, std::move(macro));
}

}  // namespace

// A scope inside the present one, or inside another.
class Interpreter::Inside {
 public:
  explicit Inside(Interpreter& run) : Inside(run, run.scope_) {}
  Inside(Interpreter& run, ScopePtr parent) : run_(run), outer_(std::move(run.scope_)) {
    run_.scope_ = std::make_shared<Scope>();
    run_.scope_->parent = parent ? std::move(parent) : outer_;
  }
  ~Inside() { run_.scope_ = std::move(outer_); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  Interpreter& run_;
  ScopePtr outer_;
};

Interpreter::~Interpreter() {
  for (const Value& space : namespaces_) space.as<NamespaceObject>().entries.clear();
  for (const ScopePtr& scope : kept_scopes_) scope->names.clear();
}

void Interpreter::charge(std::size_t steps) {
  steps_ += steps;
  if (steps_ > kLimits.steps) problem("the template does more than {} steps", kLimits.steps);
}

void Interpreter::keep(const ScopePtr& scope) {
  charge(16);
  kept_scopes_.push_back(scope);
}

Rendered Interpreter::run(Entries variables) {
  scope_ = std::make_shared<Scope>();
  for (auto& [name, value] : variables) scope_->names.emplace_back(name.text(), std::move(value));
  keep(scope_);
  Inside inside(*this);
  keep(scope_);
  run_block(body_);
  return Rendered{std::move(root_), std::move(generated_)};
}

void Interpreter::write(std::string_view text) {
  charge(1 + text.size() / 8);
  if (out_->size() + text.size() > kLimits.text_bytes) problem("the text is longer than {} bytes", kLimits.text_bytes);
  *out_ += text;
}

Interpreter::Flow Interpreter::run_block(const Block& block) {
  for (const auto& statement : block) {
    line_ = statement->line;
    const Flow flow = run_statement(*statement);
    if (flow != Flow::on) return flow;
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::run_statement(const Statement& statement) {
  charge(1);
  switch (statement.action) {
    case Action::text: write(statement.text); break;
    case Action::print: write(str(evaluate(*statement.value))); break;
    case Action::loop: return run_loop(statement, evaluate(*statement.value), 0);
    case Action::branch: return run_branch(statement);
    case Action::set:
    case Action::set_block: run_set(statement); break;
    case Action::with: {
      Values values;
      for (const auto& [name, value] : statement.assignments) values.push_back(evaluate(*value));
      const Inside inside(*this);
      for (std::size_t i = 0; i < values.size(); ++i) assign(*statement.assignments[i].first, values[i]);
      return run_block(statement.body);
    }
    case Action::macro: run_macro(statement); break;
    case Action::call_block: run_call_block(statement); break;
    case Action::filter: {
      const Value input = text(captured(statement.body));
      write(str(evaluate_filter(*statement.value, &input)));
      break;
    }
    case Action::generation: run_generation(statement); break;
    case Action::break_loop: return Flow::broken;
    case Action::continue_loop: return Flow::next;
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::run_branch(const Statement& statement) {
  for (const auto& [condition, body] : statement.branches)
    if (truth(evaluate(*condition))) return run_block(body);
  return run_block(statement.otherwise);
}

std::string Interpreter::captured(const Block& block) {
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  const Inside inside(*this);
  run_block(block);
  out_ = outer;
  return text;
}

void Interpreter::run_set(const Statement& statement) {
  if (statement.action == Action::set) return assign(*statement.target, evaluate(*statement.value));
  Value value = text(captured(statement.body));
  if (statement.value) value = evaluate_filter(*statement.value, &value);
  assign(*statement.target, value);
}

void Interpreter::run_macro(const Statement& statement) {
  keep(scope_);
  assign(statement.macro.name, macro_value(statement.macro, scope_));
}

void Interpreter::run_call_block(const Statement& statement) {
  const Expression& call_of = *statement.value;
  const Value function = evaluate(*call_of.parts[0]);
  Arguments arguments;
  evaluate_arguments(call_of.arguments, arguments);
  keep(scope_);
  for (const auto& [name, value] : arguments.named)
    if (name == "caller") problem("two values for the argument 'caller'");
  arguments.named.emplace_back("caller", macro_value(statement.macro, scope_));
  write(str(call(function, arguments)));
}

void Interpreter::run_generation(const Statement& statement) {
  const std::string text = captured(statement.body);
  const bool at_root = out_ == &root_;
  const std::size_t begin = out_->size();
  write(text);
  if (at_root) generated_.push_back({begin, out_->size()});
}

std::optional<Value> Interpreter::pull_item(LoopObject& loop) {
  while (loop.at < loop.items.size()) {
    charge(1);
    Value item = loop.items[loop.at++];
    if (!loop.statement->condition) return item;
    const Inside inside(*this, loop.outer);
    assign(*loop.statement->target, item);
    if (truth(evaluate(*loop.statement->condition))) return item;
  }
  return std::nullopt;
}

std::optional<Value> Interpreter::next_item(LoopObject& loop) {
  std::optional<Value> item;
  if (!loop.pending.empty()) {
    item = std::move(loop.pending.front());
    loop.pending.pop_front();
  } else {
    item = pull_item(loop);
  }
  if (!item) return item;
  if (++loop.index0 > 0) {
    loop.previous = std::move(loop.current);
    loop.has_previous = true;
  }
  loop.current = *item;
  return item;
}

const Value* Interpreter::peek_item(LoopObject& loop) {
  if (loop.pending.empty())
    if (std::optional<Value> item = pull_item(loop)) loop.pending.push_back(std::move(*item));
  return loop.pending.empty() ? nullptr : &loop.pending.front();
}

std::int64_t Interpreter::loop_length(LoopObject& loop) {
  while (std::optional<Value> item = pull_item(loop)) loop.pending.push_back(std::move(*item));
  return loop.index0 + 1 + std::ssize(loop.pending);
}

Interpreter::Flow Interpreter::run_loop(const Statement& statement, const Value& iterable, std::int64_t depth0) {
  const auto loop = std::make_shared<LoopObject>();
  loop->statement = &statement;
  loop->items = iterate(iterable);
  charge(loop->items.size());
  loop->depth0 = depth0;
  for (const Value& item : loop->items) loop->depth = std::max(loop->depth, item.depth() + 1);
  if (loop->depth > kLimits.value_depth) problem("values are nested deeper than {} levels", kLimits.value_depth);
  if (statement.condition || statement.is_recursive) {
    loop->outer = scope_;
    keep(scope_);
  }
  while (std::optional<Value> item = next_item(*loop)) {
    const Inside inside(*this);
    scope_->names.emplace_back("loop", Value::of(Kind::loop, loop));
    assign(*statement.target, *item);
    if (run_block(statement.body) == Flow::broken) return Flow::on;
    line_ = statement.line;
  }
  if (loop->index0 >= 0) return Flow::on;
  const Inside inside(*this);
  return run_block(statement.otherwise);
}

Value Interpreter::call_loop(LoopObject& loop, Arguments& arguments) {
  const Bound bound(arguments, "loop", {"iterable"}, 1);
  if (!loop.statement->is_recursive) problem("the loop must have the 'recursive' marker to be called");
  if (depth_ + 10 > kLimits.evaluation_depth)
    problem("loops are called deeper than {} levels", kLimits.evaluation_depth);
  depth_ += 10;
  std::string text_of_loop;
  std::string* outer = std::exchange(out_, &text_of_loop);
  {
    const Inside inside(*this, loop.outer);
    run_loop(*loop.statement, bound[0], loop.depth0 + 1);
  }
  out_ = outer;
  depth_ -= 10;
  return text(std::move(text_of_loop));
}

Value Interpreter::call_macro(const MacroCode& code, const ScopePtr& scope, Arguments& arguments) {
  // A macro's body has statements around its expressions.
  constexpr int kDepth = 10;
  if (depth_ + kDepth > kLimits.evaluation_depth)
    problem("macros are called deeper than {} levels", kLimits.evaluation_depth / kDepth);
  depth_ += kDepth;
  const int line = line_;
  const Inside inside(*this, scope);
  const auto take = [&](const std::string& name) -> std::optional<Value> {
    for (auto it = arguments.named.begin(); it != arguments.named.end(); ++it) {
      if (it->first != name) continue;
      Value value = std::move(it->second);
      arguments.named.erase(it);
      return value;
    }
    return std::nullopt;
  };
  for (std::size_t i = 0; i < code.parameters.size(); ++i) {
    const Parameter& parameter = code.parameters[i];
    if (i < arguments.positional.size()) {
      assign(parameter.name, arguments.positional[i]);
    } else if (std::optional<Value> value = take(parameter.name)) {
      assign(parameter.name, std::move(*value));
    } else if (parameter.fallback) {
      assign(parameter.name, evaluate(*parameter.fallback));
    } else {
      assign(parameter.name, Value::undefined(fmt::format("parameter '{}' was not provided", parameter.name)));
    }
  }
  const std::size_t count = code.parameters.size();
  const auto is_parameter = [&](const char* name) {
    return std::any_of(code.parameters.begin(), code.parameters.end(),
                       [&](const Parameter& p) { return p.name == name; });
  };
  if (code.uses_caller && !is_parameter("caller")) {
    std::optional<Value> caller = take("caller");
    assign("caller", caller ? std::move(*caller) : Value::undefined("No caller defined"));
  }
  if (code.uses_kwargs) {
    Entries rest;
    for (auto& [name, value] : arguments.named) rest.emplace_back(text(name), std::move(value));
    assign("kwargs", Value::dict(std::move(rest)));
  } else if (!arguments.named.empty()) {
    problem("macro '{}' takes no keyword argument '{}'", code.name, arguments.named.front().first);
  }
  if (code.uses_varargs) {
    Values rest;
    for (std::size_t i = count; i < arguments.positional.size(); ++i) rest.push_back(arguments.positional[i]);
    assign("varargs", Value::tuple(std::move(rest)));
  } else if (arguments.positional.size() > count) {
    problem("macro '{}' takes not more than {} argument(s)", code.name, count);
  }
  std::string written;
  std::string* outer = std::exchange(out_, &written);
  run_block(code.body);
  out_ = outer;
  depth_ -= kDepth;
  line_ = line;
  return text(std::move(written));
}

}  // namespace llmfp8::jinja
