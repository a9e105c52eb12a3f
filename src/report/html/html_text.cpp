#include "report/html/html_text.h"

#include <cmath>
#include <ctime>

#include <fmt/format.h>

#include "core/error.h"

namespace llmfp8 {
namespace {

constexpr const char* kDash = "–";
constexpr const char* kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// The bytes of the UTF-8 sequence that begins at text[at]; 0 where none does.
std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xC2 && first <= 0xDF   ? 2
                             : (first & 0xF0) == 0xE0         ? 3
                             : first >= 0xF0 && first <= 0xF4 ? 4
                                                              : 0;
  if (length == 0 || at + length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return 0;
  }
  const unsigned char second = byte(at + 1);
  const bool is_overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool is_no_character = (first == 0xED && second >= 0xA0) || (first == 0xF4 && second >= 0x90);
  return is_overlong || is_no_character ? 0 : length;
}

std::string with_minus(const std::string& text) {
  return text.starts_with('-') ? fmt::format("−{}", text.substr(1)) : text;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text, i);
    const char c = text[i];
    if (length == 0 || (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
      out += kReplacement;
      ++i;
      continue;
    }
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out.append(text, i, length);
    }
    i += length;
  }
  return out;
}

std::string json_for_script(const nlohmann::ordered_json& json) {
  const std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    // Outside of strings JSON has none of these.
    const char c = text[i];
    if (c == '<' || c == '>' || c == '&') {
      out += fmt::format("\\u{:04x}", c);
    } else if (text.compare(i, 3, "\xE2\x80\xA8") == 0 || text.compare(i, 3, "\xE2\x80\xA9") == 0) {
      out += text[i + 2] == '\xA8' ? "\\u2028" : "\\u2029";
      i += 2;
    } else {
      out += c;
    }
  }
  return out;
}

std::string fill_template(std::string_view text, const std::map<std::string, std::string, std::less<>>& values) {
  std::string out;
  for (std::size_t at = 0;;) {
    const std::size_t open = text.find("{{", at);
    out.append(text, at, open == std::string_view::npos ? open : open - at);
    if (open == std::string_view::npos) return out;
    const std::size_t close = text.find("}}", open);
    CHECK(close != std::string_view::npos, "the template has a {{{{ without }}}}");
    const auto value = values.find(text.substr(open + 2, close - open - 2));
    CHECK(value != values.end(), "the template asks for {}, which has no value",
          text.substr(open + 2, close - open - 2));
    out += value->second;
    at = close + 2;
  }
}

std::string whole_text(double value) {
  if (!std::isfinite(value)) return kDash;
  std::string digits = fmt::format("{:.0f}", std::abs(value));
  for (std::size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, ",");
  return value <= -0.5 ? fmt::format("−{}", digits) : digits;
}

std::string number_text(double value) {
  if (!std::isfinite(value)) return kDash;
  return with_minus(fmt::format("{:.4g}", value));
}

std::string bytes_text(double bytes) {
  if (!std::isfinite(bytes)) return kDash;
  return bytes < 1e9 ? fmt::format("{:.3g} MB", bytes / 1e6) : fmt::format("{:.3g} GB", bytes / 1e9);
}

std::string signed_text(double value) {
  if (!std::isfinite(value)) return kDash;
  return with_minus(fmt::format("{:+.4f}", value));
}

std::string percent_text(double fraction) {
  if (!std::isfinite(fraction)) return kDash;
  return with_minus(fmt::format("{:+.2f} %", 100.0 * fraction));
}

std::string utc_text(double seconds) {
  constexpr double kYear9999 = 253402300799.0;
  if (!(seconds >= 0 && seconds <= kYear9999)) return kDash;
  const auto time = static_cast<std::time_t>(seconds);
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M UTC", &utc);
  return text;
}

}  // namespace llmfp8
