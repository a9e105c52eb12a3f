// PCRE2 behind the regular expressions of tokenizer.json. Called by the pre-tokenizers.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/error.h"
#include "text/regex.h"
#include "text/utf8.h"

namespace llmfp8 {
namespace {

constexpr std::uint32_t kMatchLimit = 20'000'000;  // steps of backtracking; a sane pattern needs a few a character
constexpr std::size_t kJitStackBytes = std::size_t{8} << 20;

// What a thread needs to match; any pattern can use it.
struct MatchState {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr);

  MatchState() {
    if (data == nullptr || context == nullptr || stack == nullptr) throw std::bad_alloc();
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_depth_limit(context, 10'000);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchState() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;
};

MatchState& match_state() {
  thread_local MatchState state;
  return state;
}

std::string error_text(int code) {
  PCRE2_UCHAR buffer[160] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::Code {
  pcre2_code* compiled = nullptr;
  bool jit = false;
  std::string origin;

  ~Code() { pcre2_code_free(compiled); }
};

Regex::Regex(std::string_view pattern, const std::string& origin) : code_(std::make_unique<Code>()) {
  CHECK(pattern.size() <= 65536, "{}: the pre-tokenizer's regex has {} bytes, at most 65536 are supported", origin,
        pattern.size());
  CHECK(!first_invalid_utf8(pattern), "{}: the pre-tokenizer's regex is not UTF-8", origin);
  const std::string translated = translate_regex(pattern, origin);
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error = 0;
  std::size_t offset = 0;
  // MULTILINE: ^ and $ hold at every line in Ruby's syntax.
  const std::uint32_t options =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE;
  code_->compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options, &error,
                                  &offset, context);
  pcre2_compile_context_free(context);
  CHECK(code_->compiled != nullptr, "{}: the pre-tokenizer's regex does not compile: {}", origin, error_text(error));
  code_->jit = pcre2_jit_compile(code_->compiled, PCRE2_JIT_COMPLETE) == 0;
  code_->origin = origin;
}

Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

void Regex::find_all(std::string_view text, std::vector<TextRange>& matches) const {
  const MatchState& state = match_state();
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const std::size_t* found = pcre2_get_ovector_pointer(state.data);
  std::size_t last_end = std::string_view::npos;
  for (std::size_t at = 0; at <= text.size();) {
    const int rc = code_->jit ? pcre2_jit_match(code_->compiled, subject, text.size(), at, 0, state.data, state.context)
                              : pcre2_match(code_->compiled, subject, text.size(), at, PCRE2_NO_UTF_CHECK, state.data,
                                            state.context);
    if (rc == PCRE2_ERROR_NOMATCH) return;
    CHECK(rc >= 0, "{}: matching the pre-tokenizer's regex failed: {}", code_->origin, error_text(rc));
    const std::size_t begin = found[0], end = found[1];
    if (begin > end) fail("{}: the pre-tokenizer's regex matches backwards", code_->origin);
    if (begin == end && end == last_end) {  // an empty match right after a match does not count
      if (at >= text.size()) return;
      at += code_point_at(text, at).size;
      continue;
    }
    matches.push_back({begin, end});
    at = last_end = end;
  }
}

}  // namespace llmfp8
