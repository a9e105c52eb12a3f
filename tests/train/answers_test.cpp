// Final answers: where they are found in a text, and which ones count as equal.
#include "train/answers.h"

#include <gtest/gtest.h>

namespace llmfp8 {
namespace {

TEST(ExtractAnswer, TakesTheLastClosedBox) {
  EXPECT_EQ(extract_answer("First \\boxed{1}, then \\boxed{2}."), "2");
  EXPECT_EQ(extract_answer("So \\boxed{\\frac{3}{4}}"), "\\frac{3}{4}");
  EXPECT_EQ(extract_answer("\\boxed{ \\text{all of } \\{1, 2\\} } and 7"), "\\text{all of } \\{1, 2\\}");
  EXPECT_EQ(extract_answer("\\boxed{12} or \\boxed{13"), "12") << "a box that the token limit cut off";
  EXPECT_EQ(extract_answer("the total is 30, \\boxed{}"), "30") << "an empty box says nothing";
}

TEST(ExtractAnswer, ElseTheLastNumber) {
  EXPECT_EQ(extract_answer("3 + 4 = 7 apples."), "7");
  EXPECT_EQ(extract_answer("It costs $1,234.50."), "1,234.50");
  EXPECT_EQ(extract_answer("x is -5"), "-5");
  EXPECT_EQ(extract_answer("10-3"), "3");
  EXPECT_EQ(extract_answer("it loses -$20 a day"), "-20");
  EXPECT_EQ(extract_answer("1, 2, 3"), "3");
  EXPECT_EQ(extract_answer("the share is 3/4."), "3/4");
  EXPECT_EQ(extract_answer("about .5"), ".5");
  EXPECT_EQ(extract_answer("that is \\frac{3}{4} of it"), "\\frac{3}{4}");
  EXPECT_EQ(extract_answer("\\frac{3}{4} of 8"), "8");
  EXPECT_EQ(extract_answer("no number"), "");
  EXPECT_EQ(extract_answer(""), "");
}

TEST(NormalizeAnswer, DropsWhatDoesNotMatter) {
  EXPECT_EQ(normalize_answer(" $1,234 "), "1234");
  EXPECT_EQ(normalize_answer("1{,}234"), "1234");
  EXPECT_EQ(normalize_answer("(1,2)"), "(1,2)");
  EXPECT_EQ(normalize_answer("12."), "12");
  EXPECT_EQ(normalize_answer("12 apples per day"), "12");
  EXPECT_EQ(normalize_answer("12\\text{ km/h}"), "12");
  EXPECT_EQ(normalize_answer("50\\%"), "50");
  EXPECT_EQ(normalize_answer("x = 5"), "5");
  EXPECT_EQ(normalize_answer("5x"), "5x");
  EXPECT_EQ(normalize_answer("\\text{Monday}"), "Monday");
  EXPECT_EQ(normalize_answer("90^\\circ"), "90");
}

TEST(AnswerValue, IsAnExactFraction) {
  EXPECT_EQ(answer_value("0.75"), (Fraction{3, 4}));
  EXPECT_EQ(answer_value("-6/8"), (Fraction{-3, 4}));
  EXPECT_EQ(answer_value("\\frac{-6}{8}"), (Fraction{-3, 4}));
  EXPECT_EQ(answer_value("\\frac12"), (Fraction{1, 2}));
  EXPECT_EQ(answer_value("1\\frac{1}{2}"), (Fraction{3, 2}));
  EXPECT_EQ(answer_value("1 1/2"), (Fraction{3, 2}));
  EXPECT_EQ(answer_value("-1 1/2"), (Fraction{-3, 2}));
  EXPECT_EQ(answer_value("7.00"), (Fraction{7, 1}));
  EXPECT_FALSE(answer_value("1/0"));
  EXPECT_FALSE(answer_value("1 2"));
  EXPECT_FALSE(answer_value("2x"));
  EXPECT_FALSE(answer_value("."));
  EXPECT_FALSE(answer_value(""));
  EXPECT_FALSE(answer_value("99999999999999999999")) << "beyond 64 bits";
}

TEST(AnswersAgree, ByTextOrByValue) {
  EXPECT_TRUE(answers_agree("\\frac{1}{2}", "0.5"));
  EXPECT_TRUE(answers_agree("\\dfrac{2}{4}", "1/2"));
  EXPECT_TRUE(answers_agree("$1,200.00", "1200"));
  EXPECT_TRUE(answers_agree("18 dollars", "18"));
  EXPECT_TRUE(answers_agree("$-\\frac{17}{11}$", "-17/11"));
  EXPECT_TRUE(answers_agree("x^2 + 1", "x^2+1"));
  EXPECT_TRUE(answers_agree("99999999999999999999", "99,999,999,999,999,999,999"));
  EXPECT_TRUE(answers_agree("-0", "0"));
  EXPECT_FALSE(answers_agree("1/3", "0.33"));
  EXPECT_FALSE(answers_agree("12", "21"));
  EXPECT_FALSE(answers_agree("5", "-5"));
  EXPECT_FALSE(answers_agree("", "")) << "no answer is no right answer";
}

}  // namespace
}  // namespace llmfp8
