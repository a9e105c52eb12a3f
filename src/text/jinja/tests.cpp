// Tests: what stands behind `is`. Found by the parser.
#include <cmath>

#include "text/jinja/code_points.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/problem.h"

namespace llmfp8::jinja {

namespace {

template <Kind kind>
bool is_kind(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "test", {});
  return value.is(kind);
}

template <bool (*check)(const Value&)>
bool simple(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "test", {});
  return check(value);
}

bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_undefined(const Value& value) { return value.is_undefined(); }
bool is_true(const Value& value) { return value.is(Kind::boolean) && value.whole() != 0; }
bool is_false(const Value& value) { return value.is(Kind::boolean) && value.whole() == 0; }
bool is_number(const Value& value) { return value.is_number(); }
bool is_iterable_value(const Value& value) { return is_iterable(value) || value.is(Kind::loop); }
bool is_escaped(const Value& value) { return value.is_markup(); }
bool is_filter(const Value& value) { return value.is_string() && find_filter(value.text()) != nullptr; }
bool is_test(const Value& value) { return value.is_string() && find_test(value.text()) != nullptr; }

bool is_sequence(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
    case Kind::string:
    case Kind::list:
    case Kind::tuple:
    case Kind::dict:
    case Kind::range: return true;
    default: return false;
  }
}

bool is_callable(const Value& value) {
  // Undefined has a __call__, which raises.
  return value.is(Kind::function) || value.is(Kind::loop) || value.is(Kind::joiner) || value.is_undefined();
}

template <bool wanted_upper>
bool has_case(const Value& value) {
  bool any = false;
  for (const char32_t code : decode_text(str(value))) {
    if (wanted_upper ? is_lower(code) || is_title(code) : is_upper(code) || is_title(code)) return false;
    any |= wanted_upper ? is_upper(code) : is_lower(code);
  }
  return any;
}

template <std::int64_t rest>
bool is_parity(Interpreter& run, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "test", {});
  return equal(arithmetic(run, Op::modulo, value, Value::integer(2)), Value::integer(rest));
}

bool is_divisible(Interpreter& run, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "divisibleby", {"num"}, 1);
  return equal(arithmetic(run, Op::modulo, value, bound[0]), Value::integer(0));
}

bool is_same(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "sameas", {"other"}, 1);
  const Value& other = bound[0];
  if (value.kind() != other.kind()) return false;
  if (value.is_number() || value.is(Kind::none) || value.is_string()) return equal(value, other);
  return value.identity() == other.identity();
}

template <Comparison op>
bool compared(Interpreter& run, const Value& value, Arguments& arguments) {
  const Bound bound(arguments, "test", {"b"}, 1);
  run.charge(std::min(value.weight(), bound[0].weight()));
  switch (op) {
    case Comparison::equal: return equal(value, bound[0]);
    case Comparison::not_equal: return !equal(value, bound[0]);
    case Comparison::less: return compare(value, bound[0], "<") < 0;
    case Comparison::less_equal: return compare(value, bound[0], "<=") <= 0;
    case Comparison::greater: return compare(value, bound[0], ">") > 0;
    case Comparison::greater_equal: return compare(value, bound[0], ">=") >= 0;
    default: run.charge(bound[0].weight()); return contains(bound[0], value);
  }
}

const Table<Test>& tests() {
  static const Table<Test> table = {{"boolean", is_kind<Kind::boolean>},
                                    {"callable", simple<is_callable>},
                                    {"defined", simple<is_defined>},
                                    {"divisibleby", is_divisible},
                                    {"escaped", simple<is_escaped>},
                                    {"even", is_parity<0>},
                                    {"false", simple<is_false>},
                                    {"filter", simple<is_filter>},
                                    {"float", is_kind<Kind::real>},
                                    {"integer", is_kind<Kind::integer>},
                                    {"iterable", simple<is_iterable_value>},
                                    {"lower", simple<has_case<false>>},
                                    {"mapping", is_kind<Kind::dict>},
                                    {"none", is_kind<Kind::none>},
                                    {"number", simple<is_number>},
                                    {"odd", is_parity<1>},
                                    {"sameas", is_same},
                                    {"sequence", simple<is_sequence>},
                                    {"string", is_kind<Kind::string>},
                                    {"test", simple<is_test>},
                                    {"true", simple<is_true>},
                                    {"undefined", simple<is_undefined>},
                                    {"upper", simple<has_case<true>>},
                                    {"in", compared<Comparison::in>},
                                    {"==", compared<Comparison::equal>},
                                    {"eq", compared<Comparison::equal>},
                                    {"equalto", compared<Comparison::equal>},
                                    {"!=", compared<Comparison::not_equal>},
                                    {"ne", compared<Comparison::not_equal>},
                                    {">", compared<Comparison::greater>},
                                    {"gt", compared<Comparison::greater>},
                                    {"greaterthan", compared<Comparison::greater>},
                                    {">=", compared<Comparison::greater_equal>},
                                    {"ge", compared<Comparison::greater_equal>},
                                    {"<", compared<Comparison::less>},
                                    {"lt", compared<Comparison::less>},
                                    {"lessthan", compared<Comparison::less>},
                                    {"<=", compared<Comparison::less_equal>},
                                    {"le", compared<Comparison::less_equal>}};
  return table;
}

}  // namespace

Test find_test(std::string_view name) {
  const auto found = tests().find(name);
  return found == tests().end() ? nullptr : found->second;
}

}  // namespace llmfp8::jinja
