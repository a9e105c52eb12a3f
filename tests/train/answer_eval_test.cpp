// Intervals, paired comparison, the answers file, and which rows of a data set are asked.
#include "train/answer_eval.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

std::vector<AnswerRecord> records(const std::string& marks) {
  std::vector<AnswerRecord> result;
  for (std::size_t i = 0; i < marks.size(); ++i) {
    result.push_back({"problem " + std::to_string(i), "1", i % 2 == 0 ? "even" : "odd", "text", "1", marks[i] == '+'});
  }
  return result;
}

TEST(AnswerEval, WilsonIntervalAgreesWithPublishedValues) {
  // Newcombe, "Two-sided confidence intervals for the single proportion", Stat. Med. 17 (1998), table I, method 3.
  const struct {
    std::int64_t correct, count;
    double low, high;
  } cases[] = {{81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0.0, 0.1611}, {1, 29, 0.0061, 0.1718}};
  for (const auto& c : cases) {
    const Interval interval = wilson_interval({c.correct, c.count});
    EXPECT_NEAR(interval.low, c.low, 5e-5);
    EXPECT_NEAR(interval.high, c.high, 5e-5);
  }
}

TEST(AnswerEval, ComparesPairs) {
  const PairedDifference d = compare_answers(records("++----"), records("+-+++-"));
  EXPECT_EQ(d.before.correct, 2);
  EXPECT_EQ(d.after.correct, 4);
  EXPECT_EQ(d.gained, 3);
  EXPECT_EQ(d.lost, 1);
  EXPECT_NEAR(d.difference, 1.0 / 3.0, 1e-12);
  // Differences 0 -1 1 1 1 0: mean 1/3, sample variance 2/3, standard error 1/3.
  EXPECT_NEAR(d.interval.low, 1.0 / 3.0 - 1.959963984540054 / 3.0, 1e-12);
  EXPECT_NEAR(d.interval.high, 1.0 / 3.0 + 1.959963984540054 / 3.0, 1e-12);
}

TEST(AnswerEval, RefusesOtherProblems) {
  auto after = records("++");
  EXPECT_THROW(compare_answers(records("+"), after), Error);
  after[1].problem = "another";
  EXPECT_THROW(compare_answers(records("++"), after), Error);
}

TEST(AnswerEval, CountsBySource) {
  const auto sources = accuracy_by_source(records("+-++"));
  EXPECT_EQ(sources.at("even").correct, 2);
  EXPECT_EQ(sources.at("odd").correct, 1);
  EXPECT_EQ(sources.at("odd").count, 2);
}

TEST(AnswerEval, FileRoundTrip) {
  const testing::TempDir dir;
  auto written = records("+-");
  written[0].generated = "line\nbreak \"quote\" \xC3\xA9";
  write_answers(dir.path() / "a.jsonl", written);
  const auto read = read_answers(dir.path() / "a.jsonl");
  ASSERT_EQ(read.size(), 2u);
  check_answers_can_be_written(dir.path() / "a.jsonl");
  EXPECT_EQ(read_answers(dir.path() / "a.jsonl").size(), 2u) << "the check must not touch what is there";
  EXPECT_EQ(read[0].generated, written[0].generated);
  EXPECT_TRUE(read[0].correct);
  EXPECT_FALSE(read[1].correct);

  std::ofstream(dir.path() / "b.jsonl") << "{\"problem\": 1}\n";
  EXPECT_THROW(read_answers(dir.path() / "b.jsonl"), Error);
  EXPECT_THROW(read_answers(dir.path() / "none.jsonl"), Error);
  EXPECT_THROW(write_answers(dir.path() / "none" / "c.jsonl", written), Error);
  EXPECT_THROW(check_answers_can_be_written(dir.path() / "none" / "c.jsonl"), Error);
}

TEST(AnswerEval, ChoosesRowsEvenlyAndGrades) {
  const testing::TempDir dir;
  std::ofstream out(dir.path() / "test.jsonl");
  for (int i = 0; i < 10; ++i) {
    out << "{\"problem\": \"p" << i << "\", \"generated_solution\": \"so \\\\boxed{" << i << "}\""
        << (i < 5 ? ", \"expected_answer\": \"" + std::to_string(i) + "\"" : "") << "}\n";
  }
  out.close();
  const Dataset dataset = open_dataset(dir.path() / "test.jsonl", "test", {});
  const auto problems = choose_problems(dataset, 4);
  ASSERT_EQ(problems.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    const std::string row = std::to_string(i * 10 / 4);
    EXPECT_EQ(problems[i].problem, "p" + row);
    EXPECT_EQ(problems[i].expected_answer, row) << "from the column, or from the solution's box";
    EXPECT_EQ(problems[i].messages.back().role, "user") << "the solution is not shown to the model";
  }
  EXPECT_EQ(choose_problems(dataset, 99).size(), 10u);
  // Held-out rows come in the split's order; one without an answer makes room for the next.
  std::ofstream(dir.path() / "test.jsonl", std::ios::app) << "{\"problem\": \"?\", \"generated_solution\": \"none\"}\n";
  const std::vector<std::int64_t> rows = {7, 10, 2, 9, 10, 0, 4};
  std::string chosen;
  for (const AnswerProblem& problem : choose_problems(open_dataset(dir.path() / "test.jsonl", "test", {}), rows, 4))
    chosen += problem.problem;
  EXPECT_EQ(chosen, "p7p2p9p0");
  EXPECT_TRUE(grade(problems[1], "2.00 it is: \\boxed{2.00}").correct);
  EXPECT_FALSE(grade(problems[1], "I do not know").correct);
}

}  // namespace
}  // namespace llmfp8
