// From a pattern of tokenizer.json (Oniguruma's Ruby syntax) to the PCRE2 pattern of the same meaning. Called by Regex.
#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "text/regex.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace llmfp8 {
namespace {

// PCRE2's own \s counts U+180E, which is white space neither for HF nor for Unicode.
constexpr std::string_view kSpaces = "\\t-\\r\\x{85}\\p{Z}";
constexpr std::string_view kSpaceClass = "[\\t-\\r\\x{85}\\p{Z}]";
constexpr std::string_view kNonSpaceClass = "[^\\t-\\r\\x{85}\\p{Z}]";

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& origin) : in_(pattern), origin_(origin) {}

  std::string run() {
    while (at_ < in_.size()) step();
    if (in_class_) refuse("a [ without its ]");
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail(
        "{}: the pre-tokenizer's regex uses {}, which is not supported (supported: \\s \\S \\d \\D \\p{{..}} \\P{{..}} "
        "\\r \\n \\t \\f "
        "\\xHH \\x{{H..}}, escaped punctuation, [..], [^..], groups (?:..) (?i:..) (?>..) and lookarounds)",
        origin_, what);
  }

  bool looking_at(std::string_view text) const { return in_.substr(at_).substr(0, text.size()) == text; }

  void copy(std::size_t size) {
    out_ += in_.substr(at_, size);
    at_ += size;
  }

  void step() {
    const char c = in_[at_];
    if (c == '\\') return escape();
    if (in_class_) return class_member(c);
    if (c == '[') return open_class();
    if (c == '(') return group();
    if (c == '{' && looking_at("{,")) refuse("the repeat {,n}");
    if (c == '}' && at_ + 1 < in_.size() && in_[at_ + 1] == '+') refuse("}+");
    copy(1);
  }

  void open_class() {
    in_class_ = true;
    copy(looking_at("[^") ? 2 : 1);
    if (looking_at("]")) refuse("an empty class or one that starts with ]");
  }

  void class_member(char c) {
    if (c == '[') refuse("a class inside a class");
    if (looking_at("&&")) refuse("&& in a class");
    if (c == ']') in_class_ = false;
    copy(1);
  }

  void group() {
    for (const std::string_view start : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (looking_at(start)) return copy(start.size());
    }
    if (looking_at("(?") || looking_at("(*")) refuse(fmt::format("\"{}\"", in_.substr(at_, 3)));
    copy(1);
  }

  void escape() {
    if (at_ + 1 >= in_.size()) refuse("a \\ at its end");
    const char c = in_[at_ + 1];
    switch (c) {
      case 's':
        out_ += in_class_ ? kSpaces : kSpaceClass;
        at_ += 2;
        return;
      case 'S':
        if (in_class_) refuse("\\S inside [ ]");
        out_ += kNonSpaceClass;
        at_ += 2;
        return;
      case 'd': return category("Nd", false, 2);
      case 'D': return category("Nd", true, 2);
      case 'p':
      case 'P': return property();
      case 'x': return hexadecimal();
      case 'r':
      case 'n':
      case 't':
      case 'f': return copy(2);
      default:
        if (std::ispunct(static_cast<unsigned char>(c)) != 0) return copy(2);
        refuse(fmt::format("\"{}\"", in_.substr(at_, 1 + code_point_at(in_, at_ + 1).size)));
    }
  }

  void property() {
    const std::size_t close = in_.find('}', at_);
    if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || close == std::string_view::npos) refuse("\\p without {name}");
    category(in_.substr(at_ + 3, close - at_ - 3), in_[at_ + 1] == 'P', close + 1 - at_);
  }

  // size: of the escape in the pattern.
  void category(std::string_view name, bool negated, std::size_t size) {
    const auto extra = new_members_of(name);
    if (!extra && name != "Z" && name != "Zs") {
      refuse(fmt::format("\"{}\" (of the categories, L Lu Ll Lt Lm Lo M N Nd Nl No P Z are known)",
                         in_.substr(at_, std::min<std::size_t>(size, 40))));
    }
    if (in_class_ && negated) refuse("a negated category inside [ ]");
    if (!in_class_) out_.append(negated ? std::string_view("[^") : std::string_view("["));
    out_.append("\\p{").append(name).append("}");
    if (extra) {
      for (const CodeRange& range : *extra) {
        out_ += fmt::format("\\x{{{:X}}}-\\x{{{:X}}}", std::uint32_t{range.first}, std::uint32_t{range.last});
      }
    }
    if (!in_class_) out_ += "]";
    at_ += size;
  }

  void hexadecimal() {
    const auto is_hex = [&](std::size_t i) {
      return i < in_.size() && std::isxdigit(static_cast<unsigned char>(in_[i])) != 0;
    };
    if (at_ + 2 < in_.size() && in_[at_ + 2] == '{') {
      const std::size_t close = in_.find('}', at_);
      if (close == std::string_view::npos || close - at_ < 4 || close - at_ > 9)
        refuse("\\x{ } with other than 1 to 6 digits");
      for (std::size_t i = at_ + 3; i < close; ++i) {
        if (!is_hex(i)) refuse("\\x{ } with other than hexadecimal digits");
      }
      return copy(close + 1 - at_);
    }
    // A byte above 7F would be a raw byte there and a code point here.
    if (!is_hex(at_ + 2) || !is_hex(at_ + 3) || in_[at_ + 2] > '7') refuse("\\x with other than two digits up to 7F");
    copy(4);
  }

  std::string_view in_;
  const std::string& origin_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

std::string translate_regex(std::string_view pattern, const std::string& origin) {
  return Translator(pattern, origin).run();
}

}  // namespace llmfp8
