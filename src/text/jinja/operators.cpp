// Arithmetic, slices, and what is common to filters: named arguments, HTML escapes. Called by the interpreter.
#include <algorithm>
#include <cmath>

#include "text/jinja/code_points.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/problem.h"

namespace llmfp8::jinja {

namespace {

constexpr std::string_view symbol(Op op) {
  switch (op) {
    case Op::add: return "+";
    case Op::subtract: return "-";
    case Op::multiply: return "*";
    case Op::divide: return "/";
    case Op::floor_divide: return "//";
    case Op::modulo: return "%";
    default: return "**";
  }
}

[[noreturn]] void unsupported(Op op, const Value& left, const Value& right) {
  for (const Value* side : {&left, &right})
    if (side->is_undefined()) problem("{}", side->why());
  problem("unsupported operand type(s) for {}: '{}' and '{}'", symbol(op), type_name(left), type_name(right));
}

[[noreturn]] void overflow() { problem("a whole number beyond 64 bits"); }

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == 0) problem("integer division or modulo by zero");
  if (a == INT64_MIN && b == -1) overflow();
  const std::int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

double float_modulo(double a, double b) {
  if (b == 0) problem("float modulo by zero");
  double rest = std::fmod(a, b);
  if (rest != 0 && (b < 0) != (rest < 0)) rest += b;
  return rest == 0 ? std::copysign(0.0, b) : rest;
}

Value power(std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) problem("0.0 cannot be raised to a negative power");
    return Value::real(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  std::int64_t result = 1;
  if (base == 0 || base == 1) return Value::integer(exponent == 0 ? 1 : base);
  if (base == -1) return Value::integer(exponent % 2 == 0 ? 1 : -1);
  for (std::int64_t i = 0; i < exponent; ++i)
    if (__builtin_mul_overflow(result, base, &result)) overflow();
  return Value::integer(result);
}

Value whole_arithmetic(Op op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  bool wrong = false;
  switch (op) {
    case Op::add: wrong = __builtin_add_overflow(a, b, &result); break;
    case Op::subtract: wrong = __builtin_sub_overflow(a, b, &result); break;
    case Op::multiply: wrong = __builtin_mul_overflow(a, b, &result); break;
    case Op::divide:
      if (b == 0) problem("division by zero");
      return Value::real(static_cast<double>(a) / static_cast<double>(b));
    case Op::floor_divide: result = floor_divide(a, b); break;
    case Op::modulo:
      if (b == 0) problem("integer division or modulo by zero");
      result = b == -1 ? 0 : a % b;
      if (result != 0 && (b < 0) != (result < 0)) result += b;
      break;
    default: return power(a, b);
  }
  if (wrong) overflow();
  return Value::integer(result);
}

Value real_arithmetic(Op op, double a, double b) {
  switch (op) {
    case Op::add: return Value::real(a + b);
    case Op::subtract: return Value::real(a - b);
    case Op::multiply: return Value::real(a * b);
    case Op::divide:
      if (b == 0) problem("float division by zero");
      return Value::real(a / b);
    case Op::floor_divide: {
      if (b == 0) problem("float floor division by zero");
      return Value::real(std::floor((a - float_modulo(a, b)) / b + 0.25));
    }
    case Op::modulo: return Value::real(float_modulo(a, b));
    default: return Value::real(std::pow(a, b));
  }
}

Value repeated(Interpreter& run, const Value& value, std::int64_t times) {
  const auto count = static_cast<std::size_t>(std::max<std::int64_t>(times, 0));
  const std::size_t size = value.is_string() ? value.text().size() : value.items().size();
  if (count != 0 && size > kLimits.text_bytes / count) problem("a value repeated {} times is too long", times);
  run.charge(size * count / (value.is_string() ? 8 : 1));
  if (value.is_string()) {
    std::string text;
    text.reserve(size * count);
    for (std::size_t i = 0; i < count; ++i) text += value.text();
    return run.text(std::move(text), value.is_markup());
  }
  Values items;
  for (std::size_t i = 0; i < count; ++i) items.insert(items.end(), value.items().begin(), value.items().end());
  return value.is(Kind::tuple) ? Value::tuple(std::move(items)) : run.list(std::move(items));
}

}  // namespace

Value add(Interpreter& run, const Value& left, const Value& right) {
  if (left.is_string() && right.is_string()) {
    const bool markup = left.is_markup() || right.is_markup();
    const auto part = [&](const Value& side) {
      return markup && !side.is_markup() ? escaped(side.text()) : side.text();
    };
    return run.text(part(left) + part(right), markup);
  }
  if (left.kind() == right.kind() && (left.is(Kind::list) || left.is(Kind::tuple))) {
    Values items = left.items();
    items.insert(items.end(), right.items().begin(), right.items().end());
    run.charge(4 * items.size());
    return left.is(Kind::list) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
  }
  return arithmetic(run, Op::add, left, right);
}

Value arithmetic(Interpreter& run, Op op, const Value& left, const Value& right) {
  if (left.is_number() && right.is_number())
    return left.is_whole() && right.is_whole() ? whole_arithmetic(op, left.whole(), right.whole())
                                               : real_arithmetic(op, left.number(), right.number());
  if (op == Op::modulo && left.is_string()) return run.text(percent_format(run, left.text(), right), left.is_markup());
  const auto is_repeatable = [](const Value& value) {
    return value.is_string() || value.is(Kind::list) || value.is(Kind::tuple);
  };
  if (op == Op::multiply && is_repeatable(left) && right.is_whole()) return repeated(run, left, right.whole());
  if (op == Op::multiply && is_repeatable(right) && left.is_whole()) return repeated(run, right, left.whole());
  unsupported(op, left, right);
}

Value negate(const Value& value) {
  if (value.is_undefined()) problem("{}", value.why());
  if (!value.is_number()) problem("bad operand type for unary -: '{}'", type_name(value));
  if (value.is(Kind::real)) return Value::real(-value.number());
  if (value.whole() == INT64_MIN) overflow();
  return Value::integer(-value.whole());
}

namespace {

struct SliceBounds {
  std::int64_t start = 0, step = 1, count = 0;
};

SliceBounds slice_bounds(std::int64_t size, const Value& start, const Value& stop, const Value& step) {
  const auto whole = [](const Value& value) {
    if (value.is_undefined()) problem("{}", value.why());
    if (!value.is_whole()) problem("slice indices must be integers or None");
    return value.whole();
  };
  SliceBounds bounds;
  if (!step.is(Kind::none)) bounds.step = whole(step);
  if (bounds.step == 0) problem("slice step cannot be zero");
  const bool backward = bounds.step < 0;
  const auto clamp = [&](const Value& value, std::int64_t otherwise) {
    if (value.is(Kind::none)) return otherwise;
    std::int64_t index = whole(value);
    if (index < 0)
      index = index < -size ? (backward ? -1 : 0) : index + size;
    else if (index >= size)
      index = backward ? size - 1 : size;
    return index;
  };
  bounds.start = clamp(start, backward ? size - 1 : 0);
  const std::int64_t end = clamp(stop, backward ? -1 : size);
  const std::int64_t distance = backward ? bounds.start - end : end - bounds.start;
  // The unsigned negation is right for the smallest number too.
  const std::uint64_t stride =
      backward ? 0 - static_cast<std::uint64_t>(bounds.step) : static_cast<std::uint64_t>(bounds.step);
  if (distance > 0) bounds.count = static_cast<std::int64_t>((static_cast<std::uint64_t>(distance) - 1) / stride + 1);
  return bounds;
}

template <typename Sequence>
Sequence picked(const Sequence& from, const SliceBounds& bounds) {
  Sequence result;
  result.reserve(static_cast<std::size_t>(bounds.count));
  std::int64_t index = bounds.start;
  for (std::int64_t i = 0; i < bounds.count; ++i) {
    result.push_back(from[static_cast<std::size_t>(index)]);
    if (i + 1 < bounds.count) index += bounds.step;
  }
  return result;
}

}  // namespace

Value slice(Interpreter& run, const Value& value, const Value& start, const Value& stop, const Value& step) {
  if (value.is_undefined()) problem("{}", value.why());
  if (value.is_string()) {
    const std::string& text = value.text();
    run.charge(text.size() / 8);
    if (!is_ascii(text)) {
      const std::u32string codes = decode_text(text);
      return run.text(encode_text(picked(codes, slice_bounds(std::ssize(codes), start, stop, step))),
                      value.is_markup());
    }
    const SliceBounds bounds = slice_bounds(std::ssize(text), start, stop, step);
    if (bounds.step == 1)
      return run.text(text.substr(bounds.count > 0 ? static_cast<std::size_t>(bounds.start) : 0,
                                  static_cast<std::size_t>(bounds.count)),
                      value.is_markup());
    return run.text(picked(text, bounds), value.is_markup());
  }
  if (value.is(Kind::list) || value.is(Kind::tuple)) {
    Values items = picked(value.items(), slice_bounds(std::ssize(value.items()), start, stop, step));
    run.charge(4 * items.size());
    return value.is(Kind::list) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
  }
  if (value.is(Kind::range)) {
    const auto& range = value.as<RangeObject>();
    const SliceBounds bounds = slice_bounds(range.size, start, stop, step);
    auto part = std::make_shared<RangeObject>();
    part->start = range.start + bounds.start * range.step;
    part->step = range.step * (bounds.count > 1 ? bounds.step : 1);
    part->size = bounds.count;
    part->stop = part->start + part->step * part->size;
    return Value::of(Kind::range, std::move(part));
  }
  problem("'{}' object is not subscriptable", type_name(value));
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '\'': out += "&#39;"; break;
      case '"': out += "&#34;"; break;
      default: out += c;
    }
  }
  return out;
}

Bound::Bound(const Arguments& arguments, std::string_view function, std::initializer_list<std::string_view> names,
             std::size_t required)
    : values_(names.size()), given_(names.size()) {
  if (arguments.positional.size() > names.size())
    problem("{}() takes at most {} arguments, {} are given", function, names.size(), arguments.positional.size());
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) {
    values_[i] = arguments.positional[i];
    given_[i] = true;
  }
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) problem("{}() got an unexpected keyword argument '{}'", function, name.substr(0, 60));
    const auto i = static_cast<std::size_t>(found - names.begin());
    if (given_[i]) problem("{}() got multiple values for argument '{}'", function, name);
    values_[i] = value;
    given_[i] = true;
  }
  for (std::size_t i = 0; i < required; ++i)
    if (!given_[i]) problem("{}() misses its argument '{}'", function, *(names.begin() + i));
}

std::int64_t Bound::whole(std::size_t i, std::int64_t otherwise) const {
  if (!given_[i]) return otherwise;
  if (values_[i].is_undefined()) problem("{}", values_[i].why());
  if (!values_[i].is_whole()) problem("'{}' object cannot be interpreted as an integer", type_name(values_[i]));
  return values_[i].whole();
}

}  // namespace llmfp8::jinja
