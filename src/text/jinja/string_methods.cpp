// Methods of Python's str. Found by the interpreter for an attribute of a string.
#include <algorithm>

#include "text/jinja/code_points.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/problem.h"
#include "text/jinja/string_tools.h"

namespace llmfp8::jinja {

namespace {

constexpr std::int64_t kWidest = 1 << 20;  // of a padded text

const std::string& wanted_text(const Value& value, std::string_view function) {
  if (value.is_undefined()) problem("{}", value.why());
  if (!value.is_string()) problem("{}: a str is wanted, not {}", function, type_name(value));
  return value.text();
}

void no_arguments(const Arguments& arguments, std::string_view function) { const Bound bound(arguments, function, {}); }

template <std::string (*change)(std::string_view)>
Value changed(Interpreter& run, const Value& self, Arguments& arguments) {
  no_arguments(arguments, "str method");
  return run.text(change(self.text()), self.is_markup());
}

enum class Side { left, right, both };

template <Side side>
Value strip(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "strip", {"chars"});
  const bool spaces = !bound.has(0) || bound[0].is(Kind::none);
  std::string_view text = self.text();
  if (spaces) {
    if (side != Side::right) text = strip_left(text);
    if (side != Side::left) text = strip_right(text);
    return run.text(std::string(text), self.is_markup());
  }
  return run.text(stripped(text, wanted_text(bound[0], "strip"), side != Side::right, side != Side::left),
                  self.is_markup());
}

// The part of a text that start and end (code points) leave, and its place.
struct Window {
  std::string_view text;
  std::size_t begin = 0;
  bool is_empty_range = false;  // start lies behind the end
};

Window window(const Value& self, const Bound& bound, std::size_t first) {
  const std::string& text = self.text();
  const auto given = [&](std::size_t i) { return bound.has(i) && !bound[i].is(Kind::none); };
  if (!given(first) && !given(first + 1)) return {text, 0, false};
  const std::int64_t size = count_code_points(text);
  const auto clamp = [&](std::size_t i, std::int64_t otherwise) {
    if (!given(i)) return otherwise;
    const std::int64_t index = bound.whole(i, 0);
    return index < 0 ? std::max<std::int64_t>(index + size, 0) : index;
  };
  const std::int64_t start = clamp(first, 0), end = std::min(clamp(first + 1, size), size);
  if (start > end) return {"", text.size(), true};
  const std::size_t from = byte_offset(text, start), to = byte_offset(text, end);
  return {std::string_view(text).substr(from, to - from), from, false};
}

template <bool last, bool must>
Value find(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "find", {"sub", "start", "end"}, 1);
  const std::string& part = wanted_text(bound[0], "find");
  const Window in = window(self, bound, 1);
  run.charge(self.text().size() / 8);
  const std::size_t at = in.is_empty_range ? std::string::npos : last ? in.text.rfind(part) : in.text.find(part);
  if (at == std::string::npos) {
    if (must) problem("substring not found");
    return Value::integer(-1);
  }
  return Value::integer(count_code_points(std::string_view(self.text()).substr(0, in.begin + at)));
}

Value count(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "count", {"sub", "start", "end"}, 1);
  const std::string& part = wanted_text(bound[0], "count");
  const Window in = window(self, bound, 1);
  run.charge(self.text().size() / 8);
  if (in.is_empty_range) return Value::integer(0);
  if (part.empty()) return Value::integer(count_code_points(in.text) + 1);
  std::int64_t found = 0;
  for (std::size_t at = in.text.find(part); at != std::string_view::npos; at = in.text.find(part, at + part.size()))
    ++found;
  return Value::integer(found);
}

template <bool at_start>
Value affix(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, at_start ? "startswith" : "endswith", {"affix", "start", "end"}, 1);
  const Window in = window(self, bound, 1);
  const auto fits = [&](const Value& value) {
    const std::string& part = wanted_text(value, at_start ? "startswith" : "endswith");
    return !in.is_empty_range && (at_start ? in.text.starts_with(part) : in.text.ends_with(part));
  };
  if (!bound[0].is(Kind::tuple)) return Value::boolean(fits(bound[0]));
  const Values& parts = bound[0].items();
  return Value::boolean(std::any_of(parts.begin(), parts.end(), fits));
}

Value replace(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "replace", {"old", "new", "count"}, 2);
  return run.text(replaced(run, self.text(), wanted_text(bound[0], "replace"), wanted_text(bound[1], "replace"),
                           bound.whole(2, -1)),
                  self.is_markup());
}

Value texts(Interpreter& run, const std::vector<std::string_view>& parts) {
  Values items;
  items.reserve(parts.size());
  for (const std::string_view part : parts) items.push_back(run.text(std::string(part)));
  return run.list(std::move(items));
}

Value split(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "split", {"sep", "maxsplit"});
  const std::int64_t most = bound.whole(1, -1);
  if (!bound.has(0) || bound[0].is(Kind::none)) return texts(run, split_at_spaces(self.text(), most));
  const std::string& separator = wanted_text(bound[0], "split");
  if (separator.empty()) problem("empty separator");
  return texts(run, split_at(self.text(), separator, most));
}

Value rsplit(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "rsplit", {"sep", "maxsplit"});
  const std::int64_t most = bound.whole(1, -1);
  if (!bound.has(0) || bound[0].is(Kind::none)) return texts(run, rsplit_at_spaces(self.text(), most));
  const std::string& separator = wanted_text(bound[0], "rsplit");
  if (separator.empty()) problem("empty separator");
  return texts(run, rsplit_at(self.text(), separator, most));
}

Value splitlines(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "splitlines", {"keepends"});
  return texts(run, lines_of(self.text(), bound.flag(0, false)));
}

template <bool last>
Value partition(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "partition", {"sep"}, 1);
  const std::string &text = self.text(), &separator = wanted_text(bound[0], "partition");
  if (separator.empty()) problem("empty separator");
  const std::size_t at = last ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos)
    return last ? Value::tuple({run.text(""), run.text(""), self}) : Value::tuple({self, run.text(""), run.text("")});
  return Value::tuple(
      {run.text(text.substr(0, at)), run.text(separator), run.text(text.substr(at + separator.size()))});
}

Value join(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "join", {"iterable"}, 1);
  std::string joined;
  bool first = true;
  for (const Value& item : iterate(bound[0])) {
    if (!item.is_string()) problem("join: expected str instance, {} found", type_name(item));
    if (!std::exchange(first, false)) joined += self.text();
    joined += item.text();
    if (joined.size() > kLimits.text_bytes) problem("a text of more than {} bytes", kLimits.text_bytes);
  }
  return run.text(std::move(joined), self.is_markup());
}

Value format(Interpreter& run, const Value& self, Arguments& arguments) {
  return run.text(brace_format(run, self.text(), arguments), self.is_markup());
}

template <Side side>
Value justify(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "justify", {"width", "fillchar"}, 1);
  const std::string fill = bound.text(1, " ");
  if (count_code_points(fill) != 1) problem("The fill character must be exactly one character long");
  const std::int64_t width = bound.whole(0, 0);
  if (width > kWidest) problem("a text padded to {} characters", width);
  return run.text(centered(self.text(), width, fill,
                           side == Side::left    ? 0
                           : side == Side::right ? 1
                                                 : 2),
                  self.is_markup());
}

Value zfill(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "zfill", {"width"}, 1);
  const std::int64_t width = bound.whole(0, 0), missing = width - count_code_points(self.text());
  if (width > kWidest) problem("a text padded to {} characters", width);
  if (missing <= 0) return self;
  const bool is_signed = self.text().starts_with('+') || self.text().starts_with('-');
  return run.text(self.text().substr(0, is_signed ? 1 : 0) + std::string(static_cast<std::size_t>(missing), '0') +
                  self.text().substr(is_signed ? 1 : 0));
}

template <bool prefix>
Value remove_affix(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "removeprefix", {"affix"}, 1);
  const std::string &text = self.text(), &part = wanted_text(bound[0], "removeprefix");
  if (part.empty() || !(prefix ? text.starts_with(part) : text.ends_with(part))) return self;
  return run.text(prefix ? text.substr(part.size()) : text.substr(0, text.size() - part.size()), self.is_markup());
}

Value expandtabs(Interpreter& run, const Value& self, Arguments& arguments) {
  const Bound bound(arguments, "expandtabs", {"tabsize"});
  const std::int64_t size = bound.whole(0, 8);
  if (size > 1000) problem("tabs of {} characters", size);
  std::string out;
  std::int64_t column = 0;
  for (const char32_t code : decode_text(self.text())) {
    if (code == '\t') {
      const std::int64_t missing = size > 0 ? size - column % size : 0;
      out.append(static_cast<std::size_t>(missing), ' ');
      column += missing;
      if (out.size() > kLimits.text_bytes) problem("a text of more than {} bytes", kLimits.text_bytes);
      continue;
    }
    append_utf8(out, code);
    column = code == '\n' || code == '\r' ? 0 : column + 1;
  }
  return run.text(std::move(out));
}

// All characters are of a class, and there is one.
template <bool (*is_class)(char32_t)>
Value all_are(Interpreter& run, const Value& self, Arguments& arguments) {
  no_arguments(arguments, "str method");
  run.charge(self.text().size() / 8);
  const std::u32string codes = decode_text(self.text());
  return Value::boolean(!codes.empty() && std::all_of(codes.begin(), codes.end(), is_class));
}

bool is_alnum(char32_t code) { return is_letter(code) || is_numeric(code); }

template <bool (*is_right)(char32_t), bool (*is_wrong)(char32_t)>
Value has_case(Interpreter& run, const Value& self, Arguments& arguments) {
  no_arguments(arguments, "str method");
  run.charge(self.text().size() / 8);
  const std::u32string codes = decode_text(self.text());
  return Value::boolean(std::any_of(codes.begin(), codes.end(), is_right) &&
                        std::none_of(codes.begin(), codes.end(), is_wrong));
}

bool not_lower(char32_t code) { return is_upper(code) || is_title(code); }
bool not_upper(char32_t code) { return is_lower(code) || is_title(code); }

Value istitle(Interpreter&, const Value& self, Arguments& arguments) {
  no_arguments(arguments, "istitle");
  bool inside = false, any = false;
  for (const char32_t code : decode_text(self.text())) {
    const bool high = is_upper(code) || is_title(code);
    if ((high && inside) || (is_lower(code) && !inside)) return Value::boolean(false);
    inside = is_cased(code);
    any |= inside;
  }
  return Value::boolean(any);
}

Value isascii(Interpreter&, const Value& self, Arguments&) { return Value::boolean(is_ascii(self.text())); }

Value isprintable(Interpreter&, const Value& self, Arguments&) {
  const std::u32string codes = decode_text(self.text());
  return Value::boolean(std::all_of(codes.begin(), codes.end(), is_printable));
}

Value isidentifier(Interpreter&, const Value& self, Arguments&) {
  const std::u32string codes = decode_text(self.text());
  return Value::boolean(!codes.empty() && !is_numeric(codes[0]) && std::all_of(codes.begin(), codes.end(), is_word));
}

}  // namespace

const Table<Method>& string_methods() {
  static const Table<Method> methods = {{"capitalize", changed<capitalize>},
                                        {"casefold", changed<lower>},
                                        {"center", justify<Side::both>},
                                        {"count", count},
                                        {"endswith", affix<false>},
                                        {"expandtabs", expandtabs},
                                        {"find", find<false, false>},
                                        {"format", format},
                                        {"index", find<false, true>},
                                        {"isalnum", all_are<is_alnum>},
                                        {"isalpha", all_are<is_letter>},
                                        {"isascii", isascii},
                                        {"isdecimal", all_are<is_decimal>},
                                        {"isdigit", all_are<is_digit>},
                                        {"isidentifier", isidentifier},
                                        {"islower", has_case<is_lower, not_lower>},
                                        {"isnumeric", all_are<is_numeric>},
                                        {"isprintable", isprintable},
                                        {"isspace", all_are<is_space>},
                                        {"istitle", istitle},
                                        {"isupper", has_case<is_upper, not_upper>},
                                        {"join", join},
                                        {"ljust", justify<Side::left>},
                                        {"lower", changed<lower>},
                                        {"lstrip", strip<Side::left>},
                                        {"partition", partition<false>},
                                        {"removeprefix", remove_affix<true>},
                                        {"removesuffix", remove_affix<false>},
                                        {"replace", replace},
                                        {"rfind", find<true, false>},
                                        {"rindex", find<true, true>},
                                        {"rjust", justify<Side::right>},
                                        {"rpartition", partition<true>},
                                        {"rsplit", rsplit},
                                        {"rstrip", strip<Side::right>},
                                        {"split", split},
                                        {"splitlines", splitlines},
                                        {"startswith", affix<true>},
                                        {"strip", strip<Side::both>},
                                        {"swapcase", changed<swapcase>},
                                        {"title", changed<title>},
                                        {"upper", changed<upper>},
                                        {"zfill", zfill}};
  return methods;
}

}  // namespace llmfp8::jinja
