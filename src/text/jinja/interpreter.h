// Runs a parsed template. One object renders once. Called by Template; filters and methods call it back.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/filters.h"
#include "text/jinja/template.h"

namespace llmfp8::jinja {

struct Scope {
  std::vector<std::pair<std::string, Value>> names;
  std::shared_ptr<Scope> parent;
};
using ScopePtr = std::shared_ptr<Scope>;

struct FunctionObject : Object {
  std::string name;
  virtual Value call(Interpreter& run, Arguments& arguments) = 0;
};

// The variable `loop`, which hands out the items too: a filtered loop looks at its condition when an item is wanted.
struct LoopObject : Object {
  const Statement* statement = nullptr;
  ScopePtr outer;  // where a condition or a recursive loop needs it
  Values items;
  std::size_t at = 0;
  std::deque<Value> pending;  // looked at, not handed out yet
  std::int64_t index0 = -1, depth0 = 0;
  Value current, previous;
  bool has_previous = false;
  std::optional<Value> last_changed;
};

class Interpreter {
 public:
  Interpreter(const RenderOptions& options, const Block& body) : options_(options), body_(body) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // Throws Problem; line() tells where.
  Rendered run(Entries variables);
  int line() const { return line_; }
  const RenderOptions& options() const { return options_; }

  // Counts work; throws Problem beyond the limit.
  void charge(std::size_t steps);
  Value text(std::string text, bool markup = false);
  Value list(Values items);
  Value call(const Value& function, Arguments& arguments);
  Value attribute(const Value& object, const std::string& name);  // object.name
  Value item(const Value& object, const Value& key);              // object[key]
  Value filter(const std::string& name, const Value& input, Arguments& arguments);
  bool test(const std::string& name, const Value& input, Arguments& arguments);
  Value make_namespace(Entries entries);
  void set_namespace_item(const Value& space, const std::string& name, Value value);
  Value call_macro(const MacroCode& code, const ScopePtr& scope, Arguments& arguments);
  Value call_loop(LoopObject& loop, Arguments& arguments);
  std::optional<Value> next_item(LoopObject& loop);
  const Value* peek_item(LoopObject& loop);
  std::int64_t loop_length(LoopObject& loop);

 private:
  enum class Flow { on, broken, next };
  class Deeper;
  class Inside;

  Flow run_block(const Block& block);
  Flow run_statement(const Statement& statement);
  Flow run_branch(const Statement& statement);
  void run_set(const Statement& statement);
  void run_macro(const Statement& statement);
  void run_call_block(const Statement& statement);
  void run_generation(const Statement& statement);
  Flow run_loop(const Statement& statement, const Value& iterable, std::int64_t depth0);
  std::optional<Value> pull_item(LoopObject& loop);
  std::string captured(const Block& block);  // what a block writes, in a scope of its own
  void write(std::string_view text);

  Value evaluate(const Expression& expression);
  Value evaluate_unguarded(const Expression& expression);
  Value evaluate_call(const Expression& expression);
  Value evaluate_filter(const Expression& expression, const Value* input);
  Value evaluate_comparison(const Expression& expression);
  Value evaluate_dict(const Expression& expression);
  Value evaluate_concat(const Expression& expression);
  Values evaluate_all(const std::vector<ExpressionPtr>& parts);
  bool compare_values(Comparison op, const Value& left, const Value& right);
  void evaluate_arguments(const CallArguments& from, Arguments& to);
  Value loop_attribute(const Value& loop, const std::string& name, bool& found);
  Value real_attribute(const Value& object, const std::string& name, bool& found);

  Value lookup(const std::string& name);
  void assign(const std::string& name, Value value);
  void assign(const Expression& target, const Value& value);
  void keep(const ScopePtr& scope);

  const RenderOptions& options_;
  const Block& body_;
  ScopePtr scope_;
  std::string root_;
  std::string* out_ = &root_;
  std::vector<Span> generated_;
  std::size_t steps_ = 0;
  int depth_ = 0;
  int line_ = 1;
  // What may refer to itself is taken apart at the end.
  std::vector<ScopePtr> kept_scopes_;
  std::vector<Value> namespaces_;
};

}  // namespace llmfp8::jinja
