// A chat template in Jinja: parsed once, rendered from several threads. Called by ChatTemplate.
#include "text/jinja/template.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"
#include "text/jinja/problem.h"

namespace llmfp8::jinja {

namespace {

std::string one_line(std::string_view text) {
  constexpr std::size_t kLongest = 400;
  std::string line(text.substr(0, kLongest));
  while (line.size() < text.size() && !line.empty() && (static_cast<unsigned char>(text[line.size()]) & 0xC0) == 0x80)
    line.pop_back();  // a character is not cut in two
  std::replace_if(
      line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, ' ');
  return line;
}

bool has_generation_block(const Block& block) {
  return std::any_of(block.begin(), block.end(), [](const auto& statement) {
    const bool inside_branches = std::any_of(statement->branches.begin(), statement->branches.end(),
                                             [](const auto& branch) { return has_generation_block(branch.second); });
    return statement->action == Action::generation || inside_branches || has_generation_block(statement->body) ||
           has_generation_block(statement->otherwise) || has_generation_block(statement->macro.body);
  });
}

}  // namespace

struct Template::Code {
  Block body;
  bool has_generation = false;
};

Template::Template(std::string_view source, std::string origin)
    : origin_(std::move(origin)), source_(source), code_(std::make_unique<Code>()) {
  try {
    code_->body = parse_template(source);
  } catch (const Problem& wrong) {
    fail("{}, {}", origin_, one_line(wrong.what()));
  }
  code_->has_generation = has_generation_block(code_->body);
}

Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

bool Template::has_generation() const { return code_->has_generation; }

Rendered Template::render(const nlohmann::ordered_json& variables, const RenderOptions& options) const {
  Interpreter interpreter(options, code_->body);
  try {
    Entries names;
    for (const auto& [name, value] : variables.items()) names.emplace_back(Value::string(name), from_json(value));
    return interpreter.run(std::move(names));
  } catch (const Problem& wrong) {
    fail("{}, line {}: {}", origin_, interpreter.line(), one_line(wrong.what()));
  }
}

std::string format_date(const std::string& format, const std::tm& date) {
  if (format.empty()) return "";
  std::array<char, 4096> buffer{};
  // A mark behind the format tells an empty text from one that is too long.
  const std::string marked = format + "|";
  const std::size_t size = std::strftime(buffer.data(), buffer.size(), marked.c_str(), &date);
  if (size == 0) problem("strftime_now: a text of more than {} bytes", buffer.size());
  return std::string(buffer.data(), size - 1);
}

}  // namespace llmfp8::jinja
