// Splitting, replacing and padding of texts as Python does it. Called by the methods of strings and the filters.
#include "text/jinja/string_tools.h"

#include <algorithm>

#include "text/jinja/code_points.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/problem.h"

namespace llmfp8::jinja {

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, std::int64_t most) {
  std::vector<std::string_view> parts;
  while (most < 0 || std::ssize(parts) < most) {
    const std::size_t at = text.find(separator);
    if (at == std::string_view::npos) break;
    parts.push_back(text.substr(0, at));
    text.remove_prefix(at + separator.size());
  }
  parts.push_back(text);
  return parts;
}

std::vector<std::string_view> rsplit_at(std::string_view text, std::string_view separator, std::int64_t most) {
  std::vector<std::string_view> parts;
  while (most < 0 || std::ssize(parts) < most) {
    const std::size_t at = text.rfind(separator);
    if (at == std::string_view::npos) break;
    parts.push_back(text.substr(at + separator.size()));
    text = text.substr(0, at);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

namespace {

// Bytes before the first white space.
std::size_t word_size(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size() && strip_left(text.substr(at, code_point_bytes(text, at))).size() > 0)
    at += code_point_bytes(text, at);
  return at;
}

// The byte where the last word begins.
std::size_t last_word(std::string_view text) {
  std::size_t at = text.size();
  while (at > 0) {
    std::size_t before = at - 1;
    while (before > 0 && (static_cast<unsigned char>(text[before]) & 0xC0) == 0x80) --before;
    if (strip_left(text.substr(before, at - before)).empty()) break;
    at = before;
  }
  return at;
}

}  // namespace

std::vector<std::string_view> split_at_spaces(std::string_view text, std::int64_t most) {
  std::vector<std::string_view> parts;
  for (text = strip_left(text); !text.empty(); text = strip_left(text)) {
    if (most >= 0 && std::ssize(parts) >= most) {
      parts.push_back(text);
      break;
    }
    const std::size_t size = word_size(text);
    parts.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return parts;
}

std::vector<std::string_view> rsplit_at_spaces(std::string_view text, std::int64_t most) {
  std::vector<std::string_view> parts;
  for (text = strip_right(text); !text.empty(); text = strip_right(text)) {
    if (most >= 0 && std::ssize(parts) >= most) {
      parts.push_back(text);
      break;
    }
    const std::size_t begin = last_word(text);
    parts.push_back(text.substr(begin));
    text = text.substr(0, begin);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> lines_of(std::string_view text, bool keep_ends) {
  const auto ends_line = [](char32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
  };
  std::vector<std::string_view> lines;
  std::size_t start = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = code_point_bytes(text, at);
    const char32_t code =
        size == 1 ? static_cast<char32_t>(static_cast<unsigned char>(text[at])) : decode_text(text.substr(at, size))[0];
    std::size_t next = at + size;
    if ((size == 1 && code >= 0x80) || !ends_line(code)) {
      at = next;
      continue;
    }
    if (code == '\r' && next < text.size() && text[next] == '\n') ++next;
    lines.push_back(text.substr(start, (keep_ends ? next : at) - start));
    start = at = next;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

std::string stripped(std::string_view text, std::string_view chars, bool left, bool right) {
  const std::u32string codes = decode_text(text), set = decode_text(chars);
  const auto in_set = [&](char32_t code) { return set.find(code) != std::u32string::npos; };
  std::size_t begin = 0, end = codes.size();
  while (left && begin < end && in_set(codes[begin])) ++begin;
  while (right && end > begin && in_set(codes[end - 1])) --end;
  return encode_text(std::u32string_view(codes).substr(begin, end - begin));
}

std::string replaced(Interpreter& run, const std::string& text, const std::string& from, const std::string& to,
                     std::int64_t most) {
  std::string out;
  std::int64_t done = 0;
  const auto may_go_on = [&] {
    if (out.size() > kLimits.text_bytes) problem("a text of more than {} bytes", kLimits.text_bytes);
    return most < 0 || done < most;
  };
  run.charge(text.size() / 8);
  std::size_t at = 0;
  if (from.empty()) {
    while (may_go_on()) {
      out += to;
      ++done;
      if (at >= text.size()) return out;
      const std::size_t size = code_point_bytes(text, at);
      out.append(text, at, size);
      at += size;
    }
    return out + text.substr(at);
  }
  while (may_go_on()) {
    const std::size_t found = text.find(from, at);
    if (found == std::string::npos) break;
    out.append(text, at, found - at);
    out += to;
    at = found + from.size();
    ++done;
  }
  return out + text.substr(at);
}

std::string centered(const std::string& text, std::int64_t width, const std::string& fill, int side) {
  const std::int64_t missing = width - count_code_points(text);
  if (missing <= 0) return text;
  const std::int64_t left = side == 0 ? 0 : side == 1 ? missing : missing / 2 + (missing & width & 1);
  std::string out;
  for (std::int64_t i = 0; i < left; ++i) out += fill;
  out += text;
  for (std::int64_t i = left; i < missing; ++i) out += fill;
  return out;
}

}  // namespace llmfp8::jinja
