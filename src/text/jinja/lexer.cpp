// Source of a template to tokens, by jinja2's own rules. Called by the parser.
#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "text/jinja/code_points.h"
#include "text/jinja/problem.h"

namespace llmfp8::jinja {

namespace {

constexpr auto kNone = std::string_view::npos;

bool is_decimal_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name_part(char c) { return is_name_start(c) || is_decimal_digit(c); }

// "\r\n" and "\r" become "\n"; one newline at the end goes.
std::string normalised(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : owned_(normalised(source)), source_(owned_) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text_and_tag();
    add(TokenType::end, "");
    return std::move(tokens_);
  }

 private:
  enum class Tag { variable, block, comment };

  [[noreturn]] void wrong(const std::string& what) const { problem("line {}: {}", line_, what); }

  void add(TokenType type, std::string text) { tokens_.push_back(Token{type, line_, std::move(text), 0, 0}); }

  // Goes on to `end`, counting lines.
  void advance(std::size_t end) {
    for (; at_ < end; ++at_)
      if (source_[at_] == '\n') ++line_;
    line_starting_ = end > 0 && source_[end - 1] == '\n';
  }

  void skip_spaces() { advance(source_.size() - strip_left(source_.substr(at_)).size()); }

  // The text before a tag that begins at `tag` with the given sign.
  void add_text(std::size_t tag, char sign, bool is_variable) {
    std::string_view text = source_.substr(at_, tag - at_);
    if (sign == '-') {
      text = strip_right(text);
    } else if (sign != '+' && !is_variable) {
      const std::size_t newline = text.rfind('\n');
      const std::size_t from = newline == kNone ? 0 : newline + 1;
      if ((from > 0 || line_starting_) && strip_left(text.substr(from)).empty()) text = text.substr(0, from);
    }
    if (!text.empty()) add(TokenType::data, std::string(text));
    advance(tag);
  }

  char sign_at(std::size_t at) const {
    return at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : ' ';
  }

  void text_and_tag() {
    std::size_t tag = at_;
    for (; tag < source_.size(); ++tag) {
      if (source_[tag] != '{' || tag + 1 >= source_.size()) continue;
      const char next = source_[tag + 1];
      if (next == '{' || next == '%' || next == '#') break;
    }
    if (tag >= source_.size()) {
      add(TokenType::data, std::string(source_.substr(at_)));
      advance(source_.size());
      return;
    }
    const Tag kind = source_[tag + 1] == '{' ? Tag::variable : source_[tag + 1] == '%' ? Tag::block : Tag::comment;
    const char sign = sign_at(tag + 2);
    add_text(tag, sign, kind == Tag::variable);
    const std::size_t behind = tag + (sign == ' ' ? 2 : 3);
    if (kind == Tag::comment) return comment(behind);
    if (kind == Tag::block && raw(behind)) return;
    add(kind == Tag::variable ? TokenType::variable_begin : TokenType::block_begin, "");
    advance(behind);
    inside(kind);
  }

  // Behind the end of a tag: the newline, or with '-' all white space.
  void end_of_tag(std::size_t end, char sign, bool trim) {
    advance(end);
    if (sign == '-') {
      skip_spaces();
      if (end == at_) line_starting_ = false;
    } else if (sign != '+' && trim && at_ < source_.size() && source_[at_] == '\n') {
      advance(at_ + 1);
    }
  }

  void comment(std::size_t from) {
    const std::size_t end = source_.find("#}", from);
    if (end == kNone) wrong("a comment has no end");
    const char sign = end > from && (source_[end - 1] == '-' || source_[end - 1] == '+') ? source_[end - 1] : ' ';
    end_of_tag(end + 2, sign, true);
  }

  // The end of a tag `word` whose name may begin at `at`: its end and sign.
  struct WordTag {
    std::size_t end;
    char sign;
  };
  std::optional<WordTag> word_tag(std::size_t at, std::string_view word, bool plus_allowed) const {
    const auto skip = [&](std::size_t from) { return source_.size() - strip_left(source_.substr(from)).size(); };
    at = skip(at);
    if (source_.substr(at, word.size()) != word) return std::nullopt;
    at = skip(at + word.size());
    char sign = ' ';
    if (at < source_.size() && (source_[at] == '-' || (plus_allowed && source_[at] == '+'))) sign = source_[at++];
    if (source_.substr(at, 2) != "%}") return std::nullopt;
    return WordTag{at + 2, sign};
  }

  bool raw(std::size_t behind) {
    const std::optional<WordTag> begin = word_tag(behind, "raw", false);
    if (!begin) return false;
    end_of_tag(begin->end, begin->sign, false);
    for (std::size_t tag = source_.find("{%", at_); tag != kNone; tag = source_.find("{%", tag + 1)) {
      const char sign = sign_at(tag + 2);
      const std::optional<WordTag> end = word_tag(tag + (sign == ' ' ? 2 : 3), "endraw", true);
      if (!end) continue;
      add_text(tag, sign, false);
      end_of_tag(end->end, end->sign, true);
      return true;
    }
    wrong("{% raw %} has no {% endraw %}");
  }

  void inside(Tag kind) {
    const std::string_view close = kind == Tag::variable ? "}}" : "%}";
    const TokenType type = kind == Tag::variable ? TokenType::variable_end : TokenType::block_end;
    std::vector<char> open;
    while (true) {
      skip_spaces();
      if (at_ >= source_.size()) wrong(fmt::format("'{}' is missing", close));
      if (open.empty()) {
        const char c = source_[at_];
        const bool may_sign = c == '-' || (c == '+' && kind == Tag::block);
        const char sign = may_sign && source_.substr(at_ + 1, 2) == close ? c : ' ';
        if (sign != ' ' || source_.substr(at_, 2) == close) {
          add(type, "");
          end_of_tag(at_ + (sign == ' ' ? 2 : 3), sign, kind == Tag::block);
          return;
        }
      }
      token(open);
    }
  }

  void token(std::vector<char>& open) {
    const char c = source_[at_];
    if (is_decimal_digit(c)) return number();
    if (is_name_start(c)) {
      std::size_t end = at_;
      while (end < source_.size() && is_name_part(source_[end])) ++end;
      add(TokenType::name, std::string(source_.substr(at_, end - at_)));
      return advance(end);
    }
    if (c == '\'' || c == '"') return string(c);
    op(open);
  }

  // Digits with single underscores between them; the end.
  std::size_t digits(std::size_t at) const {
    std::size_t end = at;
    while (end < source_.size() &&
           (is_decimal_digit(source_[end]) ||
            (source_[end] == '_' && end > at && end + 1 < source_.size() && is_decimal_digit(source_[end + 1]))))
      ++end;
    return end;
  }

  bool after_dot() const { return at_ > 0 && source_[at_ - 1] == '.'; }

  bool real_number() {
    if (after_dot()) return false;
    std::size_t end = digits(at_);
    bool is_real = false;
    if (end < source_.size() && source_[end] == '.' && digits(end + 1) > end + 1) {
      end = digits(end + 1);
      is_real = true;
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const std::size_t from =
          end + 1 < source_.size() && (source_[end + 1] == '-' || source_[end + 1] == '+') ? end + 2 : end + 1;
      if (digits(from) > from) {
        end = digits(from);
        is_real = true;
      }
    }
    if (!is_real) return false;
    std::string text(source_.substr(at_, end - at_));
    std::erase(text, '_');
    add(TokenType::real, "");
    const auto result = std::from_chars(text.data(), text.data() + text.size(), tokens_.back().real);
    if (result.ec != std::errc()) wrong("a number out of range");
    advance(end);
    return true;
  }

  void number() {
    if (real_number()) return;
    int base = 10;
    std::size_t from = at_, end = at_;
    const char second = at_ + 1 < source_.size() ? static_cast<char>(source_[at_ + 1] | 0x20) : ' ';
    if (source_[at_] == '0' && (second == 'x' || second == 'o' || second == 'b')) {
      base = second == 'x' ? 16 : second == 'o' ? 8 : 2;
      from = end = at_ + 2;
      while (end < source_.size() && (is_name_part(source_[end]))) ++end;
    } else if (source_[at_] == '0') {
      while (end < source_.size() &&
             (source_[end] == '0' || (source_[end] == '_' && source_.substr(end + 1, 1) == "0")))
        ++end;
    } else {
      end = digits(at_);
    }
    std::string text(source_.substr(from, end - from));
    std::erase(text, '_');
    add(TokenType::integer, "");
    const auto result = std::from_chars(text.data(), text.data() + text.size(), tokens_.back().integer, base);
    if (result.ec != std::errc() || result.ptr != text.data() + text.size()) wrong("not a number of 64 bits");
    advance(end);
  }

  void string(char quote) {
    std::size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) wrong("a string has no end");
    add(TokenType::string, unescaped(source_.substr(at_ + 1, end - at_ - 1)));
    advance(end + 1);
  }

  std::string unescaped(std::string_view text) const {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 == text.size()) {
        out += text[i];
        continue;
      }
      const char c = text[++i];
      constexpr std::string_view kNames = "ntrabfv\\'\"", kValues = "\n\t\r\a\b\f\v\\'\"";
      const std::size_t known = kNames.find(c);
      if (known != kNone)
        out += kValues[known];
      else if (c >= '0' && c <= '7')
        i = octal(text, i, out);
      else if (c == 'x' || c == 'u' || c == 'U')
        i = hexadecimal(text, i, out);
      else if (c == 'N')
        wrong("\\N{…} in a string is not supported");
      else if (c != '\n')
        out.append({'\\', c});
    }
    return out;
  }

  static std::size_t octal(std::string_view text, std::size_t at, std::string& out) {
    char32_t code = 0;
    std::size_t end = at;
    for (; end < text.size() && end < at + 3 && text[end] >= '0' && text[end] <= '7'; ++end)
      code = code * 8 + static_cast<char32_t>(text[end] - '0');
    append_utf8(out, code);
    return end - 1;
  }

  std::size_t hexadecimal(std::string_view text, std::size_t at, std::string& out) const {
    const std::size_t wanted = text[at] == 'x' ? 2 : text[at] == 'u' ? 4 : 8;
    const std::string_view digits = text.substr(at + 1, wanted);
    std::uint32_t code = 0;
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() != wanted || result.ptr != digits.data() + digits.size())
      wrong(fmt::format("truncated \\{} in a string", text[at]));
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) wrong("a \\u in a string is no character");
    append_utf8(out, static_cast<char32_t>(code));
    return at + wanted;
  }

  void op(std::vector<char>& open) {
    static constexpr std::array<std::string_view, 6> kLong = {"//", "**", "==", "!=", ">=", "<="};
    const std::string_view two = source_.substr(at_, 2);
    std::string_view text = source_.substr(at_, 1);
    if (std::find(kLong.begin(), kLong.end(), two) != kLong.end()) text = two;
    const char c = text[0];
    if (text.size() == 1 && std::string_view("+-/*%~[](){}<>=.:|,;").find(c) == kNone) {
      const std::size_t size = code_point_bytes(source_, at_);
      wrong(
          fmt::format("unexpected char '{}'", static_cast<unsigned char>(c) < 0x20 ? "?" : source_.substr(at_, size)));
    }
    if (c == '(' || c == '[' || c == '{') open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) wrong(fmt::format("unexpected '{}'", c));
      open.pop_back();
    }
    add(TokenType::op, std::string(text));
    advance(at_ + text.size());
  }

  std::string owned_;
  std::string_view source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace llmfp8::jinja
