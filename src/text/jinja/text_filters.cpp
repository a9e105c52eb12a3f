// Filters that make a text or a number. Found by the parser.
#include <charconv>
#include <cmath>
#include <limits>

#include "text/jinja/code_points.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/problem.h"
#include "text/jinja/string_tools.h"

namespace llmfp8::jinja {

namespace {

constexpr std::int64_t kWidest = 1 << 16;  // of an indent and a centred text

template <std::string (*change)(std::string_view)>
Value changed(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "filter", {});
  return run.text(change(str(input)), input.is_markup());
}

// Words begin behind white space and some brackets, unlike str.title's.
std::string title_filter(std::string_view text) {
  std::string out;
  const std::u32string codes = decode_text(text);
  const auto splits = [](char32_t c) {
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_space(c);
  };
  for (std::size_t at = 0; at < codes.size();) {
    std::size_t end = at;
    const bool gap = splits(codes[at]);
    while (end < codes.size() && splits(codes[end]) == gap) ++end;
    out += upper(encode_text(std::u32string_view(codes).substr(at, 1)));
    out += lower(encode_text(std::u32string_view(codes).substr(at + 1, end - at - 1)));
    at = end;
  }
  return out;
}

Value trim(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "trim", {"chars"});
  const std::string text = str(input);
  if (!bound.has(0) || bound[0].is(Kind::none))
    return run.text(std::string(strip_left(strip_right(text))), input.is_markup());
  if (!bound[0].is_string()) problem("trim: a str is wanted, not {}", type_name(bound[0]));
  return run.text(stripped(text, bound[0].text(), true, true), input.is_markup());
}

Value replace(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "replace", {"old", "new", "count"}, 2);
  const std::int64_t count = bound.has(2) && !bound[2].is(Kind::none) ? bound.whole(2, -1) : -1;
  return run.text(replaced(run, str(input), str(bound[0]), str(bound[1]), count));
}

Value string(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "string", {});
  return input.is_string() ? input : run.text(str(input));
}

Value safe(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "safe", {});
  return run.text(str(input), true);
}

Value escape(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "escape", {});
  return input.is_markup() ? input : run.text(escaped(str(input)), true);
}

Value forceescape(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "forceescape", {});
  return run.text(escaped(str(input)), true);
}

Value indent(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "indent", {"width", "first", "blank"});
  if (!input.is_string()) problem("indent: a str is wanted, not {}", type_name(input));
  std::string margin;
  if (bound.has(0) && bound[0].is_string()) {
    margin = bound[0].text();
  } else {
    const std::int64_t width = bound.whole(0, 4);
    if (width > kWidest) problem("an indent of {}", width);
    margin.assign(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)), ' ');
  }
  const bool blank = bound.flag(2, false);
  const std::string text = input.text() + "\n";
  const std::vector<std::string_view> lines = lines_of(text, false);
  std::string out = bound.flag(1, false) ? margin : "";
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) {
      out += '\n';
      if (blank || !lines[i].empty()) out += margin;
    }
    out += lines[i];
    if (out.size() > kLimits.text_bytes) problem("a text of more than {} bytes", kLimits.text_bytes);
  }
  return run.text(std::move(out));
}

Value center(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "center", {"width"});
  const std::int64_t width = bound.whole(0, 80);
  if (width > kWidest) problem("a text centred in {} characters", width);
  return run.text(centered(str(input), width, " ", 2));
}

Value truncate(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "truncate", {"length", "killwords", "end", "leeway"});
  if (!input.is_string()) problem("truncate: a str is wanted, not {}", type_name(input));
  const std::u32string codes = decode_text(input.text());
  const std::string end = bound.text(2, "...");
  const std::int64_t length = bound.whole(0, 255),
                     leeway = bound.has(3) && !bound[3].is(Kind::none) ? bound.whole(3, 5) : 5;
  const std::int64_t kept = length - count_code_points(end);
  if (kept < 0) problem("expected length >= {}, got {}", count_code_points(end), length);
  if (leeway < 0) problem("expected leeway >= 0, got {}", leeway);
  if (std::ssize(codes) <= length + leeway) return input;
  std::string text = encode_text(std::u32string_view(codes).substr(0, static_cast<std::size_t>(kept)));
  if (!bound.flag(1, false)) text = std::string(rsplit_at(text, " ", 1).front());
  return run.text(text + end);
}

Value wordcount(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "wordcount", {});
  std::int64_t words = 0;
  bool inside = false;
  for (const char32_t code : decode_text(str(input))) {
    if (is_word(code) && !inside) ++words;
    inside = is_word(code);
  }
  return Value::integer(words);
}

Value format(Interpreter& run, const Value& input, Arguments& arguments) {
  if (!arguments.named.empty() && !arguments.positional.empty())
    problem("can't handle positional and keyword arguments at the same time");
  if (arguments.named.empty()) return run.text(percent_format(run, str(input), Value::tuple(arguments.positional)));
  Entries entries;
  for (const auto& [name, value] : arguments.named) entries.emplace_back(run.text(name), value);
  return run.text(percent_format(run, str(input), Value::dict(std::move(entries))));
}

Value urlencode(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "urlencode", {});
  if (!input.is_string() && is_iterable(input)) problem("urlencode of a {} is not supported", type_name(input));
  std::string out;
  for (const char c : str(input)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~/").find(c) != std::string_view::npos;
    if (plain)
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
  }
  return run.text(std::move(out));
}

Value tojson(Interpreter& run, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = bound.flag(0, false);
  style.sort_keys = bound.flag(3, false);
  if (bound.has(1) && !bound[1].is(Kind::none)) {
    if (bound[1].is_string()) {
      style.indent = bound[1].text();
    } else {
      const std::int64_t width = bound.whole(1, 0);
      if (width > 256) problem("tojson: an indent of {}", width);
      style.indent = std::string(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)), ' ');
    }
    style.item_separator = ",";
  }
  if (bound.has(2) && !bound[2].is(Kind::none)) {
    const Values pair = iterate(bound[2]);
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) problem("tojson: separators are two strings");
    style.item_separator = pair[0].text();
    style.key_separator = pair[1].text();
  }
  return run.text(to_json(input, style));
}

// A number as int() and float() read it: white space around it, single underscores between digits.
std::optional<std::string> number_text(std::string_view text) {
  text = strip_left(strip_right(text));
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const auto digit = [&](std::size_t at) {
      return at < text.size() &&
             ((text[at] >= '0' && text[at] <= '9') || ((text[at] | 0x20) >= 'a' && (text[at] | 0x20) <= 'z'));
    };
    if (i == 0 || !digit(i - 1) || !digit(i + 1)) return std::nullopt;
  }
  if (out.starts_with('+')) out.erase(0, 1);
  if (out.starts_with("+") || out.starts_with("+-") || out.starts_with("-+")) return std::nullopt;
  return out.empty() ? std::nullopt : std::optional(out);
}

std::optional<double> parse_real(std::string_view text) {
  const std::optional<std::string> digits = number_text(text);
  if (!digits) return std::nullopt;
  const std::string name = lower(*digits);
  const bool negative = name.starts_with('-');
  const std::string_view word = std::string_view(name).substr(negative ? 1 : 0);
  const double sign = negative ? -1 : 1;
  if (word == "inf" || word == "infinity") return sign * std::numeric_limits<double>::infinity();
  if (word == "nan") return std::numeric_limits<double>::quiet_NaN();
  std::string plain = name;
  if (plain.find_first_not_of("0123456789.e+-") != std::string::npos) return std::nullopt;
  double value = 0;
  const auto result = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (result.ec == std::errc::result_out_of_range) return std::nullopt;
  if (result.ec != std::errc() || result.ptr != plain.data() + plain.size()) return std::nullopt;
  return value;
}

std::optional<std::int64_t> parse_whole(std::string_view text, int base) {
  std::optional<std::string> digits = number_text(text);
  if (!digits) return std::nullopt;
  const bool negative = digits->starts_with('-');
  if (negative) digits->erase(0, 1);
  const std::string prefix = lower(digits->substr(0, 2));
  const int named = prefix == "0x" ? 16 : prefix == "0o" ? 8 : prefix == "0b" ? 2 : 0;
  if (named != 0 && (base == 0 || base == named)) digits->erase(0, 2);
  if (base == 0) base = named == 0 ? 10 : named;
  std::int64_t value = 0;
  if (digits->starts_with('-')) return std::nullopt;
  const auto result = std::from_chars(digits->data(), digits->data() + digits->size(), value, base);
  if (result.ec == std::errc::result_out_of_range) problem("a whole number beyond 64 bits");
  if (result.ec != std::errc() || result.ptr != digits->data() + digits->size()) return std::nullopt;
  return negative ? -value : value;
}

std::optional<std::int64_t> truncated(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::abs(value) >= 9.2e18) problem("a whole number beyond 64 bits");
  return static_cast<std::int64_t>(value);
}

Value to_int(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "int", {"default", "base"});
  const Value otherwise = bound.has(0) ? bound[0] : Value::integer(0);
  if (input.is_undefined()) problem("{}", input.why());
  const std::int64_t base = bound.whole(1, 10);
  if (base != 0 && (base < 2 || base > 36)) return otherwise;
  if (input.is_whole()) return Value::integer(input.whole());
  if (input.is(Kind::real)) {
    const auto whole = truncated(input.number());
    return whole ? Value::integer(*whole) : otherwise;
  }
  if (!input.is_string()) return otherwise;
  if (const auto whole = parse_whole(input.text(), static_cast<int>(base))) return Value::integer(*whole);
  if (const auto real = parse_real(input.text()))
    if (const auto whole = truncated(*real)) return Value::integer(*whole);
  return otherwise;
}

Value to_float(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "float", {"default"});
  const Value otherwise = bound.has(0) ? bound[0] : Value::real(0);
  if (input.is_undefined()) problem("{}", input.why());
  if (input.is_number()) return Value::real(input.number());
  if (!input.is_string()) return otherwise;
  const auto real = parse_real(input.text());
  return real ? Value::real(*real) : otherwise;
}

Value absolute(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "abs", {});
  if (input.is_undefined()) problem("{}", input.why());
  if (!input.is_number()) problem("bad operand type for abs(): '{}'", type_name(input));
  if (input.is(Kind::real)) return Value::real(std::abs(input.number()));
  return input.whole() < 0 ? negate(input) : Value::integer(input.whole());
}

// To the nearest, halves to the even one, of the exact decimal value, as Python's round.
double round_decimal(double value, std::int64_t digits) {
  if (!std::isfinite(value) || digits > 300) return value;
  if (digits >= 0) return std::stod(fmt::format("{:.{}f}", value, digits));
  if (digits < -308) return std::copysign(0.0, value);
  const double scale = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / scale) * scale;
}

Value round_filter(Interpreter&, const Value& input, Arguments& arguments) {
  const Bound bound(arguments, "round", {"precision", "method"});
  const std::string method = bound.text(1, "common");
  const std::int64_t precision = bound.whole(0, 0);
  if (input.is_undefined()) problem("{}", input.why());
  if (!input.is_number()) problem("type {} doesn't define __round__ method", type_name(input));
  if (method == "common") {
    if (input.is(Kind::real)) return Value::real(round_decimal(input.number(), precision));
    if (precision >= 0) return Value::integer(input.whole());
    return Value::integer(static_cast<std::int64_t>(round_decimal(static_cast<double>(input.whole()), precision)));
  }
  if (method != "ceil" && method != "floor") problem("method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.number() * scale;
  const double whole = method == "ceil" ? std::ceil(scaled) : std::floor(scaled);
  return Value::real(whole / scale);
}

}  // namespace

const Table<Filter>& text_filters() {
  static const Table<Filter> filters = {{"abs", absolute},
                                        {"capitalize", changed<capitalize>},
                                        {"center", center},
                                        {"e", escape},
                                        {"escape", escape},
                                        {"float", to_float},
                                        {"forceescape", forceescape},
                                        {"format", format},
                                        {"indent", indent},
                                        {"int", to_int},
                                        {"lower", changed<lower>},
                                        {"replace", replace},
                                        {"round", round_filter},
                                        {"safe", safe},
                                        {"string", string},
                                        {"title", changed<title_filter>},
                                        {"tojson", tojson},
                                        {"trim", trim},
                                        {"truncate", truncate},
                                        {"upper", changed<upper>},
                                        {"urlencode", urlencode},
                                        {"wordcount", wordcount}};
  return filters;
}

}  // namespace llmfp8::jinja
