// How often a model's final answer to a math problem is right: prompts from a data set, greedy generation, the answers
// taken out and compared; and how two models compare on the same problems. Called by `llm-fp8 eval` and `compare`.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "model/generator.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace llmfp8 {

struct AnswerProblem {
  std::string problem, expected_answer, problem_source;
  std::vector<ChatMessage> messages;  // up to the assistant's turn
};

// One line of an answers file.
struct AnswerRecord {
  std::string problem, expected_answer, problem_source;
  std::string generated;  // the model's whole text
  std::string extracted;  // its final answer; empty: none found
  bool correct = false;
};

// `count` rows spread evenly over the split, so that its sources mix; unusable rows are left out. Expected is
// expected_answer, else the final answer of the row's own solution. Throws Error where no row is of use.
std::vector<AnswerProblem> choose_problems(const Dataset& dataset, std::int64_t count);
// The first `count` usable ones of `rows`, numbers of the data set's rows.
std::vector<AnswerProblem> choose_problems(const Dataset& dataset, std::span<const std::int64_t> rows, std::int64_t count);

// With the assistant's header at the end; tokens that end its turn.
std::vector<std::int32_t> prompt_tokens(const std::vector<ChatMessage>& messages, const ChatTemplate& chat_template,
                                        const Tokenizer& tokenizer);
// The model's and the tokenizer's ends of text; with a chat template (may be null) the end of a turn too.
std::vector<std::int32_t> stop_ids(const ModelConfig& config, const ChatTemplate* chat_template,
                                   const Tokenizer& tokenizer);

AnswerRecord grade(const AnswerProblem& problem, const std::string& generated);

// Throw Error that names the file (and the line).
void check_answers_can_be_written(const std::filesystem::path& path);  // before the work; what is there stays
void write_answers(const std::filesystem::path& path, const std::vector<AnswerRecord>& records);
std::vector<AnswerRecord> read_answers(const std::filesystem::path& path);

struct Interval {
  double low = 0, high = 0;
};

struct Accuracy {
  std::int64_t correct = 0, count = 0;
  double value() const { return count > 0 ? static_cast<double>(correct) / static_cast<double>(count) : 0.0; }
};
// Wilson's score interval, 95 %: holds near 0 and 1 too, where the normal one does not.
Interval wilson_interval(const Accuracy& accuracy);

Accuracy accuracy_of(const std::vector<AnswerRecord>& records);
std::map<std::string, Accuracy> accuracy_by_source(const std::vector<AnswerRecord>& records);

// Of the same problems before and after. difference: of the accuracies; interval: 95 %, from the paired differences.
struct PairedDifference {
  Accuracy before, after;
  double difference = 0;
  Interval interval;
  std::int64_t gained = 0, lost = 0;  // wrong then right; right then wrong (McNemar's counts)
};
// Throws Error where the two do not hold the same problems in the same order.
PairedDifference compare_answers(const std::vector<AnswerRecord>& before, const std::vector<AnswerRecord>& after);

}  // namespace llmfp8
