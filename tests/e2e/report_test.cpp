// llm-fp8 report and runs over runs of the real program.
#include <gtest/gtest.h>

#include "e2e/workshop.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

// Two runs of nine steps, in bf16 and FP8.
class Report : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* precision : {"bf16", "fp8"}) {
      const Finished run = run_program("train_fp8", shop_.args({"--mixed_precision", precision, "--max_steps", "9",
                                                                "--output_dir", (runs() / precision).string()}));
      ASSERT_EQ(run.code, 0) << run.err;
    }
  }

  fs::path runs() const { return shop_.path("all"); }
  static bool can_plot(const Finished& finished) { return !finished.says("no plotting library"); }

  Workshop shop_;
};

TEST_F(Report, WritesAPageOfOneAndOfSeveralRuns) {
  const Finished one = run_program("llm-fp8", {"report", (runs() / "fp8").string()});
  if (!can_plot(one)) {
    EXPECT_EQ(one.code, 1);
    GTEST_SKIP() << one.err;
  }
  ASSERT_EQ(one.code, 0) << one.err;
  const std::string page = read_bytes(runs() / "fp8" / "report.html");
  EXPECT_NE(page.find("<title>fp8</title>"), std::string::npos);
  EXPECT_NE(page.find("e4m3 x e4m3 delayed"), std::string::npos);

  const fs::path out = shop_.path("both.html");
  const Finished both = run_program("llm-fp8", {"report", (runs() / "fp8").string(), (runs() / "bf16").string(),
                                                "--out", out.string(), "--title", "A <title>"});
  ASSERT_EQ(both.code, 0) << both.err;
  const std::string compared = read_bytes(out);
  EXPECT_NE(compared.find("<title>A &lt;title&gt;</title>"), std::string::npos);
  EXPECT_NE(compared.find("<b>fp8</b> against <b>bf16</b>"),
            std::string::npos);  // the bf16 run is the baseline, though second

  const Finished turned = run_program("llm-fp8", {"report", (runs() / "fp8").string(), (runs() / "bf16").string(),
                                                  "--baseline", "fp8", "--out", out.string()});
  ASSERT_EQ(turned.code, 0) << turned.err;
  EXPECT_NE(read_bytes(out).find("<b>bf16</b> against <b>fp8</b>"), std::string::npos);
}

TEST_F(Report, BadInputIsOneLine) {
  const Finished none = run_program("llm-fp8", {"report"});
  if (!can_plot(none)) GTEST_SKIP() << none.err;
  EXPECT_EQ(none.code, 2);
  EXPECT_TRUE(none.says("RUN is missing"));
  const Finished missing = run_program("llm-fp8", {"report", shop_.path("nowhere").string()});
  EXPECT_EQ(missing.code, 1);
  EXPECT_EQ(missing.errors().size(), 1u) << missing.err;
  EXPECT_TRUE(missing.says("no such folder"));
  EXPECT_EQ(run_program("llm-fp8", {"report", (runs() / "fp8").string(), "--baseline", "x"}).code, 2);
  const Finished unwritable =
      run_program("llm-fp8", {"report", (runs() / "fp8").string(), "--out", (shop_.path("no") / "x.html").string()});
  EXPECT_EQ(unwritable.code, 1);
  EXPECT_EQ(unwritable.errors().size(), 1u) << unwritable.err;

  write_bytes(runs() / "fp8" / "metrics.jsonl", read_bytes(runs() / "fp8" / "metrics.jsonl") + "{\"step\": 1");
  const Finished cut = run_program("llm-fp8", {"report", (runs() / "fp8").string()});
  EXPECT_EQ(cut.code, 0) << cut.err;
  EXPECT_TRUE(cut.says("is cut off"));
}

TEST_F(Report, RunsListsThemByTimeAndNamesTheBroken) {
  write_bytes(runs() / "broken" / "run.json", "{");
  const Finished table = run_program("llm-fp8", {"runs", runs().string()});
  ASSERT_EQ(table.code, 0) << table.err;
  EXPECT_TRUE(table.says("broken/run.json: not a JSON object"));
  const std::size_t bf16 = table.out.find("\nbf16 "), fp8 = table.out.find("\nfp8 ");
  ASSERT_NE(bf16, std::string::npos) << table.out;
  ASSERT_NE(fp8, std::string::npos) << table.out;
  EXPECT_LT(bf16, fp8);
  EXPECT_NE(table.out.find("9/9"), std::string::npos);

  const Finished json = run_program("llm-fp8", {"runs", runs().string(), "--json"});
  ASSERT_EQ(json.code, 0) << json.err;
  const Json list = Json::parse(json.out);
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0]["name"], "bf16");
  EXPECT_EQ(list[1]["precision"], "fp8 (default)");
  EXPECT_EQ(list[1]["steps_done"], 9);
  EXPECT_LT(list[0]["started"].get<double>(), list[1]["started"].get<double>());
  EXPECT_DOUBLE_EQ(list[1]["loss"].get<double>(), metric(runs() / "fp8", "Train/Loss").back());
  EXPECT_EQ(run_program("llm-fp8", {"runs", shop_.path("nowhere").string()}).code, 1);
}

}  // namespace
}  // namespace llmfp8::testing
