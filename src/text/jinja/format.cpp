// Python's "…" % values and "…".format(…). Called by the interpreter and its filters.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja/code_points.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/problem.h"

namespace llmfp8::jinja {

namespace {

constexpr std::int64_t kWidest = 10'000;  // of a field and of a precision

// What stands between '%' and its letter, or behind the ':' of a replacement field.
struct Spec {
  char32_t fill = ' ';
  char align = 0;  // '<' '>' '^' '='
  char sign = '-';
  bool alternate = false, grouped = false;
  char group = ',';
  std::int64_t width = 0, precision = -1;
  char type = 0;
};

std::string digits_of(std::uint64_t value, int base, bool upper) {
  char buffer[72];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, base).ptr;
  std::string text(buffer, end);
  if (upper)
    std::transform(text.begin(), text.end(), text.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return text;
}

std::string with_groups(std::string digits, char group) {
  const std::size_t dot = std::min(digits.find_first_of(".e"), digits.size());
  for (std::size_t i = dot; i > 3; i -= 3) digits.insert(i - 3, 1, group);
  return digits;
}

std::string signed_text(bool negative, char sign) {
  return negative ? "-" : sign == '+' ? "+" : sign == ' ' ? " " : "";
}

// body is padded between its sign and its digits where align is '='.
std::string padded(const Spec& spec, const std::string& sign, const std::string& body, char usual) {
  const std::int64_t missing = spec.width - count_code_points(sign + body);
  if (missing <= 0) return sign + body;
  const auto pad = [&](std::int64_t count) {
    return encode_text(std::u32string(static_cast<std::size_t>(count), spec.fill));
  };
  switch (spec.align != 0 ? spec.align : usual) {
    case '<': return sign + body + pad(missing);
    case '^': return pad(missing / 2) + sign + body + pad(missing - missing / 2);
    case '=': return sign + pad(missing) + body;
    default: return pad(missing) + sign + body;
  }
}

std::string float_body(const Spec& spec, double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return "inf";
  const char type = spec.type;
  const int precision = static_cast<int>(spec.precision < 0 ? 6 : spec.precision);
  std::string body;
  switch (type) {
    case 'e': body = fmt::format("{:.{}e}", value, precision); break;
    case 'E': body = fmt::format("{:.{}E}", value, precision); break;
    case 'f':
    case 'F': body = fmt::format("{:.{}f}", value, precision); break;
    case '%': body = fmt::format("{:.{}f}%", value * 100, precision); break;
    case 'G': body = fmt::format("{:.{}G}", value, std::max(precision, 1)); break;
    default: body = fmt::format("{:.{}g}", value, std::max(precision, 1)); break;
  }
  return spec.grouped ? with_groups(std::move(body), spec.group) : body;
}

std::string format_float(const Spec& spec, double value) {
  Spec used = spec;
  std::string body;
  if (spec.type == 0) {
    body = spec.precision < 0 ? real_text(std::abs(value)) : "";
    if (spec.precision >= 0) {
      used.type = 'g';
      body = float_body(used, std::abs(value));
      if (body.find_first_of(".en") == std::string::npos && spec.precision > std::ssize(body)) body += ".0";
    } else if (spec.grouped) {
      body = with_groups(std::move(body), spec.group);
    }
  } else {
    body = float_body(used, std::abs(value));
  }
  return padded(spec, signed_text(std::signbit(value) && !std::isnan(value), spec.sign), body, '>');
}

std::string format_whole(const Spec& spec, std::int64_t value) {
  const std::uint64_t size = value < 0 ? 0 - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value);
  std::string prefix, body;
  switch (spec.type) {
    case 'x':
    case 'X':
      body = digits_of(size, 16, spec.type == 'X');
      prefix = spec.type == 'X' ? "0X" : "0x";
      break;
    case 'o':
      body = digits_of(size, 8, false);
      prefix = "0o";
      break;
    case 'b':
      body = digits_of(size, 2, false);
      prefix = "0b";
      break;
    default: body = digits_of(size, 10, false);
  }
  if (spec.grouped) body = with_groups(std::move(body), spec.group);
  return padded(spec, signed_text(value < 0, spec.sign) + (spec.alternate ? prefix : ""), body, '>');
}

// ---- "…" % values

std::string cut(const std::string& text, std::int64_t precision) {
  return precision < 0 ? text : text.substr(0, byte_offset(text, precision));
}

class PercentFormatter {
 public:
  PercentFormatter(const std::string& format, const Value& values) : format_(format), values_(values) {}

  std::string run() {
    std::string out;
    while (at_ < format_.size()) {
      if (format_[at_] != '%') {
        out += format_[at_++];
        continue;
      }
      ++at_;
      out += conversion();
      if (out.size() > kLimits.text_bytes) problem("a text of more than {} bytes", kLimits.text_bytes);
    }
    const std::size_t given = values_.is(Kind::tuple) ? values_.items().size() : 1;
    const bool rest_allowed = values_.is(Kind::dict) || values_.is(Kind::list);
    if (taken_ < given && !(rest_allowed && taken_ == 0))
      problem("not all arguments converted during string formatting");
    return out;
  }

 private:
  char look() const {
    if (at_ >= format_.size()) problem("incomplete format");
    return format_[at_];
  }

  const Value& take() {
    if (values_.is(Kind::tuple)) {
      if (taken_ >= values_.items().size()) problem("not enough arguments for format string");
      return values_.items()[taken_++];
    }
    if (taken_++ > 0) problem("not enough arguments for format string");
    return values_;
  }

  std::int64_t number() {
    if (look() == '*') {
      ++at_;
      const Value& value = take();
      if (!value.is_whole()) problem("* wants int");
      if (value.whole() > kWidest || value.whole() < -kWidest) problem("a field wider than {}", kWidest);
      return value.whole();
    }
    std::int64_t value = 0;
    while (look() >= '0' && look() <= '9') {
      value = value * 10 + (format_[at_++] - '0');
      if (value > kWidest) problem("a field wider than {}", kWidest);
    }
    return value;
  }

  std::string conversion() {
    const Value* named = nullptr;
    if (look() == '(') {
      const std::size_t end = format_.find(')', at_);
      if (end == std::string::npos) problem("incomplete format key");
      if (!values_.is(Kind::dict)) problem("format requires a mapping");
      named = values_.find(std::string_view(format_).substr(at_ + 1, end - at_ - 1));
      if (named == nullptr)
        problem("no value '{}' for the format", format_.substr(at_ + 1, end - at_ - 1).substr(0, 60));
      at_ = end + 1;
    }
    Spec spec;
    for (bool zero = false; std::string_view("#0- +").find(look()) != std::string_view::npos; ++at_) {
      const char flag = format_[at_];
      if (flag == '-') spec.align = '<';
      if (flag == '#') spec.alternate = true;
      if (flag == '+' || (flag == ' ' && spec.sign != '+')) spec.sign = flag;
      zero |= flag == '0';
      if (zero && spec.align != '<') {
        spec.align = '=';
        spec.fill = '0';
      } else if (spec.align == '<') {
        spec.fill = ' ';
      }
    }
    spec.width = number();
    if (spec.width < 0) {
      spec.align = '<';
      spec.fill = ' ';
      spec.width = -spec.width;
    }
    if (look() == '.') {
      ++at_;
      spec.precision = std::max<std::int64_t>(number(), 0);
    }
    while (look() == 'l' || look() == 'h' || look() == 'L') ++at_;
    const char type = look();
    ++at_;
    if (type == '%') return "%";
    return convert(spec, type, named != nullptr ? *named : take());
  }

  static std::string convert(Spec spec, char type, const Value& value) {
    const auto as_text = [&](const std::string& text) {
      spec.fill = ' ';
      if (spec.align == '=') spec.align = '>';
      return padded(spec, "", cut(text, spec.precision), '>');
    };
    switch (type) {
      case 's': return as_text(str(value));
      case 'r': return as_text(repr(value));
      case 'c': {
        if (value.is_string() && count_code_points(value.text()) == 1) return as_text(value.text());
        if (!value.is_whole() || value.whole() < 0 || value.whole() > 0x10FFFF)
          problem("%c requires an int or a unicode character");
        return as_text(encode_text(std::u32string(1, static_cast<char32_t>(value.whole()))));
      }
      case 'd':
      case 'i':
      case 'u': {
        if (!value.is_number()) problem("%d format: a real number is required, not {}", type_name(value));
        if (std::abs(value.number()) >= 9.2e18) problem("a whole number beyond 64 bits");
        spec.type = 'd';
        return whole(spec, value.is_whole() ? value.whole() : static_cast<std::int64_t>(value.number()));
      }
      case 'x':
      case 'X':
      case 'o':
        if (!value.is_whole()) problem("%{} format: an integer is required, not {}", type, type_name(value));
        spec.type = type;
        return whole(spec, value.whole());
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (!value.is_number()) problem("must be real number, not {}", type_name(value));
        spec.type = type;
        return format_float(spec, value.number());
      default: problem("unsupported format character '{}'", type >= ' ' && type < 0x7F ? type : '?');
    }
  }

  // A precision gives the least number of digits.
  static std::string whole(const Spec& spec, std::int64_t value) {
    if (spec.precision < 0) return format_whole(spec, value);
    Spec digits = spec;
    digits.width = spec.precision + (value < 0 ? 1 : 0);
    digits.align = '=';
    digits.fill = '0';
    Spec outer = spec;
    if (outer.fill == '0') outer.fill = ' ', outer.align = '>';
    return padded(outer, "", format_whole(digits, value), '>');
  }

  const std::string& format_;
  const Value& values_;
  std::size_t at_ = 0, taken_ = 0;
};

// ---- "…".format(…)

Spec parse_spec(const std::string& text) {
  const std::u32string codes = decode_text(text);
  Spec spec;
  std::size_t at = 0;
  const auto is_align = [](char32_t c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (codes.size() > 1 && is_align(codes[1])) {
    spec.fill = codes[0];
    spec.align = static_cast<char>(codes[1]);
    at = 2;
  } else if (!codes.empty() && is_align(codes[0])) {
    spec.align = static_cast<char>(codes[0]);
    at = 1;
  }
  const auto look = [&] { return at < codes.size() ? codes[at] : U'\0'; };
  if (look() == '+' || look() == '-' || look() == ' ') spec.sign = static_cast<char>(codes[at++]);
  if (look() == '#') spec.alternate = true, ++at;
  if (look() == '0') {
    if (spec.align == 0) spec.align = '=', spec.fill = '0';
    ++at;
  }
  const auto number = [&] {
    std::int64_t value = 0;
    while (look() >= '0' && look() <= '9') {
      value = value * 10 + static_cast<std::int64_t>(codes[at++] - '0');
      if (value > kWidest) problem("a field wider than {}", kWidest);
    }
    return value;
  };
  spec.width = number();
  if (look() == ',' || look() == '_') spec.grouped = true, spec.group = static_cast<char>(codes[at++]);
  if (look() == '.') ++at, spec.precision = number();
  if (at < codes.size() && codes[at] < 0x80) spec.type = static_cast<char>(codes[at++]);
  if (at != codes.size()) problem("invalid format specifier");
  return spec;
}

std::string format_value(const Value& value, const std::string& spec_text) {
  if (spec_text.empty()) return str(value);
  const Spec spec = parse_spec(spec_text);
  const auto unknown = [&]() {
    problem("unknown format code '{}' for object of type '{}'", spec.type, type_name(value));
  };
  if (value.is_string()) {
    if ((spec.type != 0 && spec.type != 's') || spec.align == '=') {
      if (spec.align == '=' && spec.fill == '0' && (spec.type == 0 || spec.type == 's')) {
        Spec left = spec;
        left.align = '<';
        return padded(left, "", cut(value.text(), spec.precision), '<');
      }
      unknown();
    }
    return padded(spec, "", cut(value.text(), spec.precision), '<');
  }
  const bool is_float_type = std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos && spec.type != 0;
  if (value.is(Kind::real) || (value.is_whole() && is_float_type)) {
    if (spec.type != 0 && !is_float_type) unknown();
    return format_float(spec, value.number());
  }
  if (value.is_whole()) {
    if (spec.precision >= 0) problem("Precision not allowed in integer format specifier");
    if (spec.type != 0 && std::string_view("dxXob").find(spec.type) == std::string_view::npos) unknown();
    return format_whole(spec, value.whole());
  }
  problem("unsupported format string passed to {}.__format__", type_name(value));
}

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& run, const Arguments& arguments) : run_(run), arguments_(arguments) {}

  std::string format(std::string_view text, int depth) {
    if (depth > 1) problem("Max string recursion exceeded");
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
      const char c = text[at];
      if ((c == '{' || c == '}') && text.substr(at + 1, 1) == text.substr(at, 1)) {
        out += c;
        at += 2;
      } else if (c == '{') {
        const std::size_t end = field_end(text, at + 1);
        out += field(text.substr(at + 1, end - at - 1), depth);
        at = end + 1;
      } else if (c == '}') {
        problem("Single '}}' encountered in format string");
      } else {
        out += c;
        ++at;
      }
      if (out.size() > kLimits.text_bytes) problem("a text of more than {} bytes", kLimits.text_bytes);
    }
    return out;
  }

 private:
  static std::size_t field_end(std::string_view text, std::size_t at) {
    for (int open = 1; at < text.size(); ++at) {
      if (text[at] == '{') ++open;
      if (text[at] == '}' && --open == 0) return at;
    }
    problem("expected '}}' before end of string");
  }

  std::string field(std::string_view text, int depth) {
    const std::size_t colon = text.find_first_of(":!");
    std::string_view name = text.substr(0, colon);
    std::string_view rest = colon == std::string_view::npos ? "" : text.substr(colon);
    Value value = lookup(name);
    if (rest.starts_with('!')) {
      if (rest.size() < 2 || (rest.size() > 2 && rest[2] != ':')) problem("expected ':' after conversion specifier");
      if (rest[1] == 'r' || rest[1] == 'a')
        value = run_.text(repr(value));
      else if (rest[1] == 's')
        value = run_.text(str(value));
      else
        problem("unknown conversion specifier");
      rest.remove_prefix(2);
    }
    if (rest.starts_with(':')) rest.remove_prefix(1);
    return format_value(value, format(rest, depth + 1));
  }

  Value lookup(std::string_view name) {
    std::size_t end = std::min(name.find_first_of(".["), name.size());
    const std::string first(name.substr(0, end));
    Value value = argument(first);
    while (end < name.size()) {
      const bool is_item = name[end] == '[';
      const std::size_t stop = is_item ? name.find(']', end) : std::min(name.find_first_of(".[", end + 1), name.size());
      if (stop == std::string_view::npos) problem("Missing ']' in format string");
      const std::string key(name.substr(end + 1, stop - end - 1));
      const bool is_index = is_item && !key.empty() && key.size() < 10 &&
                            std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; });
      if (is_index)
        value = run_.item(value, Value::integer(std::stoll(key)));
      else
        value = is_item ? run_.item(value, Value::string(key)) : run_.attribute(value, key);
      if (is_item && value.is_undefined()) problem("{}", value.why());
      end = is_item ? stop + 1 : stop;
    }
    return value;
  }

  Value argument(const std::string& name) {
    const bool is_number = std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (is_number) {
      if (name.size() > 6) problem("Too many decimal digits in format string");
      (name.empty() ? is_automatic_ : is_manual_) = true;
      if (is_automatic_ && is_manual_) problem("cannot mix automatic field numbering and manual field specification");
      const std::size_t index = name.empty() ? automatic_++ : static_cast<std::size_t>(std::stoul(name));
      if (index >= arguments_.positional.size())
        problem("Replacement index {} out of range for positional args tuple", index);
      return arguments_.positional[index];
    }
    for (const auto& [known, value] : arguments_.named)
      if (known == name) return value;
    problem("no argument '{}' for the format", name.substr(0, 60));
  }

  Interpreter& run_;
  const Arguments& arguments_;
  std::size_t automatic_ = 0;
  bool is_automatic_ = false, is_manual_ = false;
};

}  // namespace

std::string percent_format(Interpreter& run, const std::string& format, const Value& values) {
  run.charge(format.size());
  return PercentFormatter(format, values).run();
}

std::string brace_format(Interpreter& run, const std::string& format, const Arguments& arguments) {
  run.charge(format.size());
  return BraceFormatter(run, arguments).format(format, 0);
}

}  // namespace llmfp8::jinja
