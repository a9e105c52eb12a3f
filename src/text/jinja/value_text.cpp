// Python's str() and repr(), and json.dumps, of a template's values. Called by the interpreter and its filters.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja/code_points.h"
#include "text/jinja/value.h"

namespace llmfp8::jinja {

namespace {

std::string quoted(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos,
             has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (const char32_t code : decode_text(text)) {
    if (code == static_cast<char32_t>(quote) || code == '\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code == '\n') {
      out += "\\n";
    } else if (code == '\r') {
      out += "\\r";
    } else if (code == '\t') {
      out += "\\t";
    } else if (is_printable(code)) {
      append_utf8(out, code);
    } else if (code < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(code));
    } else if (code < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(code));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<unsigned>(code));
    }
  }
  return out + quote;
}

std::string joined(const Values& items) {
  std::string out;
  for (const Value& item : items) {
    if (!out.empty()) out += ", ";
    out += repr(item);
    if (out.size() > kLimits.text_bytes) problem("a text of more than {} bytes", kLimits.text_bytes);
  }
  return out;
}

std::string dict_text(const Entries& entries) {
  std::string out = "{";
  for (const auto& [key, value] : entries) {
    if (out.size() > 1) out += ", ";
    out += repr(key) + ": " + repr(value);
    if (out.size() > kLimits.text_bytes) problem("a text of more than {} bytes", kLimits.text_bytes);
  }
  return out + "}";
}

// Writes JSON as Python's json.dumps.
class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}

  void write(const Value& value) {
    if (out_.size() > kLimits.text_bytes) problem("a text of more than {} bytes", kLimits.text_bytes);
    switch (value.kind()) {
      case Kind::none: out_ += "null"; return;
      case Kind::boolean: out_ += value.whole() != 0 ? "true" : "false"; return;
      case Kind::integer: out_ += std::to_string(value.whole()); return;
      case Kind::real: out_ += number(value.number()); return;
      case Kind::string: write_string(value.text()); return;
      case Kind::list:
      case Kind::tuple: write_list(value.items()); return;
      case Kind::dict: write_dict(value.entries()); return;
      default: problem("Object of type {} is not JSON serializable", type_name(value));
    }
  }
  std::string take() { return std::move(out_); }

 private:
  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return real_text(value);
  }

  void write_string(std::string_view text) {
    out_ += '"';
    for (std::size_t at = 0; at < text.size();) {
      const char c = text[at];
      if (static_cast<unsigned char>(c) < 0x80) {
        write_ascii(c);
        ++at;
        continue;
      }
      const std::size_t size = code_point_bytes(text, at);
      if (style_.ensure_ascii)
        write_escaped(decode_text(text.substr(at, size))[0]);
      else
        out_ += text.substr(at, size);
      at += size;
    }
    out_ += '"';
  }

  void write_ascii(char c) {
    switch (c) {
      case '"': out_ += "\\\""; return;
      case '\\': out_ += "\\\\"; return;
      case '\n': out_ += "\\n"; return;
      case '\r': out_ += "\\r"; return;
      case '\t': out_ += "\\t"; return;
      case '\f': out_ += "\\f"; return;
      case '\b': out_ += "\\b"; return;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          out_ += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        else
          out_ += c;
    }
  }

  void write_escaped(char32_t code) {
    const auto unit = [&](unsigned value) { out_ += fmt::format("\\u{:04x}", value); };
    if (code < 0x10000) return unit(static_cast<unsigned>(code));
    const auto rest = static_cast<unsigned>(code) - 0x10000U;
    unit(0xD800U + (rest >> 10));
    unit(0xDC00U + (rest & 0x3FFU));
  }

  void write_list(const Values& items) {
    if (items.empty()) {
      out_ += "[]";
      return;
    }
    open('[');
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) next();
      write(items[i]);
    }
    close(']');
  }

  void write_dict(const Entries& given) {
    if (given.empty()) {
      out_ += "{}";
      return;
    }
    Entries sorted;
    if (style_.sort_keys) {
      sorted = given;
      std::stable_sort(sorted.begin(), sorted.end(),
                       [](const auto& a, const auto& b) { return compare(a.first, b.first, "<") < 0; });
    }
    const Entries& entries = style_.sort_keys ? sorted : given;
    open('{');
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) next();
      write_string(key_text(entries[i].first));
      out_ += style_.key_separator;
      write(entries[i].second);
    }
    close('}');
  }

  static std::string key_text(const Value& key) {
    switch (key.kind()) {
      case Kind::string: return key.text();
      case Kind::none: return "null";
      case Kind::boolean: return key.whole() != 0 ? "true" : "false";
      case Kind::integer: return std::to_string(key.whole());
      case Kind::real: return number(key.number());
      default: problem("keys must be str, int, float, bool or None, not {}", type_name(key));
    }
  }

  void line() {
    out_ += '\n';
    for (int i = 0; i < level_; ++i) out_ += *style_.indent;
  }
  void open(char c) {
    out_ += c;
    ++level_;
    if (style_.indent) line();
  }
  void next() {
    out_ += style_.item_separator;
    if (style_.indent) line();
  }
  void close(char c) {
    --level_;
    if (style_.indent) line();
    out_ += c;
  }

  const JsonStyle& style_;
  std::string out_;
  int level_ = 0;
};

}  // namespace

std::string real_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
  const std::size_t e = text.find('e');
  const int exponent = std::stoi(std::string(text.substr(e + 1)));
  if (exponent < -4 || exponent >= 16) return std::string(text);
  std::string digits;
  for (const char c : text.substr(0, e))
    if (c >= '0' && c <= '9') digits += c;
  std::string out = std::signbit(value) ? "-" : "";
  if (exponent < 0) return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string str(const Value& value) {
  if (value.is_undefined()) return "";
  return value.is_string() ? value.text() : repr(value);
}

std::string repr(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined: return "Undefined";
    case Kind::none: return "None";
    case Kind::boolean: return value.whole() != 0 ? "True" : "False";
    case Kind::integer: return std::to_string(value.whole());
    case Kind::real: return real_text(value.number());
    case Kind::string:
      return value.is_markup() ? fmt::format("Markup({})", quoted(value.text())) : quoted(value.text());
    case Kind::list: return fmt::format("[{}]", joined(value.items()));
    case Kind::tuple: return fmt::format("({}{}", joined(value.items()), value.items().size() == 1 ? ",)" : ")");
    case Kind::dict: return dict_text(value.entries());
    case Kind::range: {
      const auto& range = value.as<RangeObject>();
      return range.step == 1 ? fmt::format("range({}, {})", range.start, range.stop)
                             : fmt::format("range({}, {}, {})", range.start, range.stop, range.step);
    }
    case Kind::view: return fmt::format("{}([{}])", type_name(value), joined(value.items()));
    default: problem("a {} cannot be written as text", type_name(value));
  }
}

std::string to_json(const Value& value, const JsonStyle& style) {
  JsonWriter writer(style);
  writer.write(value);
  return writer.take();
}

}  // namespace llmfp8::jinja
