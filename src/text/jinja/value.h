// Values of a chat template as Python has them: numbers, strings, containers in insertion order, and the objects that
// jinja2 adds. Called by the interpreter and its filters. All but namespaces, loops, cyclers and generators never
// change.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "text/jinja/problem.h"

namespace llmfp8::jinja {

enum class Kind {
  undefined,
  none,
  boolean,
  integer,
  real,
  string,
  list,
  tuple,
  dict,
  range,
  view,       // of a dict: keys(), values(), items()
  generator,  // what map, select … give: it can be walked through once, and has no length
  space,      // namespace()
  function,   // of the language, a method bound to its object, a macro
  loop,       // the variable `loop`
  cycler,
  joiner,
};

class Value;
using Values = std::vector<Value>;
using Entries = std::vector<std::pair<Value, Value>>;

// What a value that is no number refers to. depth: of the nesting; weight: the values inside, counted as often as they
// are met. Both are bounded, so that no walk through a value is too deep or too long.
struct Object {
  virtual ~Object() = default;
  int depth = 1;
  std::size_t weight = 1;
};

class Value {
 public:
  Value() = default;  // undefined
  static Value none() { return Value(Kind::none); }
  static Value boolean(bool value);
  static Value integer(std::int64_t value);
  static Value real(double value);
  // markup: it came from `safe` or `escape`; text that is added to it is escaped.
  static Value string(std::string text, bool markup = false);
  static Value list(Values items) { return sequence(Kind::list, std::move(items)); }
  static Value tuple(Values items) { return sequence(Kind::tuple, std::move(items)); }
  static Value generator(Values items) { return sequence(Kind::generator, std::move(items)); }
  static Value dict(Entries entries);  // a key that comes again replaces the value
  static Value undefined(std::string why);
  static Value of(Kind kind, std::shared_ptr<Object> object);

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::undefined; }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_number() const { return kind_ == Kind::integer || kind_ == Kind::real || kind_ == Kind::boolean; }
  bool is_whole() const { return kind_ == Kind::integer || kind_ == Kind::boolean; }
  bool is_markup() const;

  std::int64_t whole() const { return integer_; }  // of integer and boolean
  double number() const { return kind_ == Kind::real ? real_ : static_cast<double>(integer_); }
  const std::string& text() const;            // of a string
  const Values& items() const;                // of list, tuple, view, generator
  const Entries& entries() const;             // of a dict
  const Value* find(const Value& key) const;  // in a dict; throws Problem for a key that cannot be one
  const Value* find(std::string_view key) const;
  std::string why() const;  // of undefined
  template <typename T>
  T& as() const {
    return static_cast<T&>(*object_);
  }
  int depth() const { return object_ ? object_->depth : 0; }
  std::size_t weight() const { return object_ ? object_->weight : 1; }
  const Object* identity() const { return object_.get(); }

 private:
  explicit Value(Kind kind) : kind_(kind) {}
  static Value sequence(Kind kind, Values items);

  Kind kind_ = Kind::undefined;
  std::int64_t integer_ = 0;
  double real_ = 0;
  std::shared_ptr<Object> object_;
};

struct StringObject : Object {
  std::string text;
  bool markup = false;
};

struct SequenceObject : Object {
  Values items;
  std::string name;       // of a view: dict_items …
  std::size_t taken = 0;  // of a generator
};

struct RangeObject : Object {
  std::int64_t start = 0, stop = 0, step = 1, size = 0;
  Value at(std::int64_t index) const { return Value::integer(start + index * step); }
};

struct NamespaceObject : Object {
  Entries entries;
};

// The name of Python's type: "str", "dict" …
std::string_view type_name(const Value& value);
bool truth(const Value& value);
bool equal(const Value& left, const Value& right);
// <0, 0, >0. Throws Problem where Python has no order.
int compare(const Value& left, const Value& right, std::string_view op);
bool contains(const Value& container, const Value& item);
// len(); throws Problem for what has none.
std::int64_t length(const Value& value);
// The items that a `for` walks through; a generator is used up. Throws Problem for what cannot be walked through.
Values iterate(const Value& value);
bool is_iterable(const Value& value);

std::string str(const Value& value);   // Python's str()
std::string repr(const Value& value);  // Python's repr()
std::string real_text(double value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;
  std::string item_separator = ", ", key_separator = ": ";
};
std::string to_json(const Value& value, const JsonStyle& style);

// From JSON, keys in the order in which they stand. Throws Problem: nested too deep, a number that has no 64 bits.
Value from_json(const nlohmann::ordered_json& json);

}  // namespace llmfp8::jinja
