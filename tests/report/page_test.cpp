// The page: what stands in it, that no text of a run breaks out of its place, and its size.
#include "report/html/page.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "report/html/html_text.h"
#include "report/run_folders.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

using testing::FakeRun;

constexpr PlotLibrary kLibrary = {
    .script = "/* library */", .style = "/* its style */", .license = "its licence", .missing = {}};
constexpr const char* kEvil = "</script><script>alert(1)</script><!-- {{title}} \" onload='x' &amp;";

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string page_of(const std::vector<RunRecord>& runs, std::size_t baseline = 0) {
  return report_page(runs, {.title = "", .baseline = baseline, .made = 1700000000, .version = "0.1.0"}, kLibrary);
}

TEST(EscapeHtml, Everything) {
  EXPECT_EQ(escape_html("a<b>&\"'é\n"), "a&lt;b&gt;&amp;&quot;&#39;é\n");
  EXPECT_EQ(escape_html(std::string("\0\x1b", 2)), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(escape_html("\xff<"), "\xEF\xBF\xBD&lt;");                  // not UTF-8
  EXPECT_EQ(escape_html("\xe2\x80<"), "\xEF\xBF\xBD\xEF\xBF\xBD&lt;");  // a cut sequence does not swallow the <
  EXPECT_EQ(escape_html("\xc0\xbc"), "\xEF\xBF\xBD\xEF\xBF\xBD");       // an overlong '<'
}

TEST(JsonForScript, NothingEndsTheElement) {
  const nlohmann::ordered_json json = {{"</script>", "<!-- & \xE2\x80\xA8 \xff"}};
  const std::string text = json_for_script(json);
  EXPECT_EQ(text.find_first_of("<>&"), std::string::npos);
  EXPECT_FALSE(has(text, "\xE2\x80\xA8"));
  EXPECT_EQ(nlohmann::ordered_json::parse(text).begin().key(), "</script>");  // and it is the same JSON
}

TEST(FillTemplate, OnePass) {
  EXPECT_EQ(fill_template("a{{x}}b{{y}}", {{"x", "{{y}}"}, {"y", "2"}}), "a{{y}}b2");
  EXPECT_THROW(fill_template("{{z}}", {{"x", ""}}), Error);
  EXPECT_THROW(fill_template("{{x", {{"x", ""}}), Error);
}

TEST(Numbers, AsAReaderWantsThem) {
  EXPECT_EQ(whole_text(1234567.4), "1,234,567");
  EXPECT_EQ(whole_text(999), "999");
  EXPECT_EQ(whole_text(-1000), "−1,000");
  EXPECT_EQ(whole_text(kUnknown), "–");
  EXPECT_EQ(bytes_text(5.19e6), "5.19 MB");
  EXPECT_EQ(bytes_text(21.44e9), "21.4 GB");
  EXPECT_EQ(signed_text(-0.01), "−0.0100");
  EXPECT_EQ(percent_text(0.0123), "+1.23 %");
  EXPECT_EQ(utc_text(0), "1970-01-01 00:00 UTC");
  EXPECT_EQ(utc_text(1e30), "–");
}

TEST(Page, OfOneRun) {
  const testing::TempDir dir;
  const std::string page = page_of({read_run(FakeRun{}.write(dir.path() / "alone"))});
  EXPECT_TRUE(has(page, "<title>alone</title>"));
  EXPECT_TRUE(has(page,
                  "Loss <b>4.762 → 0.8333</b> in 100 steps, 50,000 tokens in 50s (<b>1,000</b> tokens/s); evaluation "
                  "loss <b>2</b>"));
  for (const char* id : {"chart-loss", "chart-eval_loss", "chart-learning_rate", "chart-grad_norm",
                         "chart-tokens_per_second", "chart-memory"}) {
    EXPECT_EQ(count_of(page, fmt::format("id=\"{}\"", id)), 1u) << id;
  }
  EXPECT_FALSE(has(page, "chart-accuracy"));  // not logged: not shown
  EXPECT_FALSE(has(page, "fp8_amax"));
  for (const char* id : {"stability", "formats", "runs", "configuration"})
    EXPECT_TRUE(has(page, fmt::format("<h2 id=\"{}\"", id))) << id;
  EXPECT_TRUE(has(page, "75.0 % of the operations"));
  EXPECT_TRUE(has(page, "a note"));
  EXPECT_TRUE(has(page, "its licence"));
  EXPECT_FALSE(has(page, "class=\"differs\""));
  // Works offline: nothing is named that a browser would fetch.
  for (const char* part : {"src=\"", "@import", "url(", "<link"}) EXPECT_FALSE(has(page, part)) << part;
}

TEST(Page, OfSeveralRunsComparesThem) {
  const testing::TempDir dir;
  const std::vector<RunRecord> runs = {
      read_run(FakeRun{.tokens_per_second = 1000, .memory_mb = 200}.write(dir.path() / "base")),
      read_run(FakeRun{.precision = "fp8 (default)",
                       .loss_offset = 0.01,
                       .tokens_per_second = 1300,
                       .memory_mb = 150,
                       .batch_size = 9}
                   .write(dir.path() / "fast"))};
  const std::string page = page_of(runs);
  EXPECT_TRUE(has(page,
                  "<b>fast</b> against <b>base</b>: <b>1.30×</b> the speed (1,300 against 1,000 tokens/s), "
                  "<b>0.75×</b> the memory (150 MB against 200 MB), loss <b>+0.0100</b>"));
  EXPECT_TRUE(has(page, "means of steps 91–100, the last 10 %"));
  EXPECT_TRUE(has(page, "Not precision alone: they also differ in batch_size."));
  EXPECT_EQ(count_of(page, "class=\"card\""), 2u);
  EXPECT_EQ(count_of(page, "tr class=\"differs\""), 2u);  // mixed_precision and batch_size
  const nlohmann::ordered_json data = page_data(runs, 0);
  ASSERT_EQ(data["runs"].size(), 2u);
  EXPECT_EQ(data["runs"][1]["series"]["loss"]["value"].size(), 100u);
  EXPECT_EQ(data["runs"][1]["series"]["loss"]["tokens"].back(), 65000);
}

TEST(Page, NoTextOfARunBreaksOut) {
  const testing::TempDir dir;
  RunRecord run = read_run(FakeRun{.name = kEvil}.write(dir.path() / "x"));
  EXPECT_EQ(run.name, kEvil);
  run.state = run.model = run.precision = run.fallback = run.device = run.program = run.version = kEvil;
  run.error = run.model_commit = run.dataset_commit = kEvil;
  run.remarks = run.left_out = {kEvil};
  run.rows.emplace_back(kEvil, 1);
  run.memory.emplace_back(kEvil, 1.0);
  run.flags.push_back({kEvil, kEvil, kEvil});
  run.recipe_that_ran[kEvil] = {{"fprop", kEvil}};
  run.shadow_cosine[kEvil] = {{.step = 1, .seconds = 0, .tokens = 0, .value = 1}};
  run.health.amax[kEvil] = {{.step = 1, .seconds = 0, .tokens = 0, .value = 1}};
  RunRecord other = run;
  other.device = "y";
  const std::string clean = page_of({read_run(dir.path() / "x"), read_run(dir.path() / "x")});
  const std::string page = page_of({run, other});
  EXPECT_EQ(count_of(page, "<script"), count_of(clean, "<script"));
  EXPECT_EQ(count_of(page, "</script"), count_of(clean, "</script"));
  EXPECT_EQ(count_of(page, "alert(1)<"), 0u);
  EXPECT_EQ(count_of(page, "<!--"), 0u);
  const std::vector<RunRecord> both = {run, other};
  EXPECT_FALSE(has(verdict_html(both, 0) + cards_html(both, 0) + charts_html(page_data(both, 0)) + tables_html(both),
                   "onload='"));
  EXPECT_TRUE(has(page, "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;"));
  EXPECT_GT(count_of(page, "{{title}}"), 0u);  // the text of the run, as it was
}

TEST(Page, ProductsGetALineInAChartOfTheirRole) {
  const testing::TempDir dir;
  RunRecord run = read_run(FakeRun{}.write(dir.path() / "x"));
  run.health.amax["qkv input"] = run.health.amax["down input"] = *run.find("loss");
  const nlohmann::ordered_json data = page_data(std::vector{run}, 0);
  EXPECT_EQ(data["charts"].back()["lines"].size(), 2u);
  EXPECT_TRUE(has(charts_html(data), "id=\"chart-fp8_amax-input-0\""));
}

TEST(Page, ModulesGetALineInAChartOfTheirPart) {
  const testing::TempDir dir;
  RunRecord run = read_run(FakeRun{}.write(dir.path() / "x"));
  for (const char* module : {"self_attn.q_proj", "self_attn.k_proj", "norm"}) run.shadow_cosine[module] = *run.find("loss");
  const nlohmann::ordered_json data = page_data(std::vector{run}, 0);
  const std::string html = charts_html(data);
  EXPECT_TRUE(has(html, "id=\"chart-shadow_cosine-self_attn-0\""));
  EXPECT_TRUE(has(html, "id=\"chart-shadow_cosine-other-0\""));
  EXPECT_EQ(data["charts"].back()["lines"].size(), 2u);
  EXPECT_TRUE(data["runs"][0]["series"].contains("shadow_cosine/norm"));
}

TEST(Page, StaysBelowTwoMegabytes) {
  const testing::TempDir dir;
  const RunRecord run = read_run(FakeRun{.steps = 20000}.write(dir.path() / "long"));
  const std::string one = page_of({run}), three = page_of({run, run, run}),
                    many = page_of(std::vector<RunRecord>(30, run));
  EXPECT_LT(one.size(), 500'000u);
  EXPECT_LT(three.size(), 1'500'000u);
  EXPECT_LT(many.size(), 1'900'000u);  // the library is 130 kB
  EXPECT_GT(page_data(std::vector{run}, 0)["runs"][0]["series"]["loss"]["step"].size(), 1000u);
}

TEST(Page, WithoutTheLibraryOrARun) {
  const testing::TempDir dir;
  const std::vector<RunRecord> runs = {read_run(FakeRun{}.write(dir.path()))};
  try {
    report_page(runs, {}, {.script = {}, .style = {}, .license = {}, .missing = "it is missing"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "report: it is missing");
  }
  EXPECT_THROW(report_page({}, {}, kLibrary), Error);
  EXPECT_TRUE(has(page_of({RunRecord{}}), "This run has logged no loss yet."));
}

}  // namespace
}  // namespace llmfp8
