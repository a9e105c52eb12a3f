// llm-fp8 data over a small data set with something wrong in many places.
#include <gtest/gtest.h>

#include "e2e/workshop.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

class Data : public ::testing::Test {
 protected:
  // 12 rows: 4 is 1 again, 5 is white space, 6 null, 7 no UTF-8, 8 is long, 9 hostile.
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 12; ++i) {
      Json row = {{"text", "row " + std::to_string(i == 4 ? 1 : 100 + i)}};
      if (i == 1) row["text"] = "row 1";
      if (i == 5) row["text"] = " \n";
      if (i == 6) row["text"] = nullptr;
      if (i == 8) row["text"] = std::string(90, 'x');
      if (i == 9) row["text"] = "<script>alert(1)</script>\x1b[2J\" onclick=\"\xE2\x80\xAE";
      text += i == 7 ? std::string("{\"text\": \"\xFF\"}") : row.dump();
      text += "\n";
    }
    write_bytes(rows(), text);
    fs::remove(shop_.path("model/model.safetensors"));  // weights are not asked for
  }

  fs::path rows() const { return shop_.path("mixed.jsonl"); }
  Finished data(const Args& more, const fs::path& file) const {
    Args args = {"data", "--model_name", shop_.path("model").string(), "--dataset_name", file.string()};
    args.insert(args.end(), more.begin(), more.end());
    return run_program("llm-fp8", args);
  }
  Finished data(const Args& more) const { return data(more, rows()); }

  Workshop shop_;
};

TEST_F(Data, JsonCountsEveryRow) {
  const Finished run = data({"--json", "--max_seq_length", "64", "--rows", "3", "--first", "4"});
  ASSERT_EQ(run.code, 0) << run.err;
  const Json found = Json::parse(run.out);
  EXPECT_EQ(found.at("rows"), 12);
  EXPECT_EQ(found.at("left_out"), (Json{{"null", 1}, {"empty", 1}, {"not_utf8", 1}, {"bad_messages", 0}}));
  EXPECT_EQ(found.at("columns"), Json::array({"text"}));
  EXPECT_EQ(found.at("files"), Json::array({rows().string()}));
  // 90 letters and the end of text.
  EXPECT_EQ(found.at("length").at("max"), 91);
  EXPECT_EQ(found.at("truncated"), (Json{{"rows", 1}, {"tokens", 91 - 64}}));
  EXPECT_EQ(found.at("repeated_rows"), (Json{{"rows", 1}, {"pairs", Json::array({Json::array({1, 4})})}}));
  EXPECT_EQ(found.at("prompts"), 0);
  EXPECT_EQ(found.at("rows_without_label"), 0);
  // Everything but each row's first token.
  EXPECT_EQ(found.at("supervised").at("tokens").get<int>(), found.at("tokens").get<int>() - 9);
  int in_bars = 0, cut = 0;
  for (const Json& bar : found.at("histogram")) {
    in_bars += bar.at("rows").get<int>();
    cut += bar.at("truncated").get<int>();
  }
  EXPECT_EQ(in_bars, 9);
  EXPECT_EQ(cut, 1);

  const Json& shown = found.at("shown");
  ASSERT_EQ(shown.size(), 3u);
  EXPECT_EQ(shown[0].at("row"), 4);
  EXPECT_EQ(shown[0].at("tokens").size(), 6u);  // a token for each byte, and the end
  EXPECT_EQ(shown[0].at("tokens")[0], (Json{{"text", "r"}, {"ids", {'r'}}, {"supervised", false}, {"special", false}}));
  EXPECT_EQ(shown[0].at("tokens")[5].at("text"), "<|eot_id|>");
  EXPECT_EQ(shown[0].at("tokens")[5].at("special"), true);
  EXPECT_EQ(shown[1].at("left_out"), "empty");
  EXPECT_EQ(shown[2].at("left_out"), "without a value");
}

TEST_F(Data, TextShowsWhatIsLearntAndNothingThatMovesACursor) {
  const Finished run = data({"--max_seq_length", "64", "--rows", "4", "--first", "7"});
  ASSERT_EQ(run.code, 0) << run.err;
  for (const char* text : {"3 (25.0 %): 1 without a value, 1 empty, 1 not UTF-8", "cut at 64 ", "1 row (11.1 %), 27 tokens (", "1 (11.1 %): row 4 = 1",
                           "░", "row 7: left out: not UTF-8", "row 8: 64 tokens, 63 of them learnt; cut, it has 91",
                           "«<»script>alert(1)</script>␛[2J\" onclick=\"‹U+202E›<|eot_id|>"})
    EXPECT_NE(run.out.find(text), std::string::npos) << text << "\n" << run.out;
  EXPECT_EQ(run.out.find('\x1b'), std::string::npos);
}

TEST_F(Data, PromptsThatComeBackAreCountedAndMasked) {
  const fs::path math = shop_.math_rows(120);  // 100 different sums
  const Finished run = data({"--json", "--loss_on", "completion", "--max_seq_length", "400", "--rows", "1"}, math);
  ASSERT_EQ(run.code, 0) << run.err;
  const Json found = Json::parse(run.out);
  EXPECT_EQ(found.at("chat_template"), "llama3");
  EXPECT_EQ(found.at("prompts"), 120);
  const Json repeats = {{"rows", 20}, {"pairs", Json::array({Json::array({0, 100}), Json::array({1, 101}), Json::array({2, 102})})}};
  EXPECT_EQ(found.at("repeated_prompts"), repeats);
  EXPECT_EQ(found.at("repeated_rows"), repeats);
  std::string learnt;
  for (const Json& token : found.at("shown")[0].at("tokens"))
    if (token.at("supervised").get<bool>()) learnt += token.at("text").get<std::string>();
  EXPECT_EQ(learnt, "It is \\boxed{0}.<|eot_id|>");
  // Where the cut takes every answer.
  const Json cut = Json::parse(data({"--json", "--loss_on", "completion", "--max_seq_length", "20"}, math).out);
  EXPECT_EQ(cut.at("rows_without_label"), 120);
  EXPECT_EQ(cut.at("supervised").at("share"), 0.0);
}

TEST_F(Data, PageHoldsRowsAsTextAlone) {
  const fs::path page = shop_.path("data.html");
  const Finished run = data({"--html", page.string(), "--max_seq_length", "64", "--rows", "12"});
  ASSERT_EQ(run.code, 0) << run.err;
  const std::string html = read_bytes(page);
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("http"), html.find("http-equiv"));
  for (const char* unseen : {"\x1b", "\xE2\x80\xAE", "onclick=\""}) EXPECT_EQ(html.find(unseen), std::string::npos);
  for (const char* text : {"&lt;", "<svg ", "class=\"cut\"", "row 4 = 1", "‹U+202E›", "left out: not UTF-8", "class=\"t m\"",
                           "class=\"t s\" title=\"260\">&lt;|eot_id|&gt;"})
    EXPECT_NE(html.find(text), std::string::npos) << text;
}

TEST_F(Data, RowsOfNoUseAreNoError) {
  write_bytes(rows(), "{\"text\": \"\"}\n");
  const Finished run = data({"--html", shop_.path("data.html").string()});
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_NE(run.out.find("1 (100.0 %): 1 empty"), std::string::npos) << run.out;
}

TEST_F(Data, RefusesInOneLine) {
  const struct {
    Args args;
    int code;
    const char* says;
  } refusals[] = {
      {{"--first", "12", "--rows", "0"}, 2, "--first 12: the data set has 12 rows"},
      {{"--rows", "-1"}, 2, "--rows"},
      {{"--max_seq_length", "0"}, 2, "--max_seq_length 0"},
      {{"--template_date", "2026-11-32"}, 2, "--template_date 2026-11-32"},
      {{"--loss_on", "some"}, 2, "one of all, completion, assistant"},
      {{"--dataset_text_field", "body"}, 1, "no usable columns"},
      {{"--html", shop_.path("none/x.html").string()}, 2, "there is no folder"},
      {{"--max_seq_lenght", "3"}, 2, "did you mean --max_seq_length?"},
  };
  for (const auto& refusal : refusals) {
    const Finished run = data(refusal.args);
    EXPECT_EQ(run.code, refusal.code) << run.err;
    EXPECT_EQ(run.out, "");
    ASSERT_EQ(run.errors().size(), 1u) << run.err;
    EXPECT_NE(run.errors()[0].find(refusal.says), std::string::npos) << run.errors()[0];
  }
  EXPECT_EQ(data({}, shop_.path("nowhere.jsonl")).code, 1);
}

}  // namespace
}  // namespace llmfp8::testing
