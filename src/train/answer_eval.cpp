#include "train/answer_eval.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "train/answers.h"

namespace llmfp8 {
namespace {

constexpr double kNormal95 = 1.959963984540054;  // the normal distribution's 97.5 % quantile

nlohmann::ordered_json to_json(const AnswerRecord& record) {
  return {{"problem", record.problem},
          {"expected_answer", record.expected_answer},
          {"problem_source", record.problem_source},
          {"generated", record.generated},
          {"extracted", record.extracted},
          {"correct", record.correct}};
}

AnswerRecord from_json(const nlohmann::json& json, const std::string& where) {
  CHECK(json.is_object(), "{}: a JSON object wanted", where);
  const auto text = [&](const char* key) {
    const auto it = json.find(key);
    CHECK(it != json.end() && it->is_string(),
          "{}: \"{}\" is missing or no text; a file that llm-fp8 eval --out wrote is wanted", where, key);
    return it->get<std::string>();
  };
  const auto correct = json.find("correct");
  CHECK(correct != json.end() && correct->is_boolean(), "{}: \"correct\" is missing or neither true nor false", where);
  return {text("problem"),   text("expected_answer"), text("problem_source"),
          text("generated"), text("extracted"),       correct->get<bool>()};
}

AnswerProblem problem_of(DatasetRow&& row) {
  AnswerProblem problem;
  problem.expected_answer = row.expected_answer;
  problem.problem_source = row.problem_source;
  problem.messages = std::move(row.messages);
  if (problem.messages.back().role == "assistant") {
    if (problem.expected_answer.empty()) problem.expected_answer = extract_answer(problem.messages.back().content);
    problem.messages.pop_back();
  }
  for (const ChatMessage& message : problem.messages) {
    if (message.role == "user") problem.problem = message.content;
  }
  return problem;
}

// Written under this name and renamed, so that a full disk leaves no half file under the other.
std::filesystem::path part_of(const std::filesystem::path& path) { return path.string() + ".part"; }

}  // namespace

std::vector<AnswerProblem> choose_problems(const Dataset& dataset, std::int64_t count) {
  CHECK(count >= 1, "{} problems asked for, wanted at least 1", count);
  const std::int64_t total = dataset.rows(), wanted = std::min(count, total);
  std::vector<std::int64_t> rows;
  // Evenly spread without overflow: floor(i * total / wanted).
  for (std::int64_t i = 0; i < wanted; ++i) rows.push_back(total / wanted * i + total % wanted * i / wanted);
  return choose_problems(dataset, rows, wanted);
}

std::vector<AnswerProblem> choose_problems(const Dataset& dataset, std::span<const std::int64_t> rows, std::int64_t count) {
  std::vector<AnswerProblem> problems;
  std::int64_t fewest = 1;
  while (!rows.empty() && std::ssize(problems) < count) {
    const std::int64_t missing = count - std::ssize(problems);
    const auto some = rows.first(static_cast<std::size_t>(std::min(std::ssize(rows), std::max(fewest, missing))));
    rows = rows.subspan(some.size());
    fewest = 64;  // each time may be a pass over a file
    for (DatasetRow& row : dataset.read_rows(some)) {
      if (std::ssize(problems) == count) break;
      if (row.fault != RowFault::none || row.messages.empty()) continue;
      AnswerProblem problem = problem_of(std::move(row));
      if (!problem.problem.empty() && !normalize_answer(problem.expected_answer).empty())
        problems.push_back(std::move(problem));
    }
  }
  CHECK(!problems.empty(),
        "dataset {}: no row has a problem and an answer; columns problem and expected_answer (or generated_solution) "
        "are wanted, found {}",
        dataset.split_name(), fmt::join(dataset.columns(), ", "));
  return problems;
}

std::vector<std::int32_t> prompt_tokens(const std::vector<ChatMessage>& messages, const ChatTemplate& chat_template,
                                        const Tokenizer& tokenizer) {
  return tokenizer.encode(chat_template.render_text(messages, true));
}

std::vector<std::int32_t> stop_ids(const ModelConfig& config, const ChatTemplate* chat_template,
                                   const Tokenizer& tokenizer) {
  std::vector<std::int32_t> ids;
  for (std::int64_t id : config.eos_token_ids) ids.push_back(static_cast<std::int32_t>(id));
  if (const auto eos = tokenizer.eos_id()) ids.push_back(*eos);
  if (chat_template != nullptr) {
    if (const auto end = tokenizer.token_to_id(chat_template->end_of_turn())) ids.push_back(*end);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

AnswerRecord grade(const AnswerProblem& problem, const std::string& generated) {
  AnswerRecord record{problem.problem, problem.expected_answer,   problem.problem_source,
                      generated,       extract_answer(generated), false};
  record.correct = answers_agree(record.extracted, record.expected_answer);
  return record;
}

void check_answers_can_be_written(const std::filesystem::path& path) {
  const std::filesystem::path part = part_of(path);
  const bool ok = std::ofstream(part, std::ios::binary).good();
  std::error_code ignored;
  std::filesystem::remove(part, ignored);
  CHECK(ok && !std::filesystem::is_directory(path, ignored), "answers file '{}' cannot be written", path.string());
}

void write_answers(const std::filesystem::path& path, const std::vector<AnswerRecord>& records) {
  const std::filesystem::path part = part_of(path);
  {
    std::ofstream out(part, std::ios::binary);
    CHECK(out.good(), "answers file '{}' cannot be written", path.string());
    for (const AnswerRecord& record : records)
      out << to_json(record).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    out.close();
    if (!out) {
      std::error_code ignored;
      std::filesystem::remove(part, ignored);
      fail("answers file '{}' could not be written completely (disk full?)", path.string());
    }
  }
  std::error_code error;
  std::filesystem::rename(part, path, error);
  CHECK(!error, "answers file '{}' cannot be written: {}", path.string(), error.message());
}

std::vector<AnswerRecord> read_answers(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  CHECK(in.good() && !std::filesystem::is_directory(path), "answers file '{}' cannot be read", path.string());
  std::vector<AnswerRecord> records;
  std::string line;
  for (std::int64_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("answers file '{}', line {}", path.string(), number);
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
    CHECK(!json.is_discarded(), "{}: not JSON", where);
    records.push_back(from_json(json, where));
  }
  CHECK(!records.empty(), "answers file '{}' holds no answers", path.string());
  return records;
}

Interval wilson_interval(const Accuracy& accuracy) {
  if (accuracy.count == 0) return {0.0, 1.0};
  const double n = static_cast<double>(accuracy.count), p = accuracy.value(), z2 = kNormal95 * kNormal95;
  const double center = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = kNormal95 / (1 + z2 / n) * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  return {std::max(0.0, center - half), std::min(1.0, center + half)};
}

Accuracy accuracy_of(const std::vector<AnswerRecord>& records) {
  const auto correct = std::count_if(records.begin(), records.end(), [](const AnswerRecord& r) { return r.correct; });
  return {correct, static_cast<std::int64_t>(records.size())};
}

std::map<std::string, Accuracy> accuracy_by_source(const std::vector<AnswerRecord>& records) {
  std::map<std::string, Accuracy> sources;
  for (const AnswerRecord& record : records) {
    Accuracy& accuracy = sources[record.problem_source];
    ++accuracy.count;
    accuracy.correct += record.correct ? 1 : 0;
  }
  return sources;
}

PairedDifference compare_answers(const std::vector<AnswerRecord>& before, const std::vector<AnswerRecord>& after) {
  CHECK(before.size() == after.size() && !before.empty(), "{} answers before, {} after: the same problems are wanted",
        before.size(), after.size());
  PairedDifference result;
  result.before = accuracy_of(before);
  result.after = accuracy_of(after);
  for (std::size_t i = 0; i < before.size(); ++i) {
    CHECK(before[i].problem == after[i].problem && before[i].expected_answer == after[i].expected_answer,
          "problem {} differs between the two files: the same problems in the same order are wanted", i + 1);
    result.gained += !before[i].correct && after[i].correct ? 1 : 0;
    result.lost += before[i].correct && !after[i].correct ? 1 : 0;
  }
  // A problem's difference is -1, 0 or 1, so the sums need the two counts alone.
  const double n = static_cast<double>(before.size());
  result.difference = static_cast<double>(result.gained - result.lost) / n;
  const double squares = static_cast<double>(result.gained + result.lost) - n * result.difference * result.difference;
  const double half = before.size() > 1 ? kNormal95 * std::sqrt(std::max(0.0, squares) / (n - 1)) / std::sqrt(n) : 1.0;
  result.interval = {result.difference - half, result.difference + half};
  return result;
}

}  // namespace llmfp8
