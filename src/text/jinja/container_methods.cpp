// Methods of dict, list and the objects that jinja2 adds, and what the sandbox forbids. Found by the interpreter for an
// attribute.
#include <algorithm>
#include <array>

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/problem.h"

namespace llmfp8::jinja {

namespace {

Value view(Interpreter& run, std::string name, Values items) {
  run.charge(4 * items.size());
  Value list = Value::list(std::move(items));
  auto object = std::make_shared<SequenceObject>(list.as<SequenceObject>());
  object->name = std::move(name);
  return Value::of(Kind::view, std::move(object));
}

Value dict_items(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "items", {});
  Values items;
  for (const auto& [key, value] : self.entries()) items.push_back(Value::tuple({key, value}));
  return view(run, "dict_items", std::move(items));
}

Value dict_keys(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "keys", {});
  return view(run, "dict_keys", iterate(self));
}

Value dict_values(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "values", {});
  Values items;
  for (const auto& [key, value] : self.entries()) items.push_back(value);
  return view(run, "dict_values", std::move(items));
}

Value dict_get(Interpreter& run, const Value& self, Arguments& arguments) {
  if (!arguments.named.empty()) problem("dict.get() takes no keyword arguments");
  const Bound bound(arguments, "get", {"key", "default"}, 1);
  run.charge(self.entries().size() / 8);
  const Value* found = self.find(bound[0]);
  return found != nullptr ? *found : bound.has(1) ? bound[1] : Value::none();
}

Value same(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "copy", {});
  return self;  // nothing can change it
}

Value dict_fromkeys(Interpreter& run, const Value&, Arguments& arguments) {
  const Bound bound(arguments, "fromkeys", {"iterable", "value"}, 1);
  Entries entries;
  for (const Value& key : iterate(bound[0])) entries.emplace_back(key, bound.has(1) ? bound[1] : Value::none());
  run.charge(entries.size() * (4 + entries.size() / 8));
  return Value::dict(std::move(entries));
}

Value list_count(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "count", {"value"}, 1);
  run.charge(self.weight());
  const Values& items = self.items();
  return Value::integer(
      std::count_if(items.begin(), items.end(), [&](const Value& item) { return equal(item, bound[0]); }));
}

Value list_index(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "index", {"value"}, 1);
  run.charge(self.weight());
  const Values& items = self.items();
  const auto found = std::find_if(items.begin(), items.end(), [&](const Value& item) { return equal(item, bound[0]); });
  if (found == items.end()) problem("the value is not in the list");
  return Value::integer(found - items.begin());
}

Value loop_cycle(Interpreter&, const Value& self, Arguments& arguments) {
  if (arguments.positional.empty()) problem("no items for cycling given");
  const auto count = std::ssize(arguments.positional);
  return arguments.positional[static_cast<std::size_t>(self.as<LoopObject>().index0 % count)];
}

Value loop_changed(Interpreter& run, const Value& self, Arguments& arguments) {
  auto& loop = self.as<LoopObject>();
  run.charge(1 + 4 * arguments.positional.size());
  Value now = Value::tuple(arguments.positional);
  if (loop.last_changed && equal(*loop.last_changed, now)) return Value::boolean(false);
  loop.last_changed = std::move(now);
  return Value::boolean(true);
}

struct CyclerObject : Object {
  Values items;
  std::size_t at = 0;
  bool used = false;  // of a joiner
};

Value cycler_next(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "next", {});
  auto& cycler = self.as<CyclerObject>();
  Value value = cycler.items[cycler.at];
  cycler.at = (cycler.at + 1) % cycler.items.size();
  return value;
}

Value cycler_reset(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "reset", {});
  self.as<CyclerObject>().at = 0;
  return Value::none();
}

Value joiner_call(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "joiner", {});
  auto& joiner = self.as<CyclerObject>();
  return std::exchange(joiner.used, true) ? joiner.items[0] : run.text("");
}

Value make_range(Interpreter& run, Arguments& arguments) {
  if (!arguments.named.empty()) problem("range() takes no keyword arguments");
  const Bound bound(arguments, "range", {"start", "stop", "step"}, 1);
  auto range = std::make_shared<RangeObject>();
  range->start = bound.has(1) ? bound.whole(0, 0) : 0;
  range->stop = bound.has(1) ? bound.whole(1, 0) : bound.whole(0, 0);
  range->step = bound.whole(2, 1);
  if (range->step == 0) problem("range() arg 3 must not be zero");
  constexpr std::int64_t kFar = std::int64_t{1} << 60;
  for (const std::int64_t bound_of : {range->start, range->stop, range->step})
    if (bound_of > kFar || bound_of < -kFar) problem("range() beyond 2^60");
  const std::int64_t distance = range->step > 0 ? range->stop - range->start : range->start - range->stop;
  const std::int64_t stride = range->step > 0 ? range->step : -range->step;
  range->size = distance > 0 ? (distance - 1) / stride + 1 : 0;
  if (range->size > kLimits.range)
    problem("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", kLimits.range);
  run.charge(1);
  return Value::of(Kind::range, std::move(range));
}

Entries dict_entries(Interpreter& run, Arguments& arguments, std::string_view function) {
  if (arguments.positional.size() > 1) problem("{} expected at most 1 argument", function);
  Entries entries;
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (from.is(Kind::dict)) {
      entries = from.entries();
    } else {
      for (const Value& pair : iterate(from)) {
        const Values two = iterate(pair);
        if (two.size() != 2) problem("{}: a pair is wanted, {} values found", function, two.size());
        entries.emplace_back(two[0], two[1]);
      }
    }
  }
  for (auto& [name, value] : arguments.named) entries.emplace_back(run.text(name), value);
  run.charge(entries.size() * (4 + entries.size() / 8));
  return entries;
}

Value make_dict(Interpreter& run, Arguments& arguments) { return Value::dict(dict_entries(run, arguments, "dict")); }

Value make_namespace(Interpreter& run, Arguments& arguments) {
  return run.make_namespace(dict_entries(run, arguments, "namespace"));
}

Value make_cycler(Interpreter& run, Arguments& arguments) {
  if (!arguments.named.empty()) problem("cycler() takes no keyword arguments");
  if (arguments.positional.empty()) problem("at least one item has to be provided");
  auto cycler = std::make_shared<CyclerObject>();
  const Value items = run.list(arguments.positional);
  cycler->depth = items.depth() + 1;
  cycler->items = items.items();
  return Value::of(Kind::cycler, std::move(cycler));
}

Value make_joiner(Interpreter& run, Arguments& arguments) {
  const Bound bound(arguments, "joiner", {"sep"});
  auto joiner = std::make_shared<CyclerObject>();
  joiner->items = {run.text(bound.text(0, ", "))};
  return Value::of(Kind::joiner, std::move(joiner));
}

Value raise_exception(Interpreter&, Arguments& arguments) {
  const Bound bound(arguments, "raise_exception", {"message"}, 1);
  problem("the template refuses: {}", str(bound[0]));
}

Value strftime_now(Interpreter& run, Arguments& arguments) {
  const Bound bound(arguments, "strftime_now", {"format"}, 1);
  if (!bound[0].is_string()) problem("strftime_now: a str is wanted, not {}", type_name(bound[0]));
  return run.text(format_date(bound[0].text(), run.options().now));
}

}  // namespace

const Table<Function>& global_functions() {
  static const Table<Function> functions = {{"range", make_range},         {"dict", make_dict},
                                            {"namespace", make_namespace}, {"cycler", make_cycler},
                                            {"joiner", make_joiner},       {"raise_exception", raise_exception},
                                            {"strftime_now", strftime_now}};
  return functions;
}

bool is_forbidden_method(const Value& self, std::string_view name) {
  static constexpr std::array<std::string_view, 8> kList = {"append", "clear",  "extend",  "insert",
                                                            "pop",    "remove", "reverse", "sort"};
  static constexpr std::array<std::string_view, 5> kDict = {"clear", "pop", "popitem", "setdefault", "update"};
  if (self.is(Kind::list)) return std::find(kList.begin(), kList.end(), name) != kList.end();
  if (self.is(Kind::dict)) return std::find(kDict.begin(), kDict.end(), name) != kDict.end();
  return self.is_string() && name == "format_map";
}

Method find_method(const Value& self, std::string_view name) {
  static const Table<Method> dict = {{"items", dict_items}, {"keys", dict_keys}, {"values", dict_values},
                                     {"get", dict_get},     {"copy", same},      {"fromkeys", dict_fromkeys}};
  static const Table<Method> list = {{"count", list_count}, {"index", list_index}, {"copy", same}};
  static const Table<Method> tuple = {{"count", list_count}, {"index", list_index}};
  static const Table<Method> loop = {{"cycle", loop_cycle}, {"changed", loop_changed}};
  static const Table<Method> cycler = {{"next", cycler_next}, {"reset", cycler_reset}};
  static const Table<Method> joiner = {{"__call__", joiner_call}};
  static const Table<Method> none;
  const Table<Method>& table = self.is_string()        ? string_methods()
                               : self.is(Kind::dict)   ? dict
                               : self.is(Kind::list)   ? list
                               : self.is(Kind::tuple)  ? tuple
                               : self.is(Kind::loop)   ? loop
                               : self.is(Kind::cycler) ? cycler
                               : self.is(Kind::joiner) ? joiner
                                                       : none;
  if (self.is(Kind::cycler) && name == "current") return nullptr;
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace llmfp8::jinja
