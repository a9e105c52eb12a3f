// The Jinja interpreter against jinja2 as transformers sets it up (tools/make_jinja_goldens.py), and against templates
// that are broken or mean harm: one line with the template's line, in bounded time and memory.
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "support/golden.h"
#include "text/jinja/template.h"

namespace llmfp8 {
namespace {

using Json = nlohmann::ordered_json;

jinja::RenderOptions stopped_clock() {
  jinja::RenderOptions options;
  options.now.tm_year = 2024 - 1900;
  options.now.tm_mon = 6;
  options.now.tm_mday = 26;
  options.now.tm_wday = 5;
  options.now.tm_yday = 207;
  return options;
}

// The text, or "error: …".
std::string rendered(const std::string& source, const Json& variables = Json::object()) {
  try {
    return jinja::Template(source, "t").render(variables, stopped_clock()).text;
  } catch (const Error& error) {
    return std::string("error: ") + error.what();
  }
}

std::vector<Json> golden_rows() {
  std::ifstream in(testing::golden_dir() / "jinja" / "cases.jsonl");
  std::vector<Json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
  return rows;
}

Json golden_variables() {
  std::ifstream in(testing::golden_dir() / "jinja" / "variables.json");
  return Json::parse(in);
}

TEST(JinjaGolden, RendersAsJinja2) {
  const Json variables = golden_variables();
  const std::vector<Json> rows = golden_rows();
  ASSERT_GE(rows.size(), 200u);
  for (const Json& row : rows) {
    const auto source = row["template"].get<std::string>();
    const std::string text = rendered(source, row["variables"].is_string() ? variables : row["variables"]);
    if (row.contains("text")) {
      EXPECT_EQ(text, row["text"].get<std::string>()) << source;
    } else {
      EXPECT_TRUE(text.starts_with("error: t, line "))
          << row["error"] << " wanted of " << source << " which gives " << text;
    }
  }
}

TEST(JinjaInput, ErrorsNameTheLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n{% if %}", "error: t, line 2: expected an expression, got '%}'"},
      {"{% for x in y %}\n", "error: t, line 1: the template ends where 'endfor' or 'else' is wanted"},
      {"\n\n{% frobnicate %}", "error: t, line 3: unknown statement 'frobnicate'"},
      {"{% include 'x' %}", "error: t, line 1: the statement 'include' is not supported in a chat template"},
      {"{{ x | frobnicate }}", "error: t, line 1: there is no filter 'frobnicate'"},
      {"{{ x is frobnicated }}", "error: t, line 1: there is no test 'frobnicated'"},
      {"\n{{ missing.name }}", "error: t, line 2: 'missing' is undefined"},
      {"{{ raise_exception('a\nb') }}", "error: t, line 1: the template refuses: a b"},
      {"{# x", "error: t, line 1: a comment has no end"},
      {"{% break %}", "error: t, line 1: 'break' outside of a loop"},
      {"{{ [1].append(2) }}", "error: t, line 1: access to attribute 'append' of 'list' object is unsafe"},
      {"{{ 9223372036854775807 + 1 }}", "error: t, line 1: a whole number beyond 64 bits"},
  };
  for (const auto& [source, wanted] : cases) EXPECT_EQ(rendered(source), wanted) << source;
}

TEST(JinjaInput, GenerationBlocksAreRecorded) {
  const jinja::Template source(
      "a{% generation %}bc{% endgeneration %}d{% for x in [1, 2] %}{% generation %}{{ x }}{% endgeneration %}{% endfor "
      "%}",
      "t");
  EXPECT_TRUE(source.has_generation());
  const jinja::Rendered rendered = source.render(Json::object(), {});
  EXPECT_EQ(rendered.text, "abcd12");
  ASSERT_EQ(rendered.generated.size(), 3u);
  EXPECT_EQ(rendered.generated[0].begin, 1u);
  EXPECT_EQ(rendered.generated[0].end, 3u);
  EXPECT_EQ(rendered.generated[2].end, 6u);
}

std::string repeated(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

TEST(JinjaInput, HarmIsBounded) {
  const std::vector<std::string> harmful = {
      repeated("(", 100000),
      "{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}",
      "{{ " + repeated("-", 5000) + "1 }}",
      "{{ " + repeated("not ", 5000) + "1 }}",
      "{{ 1" + repeated(" + 1", 5000) + " }}",
      "{{ x" + repeated(".y", 5000) + " }}",
      "{{ " + repeated("[", 5000) + repeated("]", 5000) + " }}",
      repeated("{% if 1 %}", 5000) + repeated("{% endif %}", 5000),
      repeated("{% for x in [1] %}", 5000),
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{{ 'x' * 9999999999 }}",
      "{{ [1] * 9999999999 }}",
      "{% set ns = namespace(x='x') %}{% for i in range(99999) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}",
      "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = ns.x + [ns.x] %}{% endfor %}",
      "{% set ns = namespace(x=[1, 1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m(x) %}{% call m(x) %}{{ caller() }}{% endcall %}{% endmacro %}{{ m(1) }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{{ '%99999999d' % 1 }}",
      "{{ '{:99999999}'.format(1) }}",
      "{{ 'a'.center(99999999999) }}",
      "{{ 'a'|indent(99999999999) }}",
      "{{ range(99999999999) }}",
      "{{ strftime_now('%c' * 1000) }}",
      "{{ 2 ** 99 }}",
      "{{ 10 ** 400.0 ** 9 }}" + std::string(2 << 20, 'x'),
  };
  for (const std::string& source : harmful) {
    const std::string text = rendered(source);
    const bool is_plain = source.starts_with("((");
    EXPECT_EQ(text.starts_with("error: "), !is_plain) << source.substr(0, 100) << " gives " << text.substr(0, 200);
    EXPECT_LT(text.size(), is_plain ? 200000u : 700u);
    EXPECT_EQ(text.find('\n'), std::string::npos);
  }
}

TEST(JinjaInput, WhatRefersToItselfIsFreed) {
  EXPECT_EQ(rendered("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.list = [ns] %}{% macro m() %}{{ ns.x "
                     "}}{% endmacro %}"
                     "{% set ns.m = m %}{% for i in range(1000) %}{% set ns.l = [loop, ns.l is defined] %}{% endfor "
                     "%}{{ m() }}ok"),
            "ok");
  // A chain through namespaces, deeper than any stack.
  EXPECT_EQ(rendered("{% set ns = namespace(last=none) %}{% for i in range(99999) %}{% set ns.last = "
                     "namespace(before=ns.last) %}{% endfor %}ok"),
            "ok");
}

// Pieces of good templates put together at random: text or one line of an error.
TEST(JinjaInput, BrokenTemplatesNeverCrash) {
  std::vector<std::string> sources;
  for (const Json& row : golden_rows()) sources.push_back(row["template"].get<std::string>());
  const Json variables = golden_variables();
  std::uint64_t state = 1;
  const auto below = [&](std::size_t most) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::size_t>((state >> 33) % most);
  };
  constexpr std::string_view kPieces[] = {
      "{{",           "}}", "{%",   "%}",   "(", ")", "[", "]", "'", "|", ".", "-", "\\", "{% for x in l %}",
      "{% endfor %}", "~",  "\xff", "99999"};
  for (int round = 0; round < 20000; ++round) {
    std::string source = sources[below(sources.size())];
    source = source.substr(0, 400);
    for (std::size_t change = 0; change <= below(4); ++change) {
      const std::size_t at = below(source.size() + 1);
      switch (below(4)) {
        case 0: source.erase(at, below(8)); break;
        case 1: source.insert(at, kPieces[below(std::size(kPieces))]); break;
        case 2: {
          const std::string& other = sources[below(sources.size())];
          source.insert(at, other.substr(below(other.size()), below(40)));
          break;
        }
        default:
          if (at < source.size()) source[at] = static_cast<char>(32 + below(95));
      }
    }
    const std::string text = rendered(source, variables);
    if (text.starts_with("error: ")) {
      EXPECT_EQ(text.find('\n'), std::string::npos) << source;
    }
  }
}

}  // namespace
}  // namespace llmfp8
