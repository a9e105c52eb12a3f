// Values of a chat template: making, comparing and walking through them. Called by the interpreter and its filters.
#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "text/jinja/code_points.h"

namespace llmfp8::jinja {

namespace {

struct DictObject : Object {
  Entries entries;
};

struct WhyObject : Object {
  std::string why;
};

void contain(Object& outer, const Value& inner) {
  outer.depth = std::max(outer.depth, inner.depth() + 1);
  outer.weight += inner.weight();
  if (outer.depth > kLimits.value_depth) problem("values are nested deeper than {} levels", kLimits.value_depth);
  if (outer.weight > kLimits.value_weight) problem("a value holds more than {} others", kLimits.value_weight);
}

void check_key(const Value& key) {
  switch (key.kind()) {
    case Kind::list:
    case Kind::dict: problem("unhashable type: '{}'", type_name(key));
    case Kind::tuple:
      for (const Value& item : key.items()) check_key(item);
      return;
    default: return;
  }
}

bool equal_lists(const Values& left, const Values& right) {
  return left.size() == right.size() && std::equal(left.begin(), left.end(), right.begin(), equal);
}

bool equal_dicts(const Value& left, const Value& right) {
  if (left.entries().size() != right.entries().size()) return false;
  return std::all_of(left.entries().begin(), left.entries().end(), [&](const auto& entry) {
    const Value* other = right.find(entry.first);
    return other != nullptr && equal(entry.second, *other);
  });
}

}  // namespace

Value Value::boolean(bool value) {
  Value result(Kind::boolean);
  result.integer_ = value ? 1 : 0;
  return result;
}

Value Value::integer(std::int64_t value) {
  Value result(Kind::integer);
  result.integer_ = value;
  return result;
}

Value Value::real(double value) {
  Value result(Kind::real);
  result.real_ = value;
  return result;
}

Value Value::string(std::string text, bool markup) {
  if (text.size() > kLimits.text_bytes)
    problem("a text of {} bytes, at most {} are allowed", text.size(), kLimits.text_bytes);
  auto object = std::make_shared<StringObject>();
  object->text = std::move(text);
  object->markup = markup;
  return of(Kind::string, std::move(object));
}

Value Value::sequence(Kind kind, Values items) {
  auto object = std::make_shared<SequenceObject>();
  for (const Value& item : items) contain(*object, item);
  object->items = std::move(items);
  return of(kind, std::move(object));
}

Value Value::dict(Entries entries) {
  auto object = std::make_shared<DictObject>();
  Value result = of(Kind::dict, object);
  for (auto& [key, value] : entries) {
    contain(*object, key);
    contain(*object, value);
    if (const Value* found = result.find(key)) {
      const_cast<Value&>(*found) = std::move(value);
      continue;
    }
    object->entries.emplace_back(std::move(key), std::move(value));
  }
  return result;
}

Value Value::undefined(std::string why) {
  auto object = std::make_shared<WhyObject>();
  object->why = std::move(why);
  return of(Kind::undefined, std::move(object));
}

Value Value::of(Kind kind, std::shared_ptr<Object> object) {
  Value result(kind);
  result.object_ = std::move(object);
  return result;
}

bool Value::is_markup() const { return is_string() && as<StringObject>().markup; }
const std::string& Value::text() const { return as<StringObject>().text; }
const Values& Value::items() const { return as<SequenceObject>().items; }
const Entries& Value::entries() const { return as<DictObject>().entries; }
std::string Value::why() const { return object_ ? as<WhyObject>().why : "a value is undefined"; }

const Value* Value::find(const Value& key) const {
  check_key(key);
  for (const auto& [name, value] : entries())
    if (equal(name, key)) return &value;
  return nullptr;
}

const Value* Value::find(std::string_view key) const {
  for (const auto& [name, value] : entries())
    if (name.is_string() && name.text() == key) return &value;
  return nullptr;
}

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined: return "Undefined";
    case Kind::none: return "NoneType";
    case Kind::boolean: return "bool";
    case Kind::integer: return "int";
    case Kind::real: return "float";
    case Kind::string: return value.is_markup() ? "Markup" : "str";
    case Kind::list: return "list";
    case Kind::tuple: return "tuple";
    case Kind::dict: return "dict";
    case Kind::range: return "range";
    case Kind::view: return value.as<SequenceObject>().name;
    case Kind::generator: return "generator";
    case Kind::space: return "Namespace";
    case Kind::function: return "function";
    case Kind::loop: return "LoopContext";
    case Kind::cycler: return "Cycler";
    case Kind::joiner: return "Joiner";
  }
  return "object";
}

bool truth(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
    case Kind::none: return false;
    case Kind::boolean:
    case Kind::integer: return value.whole() != 0;
    case Kind::real: return value.number() != 0;
    case Kind::string: return !value.text().empty();
    case Kind::list:
    case Kind::tuple:
    case Kind::view: return !value.items().empty();
    case Kind::dict: return !value.entries().empty();
    case Kind::range: return value.as<RangeObject>().size != 0;
    default: return true;
  }
}

bool equal(const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    if (left.is_whole() && right.is_whole()) return left.whole() == right.whole();
    return left.number() == right.number();
  }
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::undefined:
    case Kind::none: return true;
    case Kind::string: return left.text() == right.text();
    case Kind::list:
    case Kind::tuple: return left.identity() == right.identity() || equal_lists(left.items(), right.items());
    case Kind::dict: return left.identity() == right.identity() || equal_dicts(left, right);
    case Kind::range: return equal_lists(iterate(left), iterate(right));
    default: return left.identity() == right.identity();
  }
}

int compare(const Value& left, const Value& right, std::string_view op) {
  const auto order = [](auto a, auto b) { return a < b ? -1 : a > b ? 1 : 0; };
  for (const Value* side : {&left, &right})
    if (side->is_undefined()) problem("{}", side->why());
  if (left.is_number() && right.is_number()) {
    if (left.is_whole() && right.is_whole()) return order(left.whole(), right.whole());
    const double a = left.number(), b = right.number();
    if (std::isnan(a) || std::isnan(b)) return op.starts_with('<') ? 1 : -1;
    return order(a, b);
  }
  if (left.is_string() && right.is_string()) return left.text().compare(right.text());
  const bool lists = left.kind() == right.kind() && (left.is(Kind::list) || left.is(Kind::tuple));
  if (!lists) problem("'{}' not supported between instances of '{}' and '{}'", op, type_name(left), type_name(right));
  const Values &a = left.items(), &b = right.items();
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if (!equal(a[i], b[i])) return compare(a[i], b[i], op);
  return order(a.size(), b.size());
}

bool contains(const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::string:
      if (!item.is_string()) problem("'in <string>' requires string as left operand, not {}", type_name(item));
      return container.text().find(item.text()) != std::string::npos;
    case Kind::dict: return container.find(item) != nullptr;
    case Kind::list:
    case Kind::tuple:
    case Kind::view: {
      const Values& items = container.items();
      return std::any_of(items.begin(), items.end(), [&](const Value& other) { return equal(other, item); });
    }
    default:
      if (!is_iterable(container)) problem("argument of type '{}' is not iterable", type_name(container));
      for (const Value& other : iterate(container))
        if (equal(other, item)) return true;
      return false;
  }
}

std::int64_t length(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined: return 0;
    case Kind::string: return count_code_points(value.text());
    case Kind::list:
    case Kind::tuple:
    case Kind::view: return std::ssize(value.items());
    case Kind::dict: return std::ssize(value.entries());
    case Kind::range: return value.as<RangeObject>().size;
    default: problem("object of type '{}' has no len()", type_name(value));
  }
}

bool is_iterable(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
    case Kind::string:
    case Kind::list:
    case Kind::tuple:
    case Kind::view:
    case Kind::dict:
    case Kind::range:
    case Kind::generator: return true;
    default: return false;
  }
}

Values iterate(const Value& value) {
  Values items;
  switch (value.kind()) {
    case Kind::undefined: break;
    case Kind::string:
      for (std::size_t at = 0; at < value.text().size();) {
        const std::size_t size = code_point_bytes(value.text(), at);
        items.push_back(Value::string(value.text().substr(at, size)));
        at += size;
      }
      break;
    case Kind::list:
    case Kind::tuple:
    case Kind::view: return value.items();
    case Kind::dict:
      for (const auto& entry : value.entries()) items.push_back(entry.first);
      break;
    case Kind::range:
      for (std::int64_t i = 0; i < value.as<RangeObject>().size; ++i) items.push_back(value.as<RangeObject>().at(i));
      break;
    case Kind::generator: {
      auto& source = value.as<SequenceObject>();
      items.assign(source.items.begin() + static_cast<std::ptrdiff_t>(source.taken), source.items.end());
      source.taken = source.items.size();
      break;
    }
    default: problem("'{}' object is not iterable", type_name(value));
  }
  return items;
}

Value from_json(const nlohmann::ordered_json& json) {
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean: return Value::boolean(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer: return Value::integer(json.get<std::int64_t>());
    case nlohmann::ordered_json::value_t::number_unsigned: {
      const auto number = json.get<std::uint64_t>();
      if (number > static_cast<std::uint64_t>(INT64_MAX)) problem("the number {} does not fit 64 bits", number);
      return Value::integer(static_cast<std::int64_t>(number));
    }
    case nlohmann::ordered_json::value_t::number_float: return Value::real(json.get<double>());
    case nlohmann::ordered_json::value_t::string: return Value::string(json.get_ref<const std::string&>());
    case nlohmann::ordered_json::value_t::array: {
      Values items;
      for (const auto& item : json) items.push_back(from_json(item));
      return Value::list(std::move(items));
    }
    case nlohmann::ordered_json::value_t::object: {
      Entries entries;
      for (const auto& [key, item] : json.items()) entries.emplace_back(Value::string(key), from_json(item));
      return Value::dict(std::move(entries));
    }
    default: return Value::none();
  }
}

}  // namespace llmfp8::jinja
