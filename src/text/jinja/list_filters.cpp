// Filters over lists and dicts. Found by the parser.
#include <algorithm>

#include "text/jinja/code_points.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/problem.h"
#include "text/jinja/string_tools.h"

namespace llmfp8::jinja {

namespace {

Values walked(Interpreter& run, const Value& value) {
  Values items = iterate(value);
  run.charge(1 + items.size());
  return items;
}

// What an `attribute` argument names: a path "a.b.0" or a number.
class Path {
 public:
  explicit Path(const Value& name) {
    if (name.is_whole()) {
      keys_.push_back(name);
      return;
    }
    if (name.is(Kind::none)) return;
    if (!name.is_string()) problem("an attribute is named by a str or an int, not {}", type_name(name));
    for (const std::string_view part : split_at(name.text(), ".", -1)) {
      const bool is_index = !part.empty() && part.size() < 10 &&
                            std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
      keys_.push_back(is_index ? Value::integer(std::stoll(std::string(part))) : Value::string(std::string(part)));
    }
  }
  Value of(Interpreter& run, Value value, const Value* otherwise = nullptr) const {
    for (const Value& key : keys_) {
      value = run.item(value, key);
      if (otherwise != nullptr && value.is_undefined()) value = *otherwise;
    }
    return value;
  }

 private:
  Values keys_;
};

Value path_name(const Bound& bound, std::size_t i) { return bound.has(i) ? bound[i] : Value::none(); }

Value folded(const Value& value, bool case_sensitive) {
  return value.is_string() && !case_sensitive ? Value::string(lower(value.text())) : value;
}

struct Keyed {
  Value key, value;
};

std::vector<Keyed> keyed(Interpreter& run, const Value& input, const Path& path, bool case_sensitive) {
  std::vector<Keyed> result;
  for (Value& item : walked(run, input)) {
    Value key = folded(path.of(run, item), case_sensitive);
    result.push_back({std::move(key), std::move(item)});
  }
  return result;
}

// Of the keys, as Python's sort: stable, also when it is reversed.
void sort_keyed(Interpreter& run, std::vector<Keyed>& items, bool reverse) {
  // Whatever order the keys have (a NaN has none), a merge sort stays inside its bounds.
  const auto less = [&](const Keyed& a, const Keyed& b) {
    run.charge(1);
    return reverse ? compare(b.key, a.key, "<") < 0 : compare(a.key, b.key, "<") < 0;
  };
  std::stable_sort(items.begin(), items.end(), less);
}

Value length_filter(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "length", {});
  return Value::integer(length(input));
}

Value default_filter(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "default", {"default_value", "boolean"});
  if (!input.is_undefined() && (!bound.flag(1, false) || truth(input))) return input;
  return bound.has(0) ? bound[0] : run.text("");
}

Value join(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "join", {"d", "attribute"});
  const std::string separator = bound.text(0, "");
  const Path path(path_name(bound, 1));
  std::string joined;
  bool first = true;
  for (const Value& item : walked(run, input)) {
    if (!std::exchange(first, false)) joined += separator;
    joined += str(path.of(run, item));
    if (joined.size() > kLimits.text_bytes) problem("a text of more than {} bytes", kLimits.text_bytes);
  }
  return run.text(std::move(joined));
}

Value first(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "first", {});
  if (input.is(Kind::generator)) {
    auto& source = input.as<SequenceObject>();
    if (source.taken < source.items.size()) return source.items[source.taken++];
    return Value::undefined("No first item, sequence was empty.");
  }
  const Values items = walked(run, input);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value last(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "last", {});
  if (input.is(Kind::generator)) problem("'generator' object is not reversible");
  const Values items = walked(run, input);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value list(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "list", {});
  return run.list(iterate(input));
}

Value reverse(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "reverse", {});
  if (input.is_string()) {
    std::u32string codes = decode_text(input.text());
    std::reverse(codes.begin(), codes.end());
    return run.text(encode_text(codes));
  }
  Values items = walked(run, input);
  std::reverse(items.begin(), items.end());
  return input.is(Kind::generator) || input.is_undefined() ? run.list(std::move(items))
                                                           : Value::generator(std::move(items));
}

Value items_filter(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "items", {});
  Values items;
  if (!input.is_undefined()) {
    if (!input.is(Kind::dict)) problem("Can only get item pairs from a mapping.");
    run.charge(4 * input.entries().size());
    for (const auto& [key, value] : input.entries()) items.push_back(Value::tuple({key, value}));
  }
  return Value::generator(std::move(items));
}

Value dictsort(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "dictsort", {"case_sensitive", "by", "reverse"});
  if (!input.is(Kind::dict)) problem("'{}' object has no attribute 'items'", type_name(input));
  const std::string by = bound.text(1, "key");
  if (by != "key" && by != "value") problem("You can only sort by either \"key\" or \"value\"");
  std::vector<Keyed> rows;
  for (const auto& [key, value] : input.entries())
    rows.push_back({folded(by == "key" ? key : value, bound.flag(0, false)), Value::tuple({key, value})});
  sort_keyed(run, rows, bound.flag(2, false));
  Values sorted;
  for (Keyed& row : rows) sorted.push_back(std::move(row.value));
  return run.list(std::move(sorted));
}

// Comma separated paths: one after the other decides.
Value multi_key(Interpreter& run, const Value& item, const std::vector<Path>& paths, bool case_sensitive) {
  Values keys;
  for (const Path& path : paths) keys.push_back(folded(path.of(run, item), case_sensitive));
  return Value::list(std::move(keys));
}

Value sort(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "sort", {"reverse", "case_sensitive", "attribute"});
  const Value name = path_name(bound, 2);
  std::vector<Path> paths;
  if (name.is_string())
    for (const std::string_view part : split_at(name.text(), ",", -1))
      paths.emplace_back(Value::string(std::string(part)));
  else
    paths.emplace_back(name);
  std::vector<Keyed> rows;
  for (Value& item : walked(run, input)) {
    Value key = multi_key(run, item, paths, bound.flag(1, false));
    rows.push_back({std::move(key), std::move(item)});
  }
  sort_keyed(run, rows, bound.flag(0, false));
  Values sorted;
  for (Keyed& row : rows) sorted.push_back(std::move(row.value));
  return run.list(std::move(sorted));
}

Value unique(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "unique", {"case_sensitive", "attribute"});
  std::vector<Keyed> rows = keyed(run, input, Path(path_name(bound, 1)), bound.flag(0, false));
  Values seen, result;
  for (Keyed& row : rows) {
    run.charge(seen.size());
    if (row.key.is(Kind::list) || row.key.is(Kind::dict)) problem("unhashable type: '{}'", type_name(row.key));
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return equal(other, row.key); })) continue;
    seen.push_back(row.key);
    result.push_back(std::move(row.value));
  }
  return Value::generator(std::move(result));
}

template <bool largest>
Value extreme(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, largest ? "max" : "min", {"case_sensitive", "attribute"});
  std::vector<Keyed> rows = keyed(run, input, Path(path_name(bound, 1)), bound.flag(0, false));
  if (rows.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  std::size_t best = 0;
  for (std::size_t i = 1; i < rows.size(); ++i) {
    run.charge(1);
    if (largest ? compare(rows[i].key, rows[best].key, ">") > 0 : compare(rows[i].key, rows[best].key, "<") < 0)
      best = i;
  }
  return rows[best].value;
}

Value sum(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "sum", {"attribute", "start"});
  const Path path(path_name(bound, 0));
  Value total = bound.has(1) ? bound[1] : Value::integer(0);
  if (total.is_string()) problem("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : walked(run, input)) total = add(run, total, path.of(run, item));
  return total;
}

Value batch(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "batch", {"linecount", "fill_with"}, 1);
  const std::int64_t size = bound.whole(0, 1);
  Values result, row;
  for (const Value& item : walked(run, input)) {
    if (std::ssize(row) == size) result.push_back(run.list(std::exchange(row, {})));
    row.push_back(item);
  }
  if (!row.empty()) {
    if (bound.has(1) && !bound[1].is(Kind::none) && size > std::ssize(row)) {
      if (size > kLimits.range) problem("batches of {}", size);
      row.resize(static_cast<std::size_t>(size), bound[1]);
    }
    result.push_back(run.list(std::move(row)));
  }
  return Value::generator(std::move(result));
}

Value slice_filter(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "slice", {"slices", "fill_with"}, 1);
  const std::int64_t slices = bound.whole(0, 1);
  if (slices < 1 || slices > kLimits.range) problem("{} slices", slices);
  const Values items = walked(run, input);
  const std::int64_t size = std::ssize(items), each = size / slices, with_extra = size % slices;
  Values result;
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < slices; ++i) {
    const std::int64_t end = at + each + (i < with_extra ? 1 : 0);
    Values row(items.begin() + at, items.begin() + end);
    if (bound.has(1) && !bound[1].is(Kind::none) && i >= with_extra) row.push_back(bound[1]);
    result.push_back(run.list(std::move(row)));
    at = end;
  }
  return Value::generator(std::move(result));
}

Value groupby(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "groupby", {"attribute", "default", "case_sensitive"}, 1);
  const Path path(bound[0]);
  const bool case_sensitive = bound.flag(2, false);
  std::vector<Keyed> rows;
  for (Value& item : walked(run, input)) {
    Value key = folded(path.of(run, item, bound.has(1) ? &bound[1] : nullptr), case_sensitive);
    rows.push_back({std::move(key), std::move(item)});
  }
  sort_keyed(run, rows, false);
  Values groups;
  for (std::size_t i = 0; i < rows.size();) {
    Values members;
    std::size_t end = i;
    while (end < rows.size() && equal(rows[end].key, rows[i].key)) members.push_back(rows[end++].value);
    // The name of a group is the first member's, in its own case.
    const Value name = path.of(run, rows[i].value, bound.has(1) ? &bound[1] : nullptr);
    Value group = Value::tuple({name, run.list(std::move(members))});
    group.as<SequenceObject>().name = "group";
    groups.push_back(std::move(group));
    i = end;
  }
  return run.list(std::move(groups));
}

Value map(Interpreter& run, const Value& input, Arguments& arguments) {
  if (!truth(input)) return Value::generator({});  // also of none
  const auto named = [&](const char* name) -> const Value* {
    for (const auto& [known, value] : arguments.named)
      if (known == name) return &value;
    return nullptr;
  };
  Values result;
  if (arguments.positional.empty() && named("attribute") != nullptr) {
    for (const auto& [name, value] : arguments.named)
      if (name != "attribute" && name != "default") problem("Unexpected keyword argument '{}'", name.substr(0, 60));
    const Path path(*named("attribute"));
    for (const Value& item : walked(run, input)) result.push_back(path.of(run, item, named("default")));
    return Value::generator(std::move(result));
  }
  if (arguments.positional.empty()) problem("map requires a filter argument");
  if (!arguments.positional[0].is_string()) problem("map: the name of a filter is wanted");
  const std::string name = arguments.positional[0].text();
  for (const Value& item : walked(run, input)) {
    Arguments rest{Values(arguments.positional.begin() + 1, arguments.positional.end()), arguments.named};
    result.push_back(run.filter(name, item, rest));
  }
  return Value::generator(std::move(result));
}

template <bool by_attribute, bool wanted>
Value select(Interpreter& run, const Value& input, Arguments& arguments) {
  constexpr std::size_t kSkipped = by_attribute ? 1 : 0;
  if (!truth(input)) return Value::generator({});  // also of none
  if (by_attribute && arguments.positional.empty()) problem("Missing parameter for attribute name");
  const Path path(by_attribute ? arguments.positional[0] : Value::none());
  const bool has_test = arguments.positional.size() > kSkipped;
  if (has_test && !arguments.positional[kSkipped].is_string()) problem("the name of a test is wanted");
  Values result;
  for (const Value& item : walked(run, input)) {
    const Value value = path.of(run, item);
    bool fits = false;
    if (has_test) {
      Arguments rest{Values(arguments.positional.begin() + kSkipped + 1, arguments.positional.end()), arguments.named};
      fits = run.test(arguments.positional[kSkipped].text(), value, rest);
    } else {
      fits = truth(value);
    }
    if (fits == wanted) result.push_back(item);
  }
  return Value::generator(std::move(result));
}

Value attr(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "attr", {"name"}, 1);
  const std::string name = bound.text(0, "");
  // Unlike `.name`, an entry of a dict is none.
  if (input.is(Kind::dict) && find_method(input, name) == nullptr)
    return Value::undefined(fmt::format("'dict object' has no attribute '{}'", name.substr(0, 60)));
  return run.attribute(input, name);
}

}  // namespace

const Table<Filter>& list_filters() {
  static const Table<Filter> filters = {{"attr", attr},
                                        {"batch", batch},
                                        {"count", length_filter},
                                        {"d", default_filter},
                                        {"default", default_filter},
                                        {"dictsort", dictsort},
                                        {"first", first},
                                        {"groupby", groupby},
                                        {"items", items_filter},
                                        {"join", join},
                                        {"last", last},
                                        {"length", length_filter},
                                        {"list", list},
                                        {"map", map},
                                        {"max", extreme<true>},
                                        {"min", extreme<false>},
                                        {"reject", select<false, false>},
                                        {"rejectattr", select<true, false>},
                                        {"reverse", reverse},
                                        {"select", select<false, true>},
                                        {"selectattr", select<true, true>},
                                        {"slice", slice_filter},
                                        {"sort", sort},
                                        {"sum", sum},
                                        {"unique", unique}};
  return filters;
}

Filter find_filter(std::string_view name) {
  for (const Table<Filter>* table : {&text_filters(), &list_filters()}) {
    const auto found = table->find(name);
    if (found != table->end()) return found->second;
  }
  return nullptr;
}

}  // namespace llmfp8::jinja
