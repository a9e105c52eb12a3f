// What a template can call by name: filters, tests, global functions, and the methods of Python's types. Called by the
// parser, which finds them once, and by the interpreter.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/value.h"

namespace llmfp8::jinja {

struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;
};

// The arguments of a call by the names of its parameters. Throws Problem: too many, an unknown name, one twice, or
// fewer than `required`.
class Bound {
 public:
  Bound(const Arguments& arguments, std::string_view function, std::initializer_list<std::string_view> names,
        std::size_t required = 0);
  bool has(std::size_t i) const { return given_[i]; }
  const Value& operator[](std::size_t i) const { return values_[i]; }
  std::string text(std::size_t i, std::string_view otherwise) const {
    return given_[i] ? str(values_[i]) : std::string(otherwise);
  }
  std::int64_t whole(std::size_t i, std::int64_t otherwise) const;
  bool flag(std::size_t i, bool otherwise) const { return given_[i] ? truth(values_[i]) : otherwise; }

 private:
  Values values_;
  std::vector<bool> given_;
};

using Function = Value (*)(Interpreter&, Arguments&);
using Method = Value (*)(Interpreter&, const Value& self, Arguments&);
template <typename T>
using Table = std::map<std::string_view, T>;

Filter find_filter(std::string_view name);  // null: there is none
Test find_test(std::string_view name);
// Null: there is none. Throws Problem for one that would change the value, which the sandbox forbids.
Method find_method(const Value& self, std::string_view name);
bool is_forbidden_method(const Value& self, std::string_view name);

const Table<Filter>& text_filters();
const Table<Filter>& list_filters();
const Table<Method>& string_methods();
const Table<Function>& global_functions();

// a + b and the others, as Python has them.
Value add(Interpreter& run, const Value& left, const Value& right);
Value arithmetic(Interpreter& run, Op op, const Value& left, const Value& right);
Value negate(const Value& value);
Value slice(Interpreter& run, const Value& value, const Value& start, const Value& stop, const Value& step);
// "…" % values, and "…".format(…).
std::string percent_format(Interpreter& run, const std::string& format, const Value& values);
std::string brace_format(Interpreter& run, const std::string& format, const Arguments& arguments);
std::string escaped(std::string_view text);  // as HTML
Value rounded(const Value& value, std::int64_t digits, bool to_whole);

}  // namespace llmfp8::jinja
