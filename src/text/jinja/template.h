// A chat template in Jinja, rendered as jinja2's immutable sandbox does with the settings and additions of
// transformers' apply_chat_template. Called by ChatTemplate.
#pragma once

#include <cstddef>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace llmfp8::jinja {

struct RenderOptions {
  std::tm now = {};  // what strftime_now writes
  bool has_clock = true;  // without it strftime_now is undefined, and templates write the day that they carry themselves
};

// Bytes [begin, end) of a text.
struct Span {
  std::size_t begin = 0, end = 0;
};

struct Rendered {
  std::string text;
  std::vector<Span> generated;  // what stood in {% generation %} blocks
};

// Thread-safe once it is made.
class Template {
 public:
  // origin: for messages. Throws Error, one line: a syntax error or a statement, filter or test that is unknown, with
  // the template's line; beyond a limit of problem.h.
  Template(std::string_view source, std::string origin);
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  // variables: an object. Throws Error, one line, with the template's line: what the template raises itself, what
  // Python would raise, or a limit that is reached.
  Rendered render(const nlohmann::ordered_json& variables, const RenderOptions& options) const;

  bool has_generation() const;  // a {% generation %} block stands in it
  bool mentions(std::string_view word) const { return source_.find(word) != std::string::npos; }
  const std::string& source() const { return source_; }

 private:
  struct Code;
  std::string origin_, source_;
  std::unique_ptr<Code> code_;
};

// date by a format, in English, as Python's strftime does in the C locale. Throws Problem beyond 4 KiB.
std::string format_date(const std::string& format, const std::tm& date);

}  // namespace llmfp8::jinja
