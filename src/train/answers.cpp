#include "train/answers.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

namespace llmfp8 {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// text[open] is '{'. The position behind its closing brace; npos if there is none. \{ and \} do not count.
std::size_t behind_group(std::string_view text, std::size_t open) {
  std::size_t depth = 0;
  for (std::size_t i = open; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

// Every `from` becomes `to`.
void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// \text{apples} → apples, for the commands that only dress their argument.
void unwrap_commands(std::string& text) {
  for (std::string_view command :
       {"\\text", "\\textbf", "\\textit", "\\mathrm", "\\mathbf", "\\mbox", "\\boxed", "\\mathit"}) {
    const std::string opening = std::string(command) + "{";
    for (std::size_t at = text.find(opening); at != std::string::npos; at = text.find(opening, at)) {
      const std::size_t open = at + command.size(), behind = behind_group(text, open);
      if (behind == std::string::npos) break;
      text = text.substr(0, at) + " " + text.substr(open + 1, behind - open - 2) + " " + text.substr(behind);
    }
  }
}

// "1,234,567" → "1234567"; "(1,2)" and "1,23" stay.
std::string without_thousands_commas(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool three = i + 3 < text.size() && is_digit(text[i + 1]) && is_digit(text[i + 2]) && is_digit(text[i + 3]) &&
                       !(i + 4 < text.size() && is_digit(text[i + 4]));
    if (text[i] == ',' && !out.empty() && is_digit(out.back()) && three) continue;
    out += text[i];
  }
  return out;
}

std::string trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return std::string(text);
}

// "x = 5" → "5": a name and one equals sign before the answer.
std::string without_name(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || text.find('=', equals + 1) != std::string::npos) return text;
  const std::string left = trimmed(std::string_view(text).substr(0, equals));
  const bool is_name = !left.empty() && left.size() <= 20 &&
                       std::all_of(left.begin(), left.end(), [](char c) { return is_letter(c) || c == '_'; });
  return is_name ? trimmed(std::string_view(text).substr(equals + 1)) : text;
}

// "5 apples per day" → "5", "72 km/h" → "72": words behind a number that stands alone. "5x" and "5 \pi" stay.
std::string without_unit(const std::string& text) {
  std::size_t end = 0;
  if (end < text.size() && (text[end] == '-' || text[end] == '+')) ++end;
  const std::size_t digits = end;
  while (end < text.size() && (is_digit(text[end]) || text[end] == '.' || text[end] == '/')) ++end;
  if (end == digits || end == text.size() || !is_digit(text[end - 1]) || !is_blank(text[end])) return text;
  const bool are_words = std::all_of(text.begin() + static_cast<std::ptrdiff_t>(end), text.end(), [](char c) {
    return is_letter(c) || is_blank(c) || c == '/' || c == '.' || c == '-' || c == '(' || c == ')';
  });
  return are_words ? text.substr(0, end) : text;
}

// A decimal number or whole one at the front of text; moves text behind it.
std::optional<Fraction> take_number(std::string_view& text) {
  std::int64_t numerator = 0, denominator = 1;
  std::size_t digits = 0, i = 0;
  bool after_point = false;
  constexpr std::int64_t kMost = (std::numeric_limits<std::int64_t>::max() - 9) / 10;
  for (; i < text.size(); ++i) {
    if (text[i] == '.' && !after_point) {
      after_point = true;
    } else if (is_digit(text[i])) {
      if (numerator > kMost || denominator > kMost) return std::nullopt;
      numerator = numerator * 10 + (text[i] - '0');
      if (after_point) denominator *= 10;
      ++digits;
    } else {
      break;
    }
  }
  if (digits == 0) return std::nullopt;
  text.remove_prefix(i);
  const std::int64_t divisor = std::gcd(numerator, denominator);
  return Fraction{numerator / divisor, denominator / divisor};
}

std::optional<Fraction> in_lowest_terms(__int128 numerator, __int128 denominator) {
  if (denominator == 0) return std::nullopt;
  if (denominator < 0) numerator = -numerator, denominator = -denominator;
  __int128 a = numerator < 0 ? -numerator : numerator, b = denominator;
  while (b != 0) {
    const __int128 rest = a % b;
    a = b;
    b = rest;
  }
  numerator /= a, denominator /= a;
  constexpr __int128 kMost = std::numeric_limits<std::int64_t>::max();
  if (numerator > kMost || numerator < -kMost || denominator > kMost) return std::nullopt;
  return Fraction{static_cast<std::int64_t>(numerator), static_cast<std::int64_t>(denominator)};
}

std::optional<Fraction> quotient(const Fraction& a, const Fraction& b) {
  return in_lowest_terms(static_cast<__int128>(a.numerator) * b.denominator,
                         static_cast<__int128>(a.denominator) * b.numerator);
}

std::optional<Fraction> sum(const Fraction& a, const Fraction& b) {
  return in_lowest_terms(
      static_cast<__int128>(a.numerator) * b.denominator + static_cast<__int128>(b.numerator) * a.denominator,
      static_cast<__int128>(a.denominator) * b.denominator);
}

// "\frac{3}{4}", "\frac34" at the front of text.
std::optional<Fraction> take_frac(std::string_view& text) {
  constexpr std::string_view kFrac = "\\frac";
  if (!text.starts_with(kFrac)) return std::nullopt;
  text.remove_prefix(kFrac.size());
  std::array<Fraction, 2> parts;
  for (Fraction& part : parts) {
    std::string_view digits;
    if (text.starts_with('{')) {
      const std::size_t behind = behind_group(text, 0);
      if (behind == std::string_view::npos) return std::nullopt;
      digits = text.substr(1, behind - 2);
      text.remove_prefix(behind);
    } else {
      digits = text.substr(0, 1);
      text.remove_prefix(digits.size());
    }
    const bool negative = digits.starts_with('-');
    if (negative) digits.remove_prefix(1);
    const auto number = take_number(digits);
    if (!number || !digits.empty()) return std::nullopt;
    part = *number;
    if (negative) part.numerator = -part.numerator;
  }
  return quotient(parts[0], parts[1]);
}

// The whole of text: a number, a/b, \frac{a}{b}, or a whole number before one of the two.
std::optional<Fraction> unsigned_value(std::string_view text) {
  if (text.starts_with('\\')) {
    const auto fraction = take_frac(text);
    return text.empty() ? fraction : std::nullopt;
  }
  const auto number = take_number(text);
  if (!number || text.empty()) return number;
  if (text.starts_with('/')) {
    text.remove_prefix(1);
    const auto below = take_number(text);
    return below && text.empty() ? quotient(*number, *below) : std::nullopt;
  }
  if (number->denominator != 1) return std::nullopt;
  if (text.starts_with('\\')) {
    const auto fraction = take_frac(text);
    return fraction && text.empty() && fraction->numerator >= 0 ? sum(*number, *fraction) : std::nullopt;
  }
  if (!text.starts_with(' ')) return std::nullopt;
  text.remove_prefix(1);
  if (text.find('/') == std::string_view::npos) return std::nullopt;
  const auto fraction = unsigned_value(text);
  return fraction ? sum(*number, *fraction) : std::nullopt;
}

std::string last_box(std::string_view text) {
  constexpr std::string_view kBox = "\\boxed{";
  for (std::size_t at = text.rfind(kBox); at != std::string_view::npos;
       at = at == 0 ? std::string_view::npos : text.rfind(kBox, at - 1)) {
    const std::size_t open = at + kBox.size() - 1, behind = behind_group(text, open);
    if (behind != std::string_view::npos) return std::string(text.substr(open + 1, behind - open - 2));
  }
  return "";
}

// The last \frac{a}{b} whose end is the text's last number; empty if the last number is not in one.
std::string last_frac(std::string_view text, std::size_t last_digit) {
  const std::size_t at = text.rfind("\\frac{");
  if (at == std::string_view::npos) return "";
  const std::size_t middle = behind_group(text, at + 5);
  if (middle == std::string_view::npos || middle >= text.size() || text[middle] != '{') return "";
  const std::size_t behind = behind_group(text, middle);
  if (behind == std::string_view::npos || last_digit >= behind) return "";
  const bool negative = at > 0 && text[at - 1] == '-';
  return std::string(text.substr(negative ? at - 1 : at, behind - (negative ? at - 1 : at)));
}

std::string last_number(std::string_view text) {
  std::size_t last = text.size();
  while (last > 0 && !is_digit(text[last - 1])) --last;
  if (last == 0) return "";
  if (std::string frac = last_frac(text, last - 1); !frac.empty()) return frac;
  std::size_t begin = last;
  bool seen_slash = false;
  while (begin > 0) {
    const char c = text[begin - 1];
    const bool joins = begin > 1 && (c == '.' || c == ',' || (c == '/' && !seen_slash)) && is_digit(text[begin - 2]) &&
                       is_digit(text[begin]);
    // ".5"
    const bool leads = c == '.' && is_digit(text[begin]) &&
                       (begin == 1 || is_blank(text[begin - 2]) || text[begin - 2] == '-' || text[begin - 2] == '$');
    if (!is_digit(c) && !joins && !leads) break;
    seen_slash = seen_slash || c == '/';
    --begin;
  }
  std::string number(text.substr(begin, last - begin));
  // A sign, unless it is a subtraction or a hyphen: "5-3", "covid-19".
  std::size_t sign = begin;
  if (sign > 0 && text[sign - 1] == '$') --sign;
  if (sign > 0 && text[sign - 1] == '-') {
    const char before = sign > 1 ? text[sign - 2] : ' ';
    if (!is_digit(before) && !is_letter(before) && before != ')') number.insert(number.begin(), '-');
  }
  return number;
}

}  // namespace

std::string extract_answer(std::string_view text) {
  std::string answer = last_box(text);
  return trimmed(answer).empty() ? last_number(text) : trimmed(answer);
}

std::string normalize_answer(std::string_view answer) {
  std::string text(answer);
  for (std::string_view blank : {"\\ ", "\\,", "\\;", "\\!", "\\:", "~"})
    replace_all(text, blank, blank == "\\!" ? "" : " ");
  for (std::string_view dropped : {"\\$", "$", "\\left", "\\right", "\\%", "%", "^{\\circ}", "^\\circ", "\\degree"})
    replace_all(text, dropped, "");
  for (std::string_view frac : {"\\dfrac", "\\tfrac", "\\cfrac"}) replace_all(text, frac, "\\frac");
  replace_all(text, "{,}", ",");
  replace_all(text, "\xE2\x88\x92", "-");  // U+2212, the minus sign of typesetters
  unwrap_commands(text);
  text = without_thousands_commas(without_name(trimmed(text)));
  while (!text.empty() && (text.back() == '.' || is_blank(text.back()))) text.pop_back();
  text = without_unit(text);
  // One blank between words and before a fraction, none elsewhere.
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!is_blank(text[i])) {
      out += text[i];
      continue;
    }
    while (i + 1 < text.size() && is_blank(text[i + 1])) ++i;
    const char next = i + 1 < text.size() ? text[i + 1] : ' ', before = out.empty() ? ' ' : out.back();
    if ((is_letter(before) || is_digit(before)) && (is_letter(next) || is_digit(next))) out += ' ';
  }
  if (out.starts_with('+')) out.erase(0, 1);
  return out;
}

std::optional<Fraction> answer_value(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  auto value = unsigned_value(text);
  if (value && negative) value->numerator = -value->numerator;
  return value;
}

bool answers_agree(std::string_view a, std::string_view b) {
  const std::string left = normalize_answer(a), right = normalize_answer(b);
  if (left.empty() || right.empty()) return false;
  if (left == right) return true;
  const auto left_value = answer_value(left), right_value = answer_value(right);
  return left_value && right_value && *left_value == *right_value;
}

}  // namespace llmfp8
