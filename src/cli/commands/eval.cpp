// llm-fp8 eval and compare: how many final answers of a model are right, and how two models compare.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "cli/commands/commands.h"
#include "cli/commands/model_session.h"
#include "core/error.h"
#include "core/log.h"
#include "hub/hub_cache.h"
#include "report/console.h"
#include "report/text_table.h"
#include "train/answer_eval.h"

namespace llmfp8 {
namespace {

std::string percent(double share) { return fmt::format("{:.1f} %", 100.0 * share); }
std::string points(double share) { return fmt::format("{:+.1f}", 100.0 * share); }

std::string accuracy_text(const Accuracy& accuracy) {
  const Interval interval = wilson_interval(accuracy);
  return fmt::format("{} / {} = {} (95 % interval {} to {})", accuracy.correct, accuracy.count,
                     percent(accuracy.value()), percent(interval.low), percent(interval.high));
}

void print_accuracy(const std::vector<AnswerRecord>& records) {
  const auto sources = accuracy_by_source(records);
  if (sources.size() > 1) {
    TextTable table({{"problem_source"}, {"correct", Align::right}, {"of", Align::right}, {"accuracy", Align::right}});
    for (const auto& [source, accuracy] : sources) {
      table.add_row({source.empty() ? "(none)" : source, std::to_string(accuracy.correct),
                     std::to_string(accuracy.count), percent(accuracy.value())});
    }
    fmt::print("{}", table.text(style_of_stdout()));
  }
  fmt::print("accuracy: {}\n", accuracy_text(accuracy_of(records)));
}

// The problem and what a model wrote, for a reader: lines are kept, other control characters are not.
std::string indented(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return (c < 0x20 && c != '\n') || c == 0x7F; }, ' ');
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::string out = "    ";
  for (char c : text) out += c == '\n' ? std::string("\n    ") : std::string(1, c);
  return out;
}

void print_example(std::size_t number, std::size_t count, const AnswerRecord& before, const AnswerRecord& after) {
  const auto verdict = [](const AnswerRecord& r) {
    return fmt::format("answer {}, {}", r.extracted.empty() ? "(none)" : r.extracted, r.correct ? "right" : "wrong");
  };
  fmt::print("\nproblem {} of {}{}\n{}\n  expected: {}\n  before ({}):\n{}\n  after ({}):\n{}\n", number, count,
             before.problem_source.empty() ? "" : ", " + before.problem_source, indented(before.problem),
             before.expected_answer, verdict(before), indented(before.generated), verdict(after),
             indented(after.generated));
}

struct EvalFlags {
  ModelChoice model;
  std::string dataset_name, split = "test", out;
  std::int64_t rows = 200, max_new_tokens = 200;
  bool quiet = false;
};

std::vector<AnswerRecord> answer(ModelSession& session, const std::vector<AnswerProblem>& problems,
                                 const EvalFlags& given) {
  std::vector<std::vector<std::int32_t>> prompts;
  for (const AnswerProblem& problem : problems) {
    prompts.push_back(prompt_tokens(problem.messages, session.chat_template(), session.tokenizer()));
  }
  ConsoleOptions console_options;
  console_options.is_quiet = given.quiet;
  Console console(console_options);
  GenerateOptions options;
  options.max_new_tokens = given.max_new_tokens;
  options.stop_ids = stop_ids(session.config(), &session.chat_template(), session.tokenizer());
  options.progress = [&](const GenerateProgress& progress) {
    console.update(
        {.step = progress.finished, .total_steps = static_cast<std::int64_t>(prompts.size()), .what = "problem"});
  };
  const std::vector<Generation> generations = session.generate(prompts, options);
  console.finish();
  std::vector<AnswerRecord> records;
  for (std::size_t i = 0; i < problems.size(); ++i) {
    records.push_back(grade(problems[i], session.tokenizer().decode(generations[i].ids, true)));
  }
  const auto cut = std::count_if(generations.begin(), generations.end(),
                                 [](const Generation& g) { return g.reason != StopReason::stop_id; });
  if (cut > 0)
    log::info("{} of {} answers were cut off at --max_new_tokens {}", cut, generations.size(), given.max_new_tokens);
  if (!given.quiet) log::info("{}", speed_text(session.times()));
  return records;
}

}  // namespace

int run_eval(CommandArgs args) {
  EvalFlags given;
  FlagSet flags("eval", "accuracy of a model's final answers to math problems (exact match; greedy generation)",
                "--model NAME --dataset_name NAME [flags]");
  declare_model_flags(flags, given.model);
  flags.text("dataset_name", "NAME", &given.dataset_name,
             "a hub name in the local cache, a folder, a .parquet or a .jsonl file", Presence::required);
  flags.text("split", "NAME", &given.split, "split of the data set");
  flags.whole("rows", {1, 1 << 24}, &given.rows, "problems, spread evenly over the split");
  flags.whole("max_new_tokens", {1, 1 << 20}, &given.max_new_tokens, "a longer answer is cut off");
  flags.text("out", "FILE", &given.out, "write every problem with the model's text and answer, JSON Lines");
  flags.on_off("quiet", &given.quiet, "no progress, no speed");
  if (!flags.parse(args)) return 0;
  const Dataset dataset =
      open_dataset(resolve_dataset(given.dataset_name, given.model.weights_cache_dir), given.split, {});
  const std::vector<AnswerProblem> problems = choose_problems(dataset, given.rows);
  if (!given.out.empty()) check_answers_can_be_written(given.out);
  ModelSession session(given.model);
  const std::vector<AnswerRecord> records = answer(session, problems, given);
  if (!given.out.empty()) write_answers(given.out, records);
  print_accuracy(records);
  return 0;
}

int run_compare(CommandArgs args) {
  std::string before_path, after_path;
  std::int64_t examples = 3;
  FlagSet flags("compare", "the paired difference between two files of answers", "BEFORE.jsonl AFTER.jsonl [flags]");
  flags.positional("BEFORE.jsonl", &before_path, "what llm-fp8 eval --out wrote for one model");
  flags.positional("AFTER.jsonl", &after_path, "the same problems, answered by another");
  flags.whole("examples", {0, 1 << 20}, &examples,
              "print N problems with both answers, at fixed positions spread over the file");
  if (!flags.parse(args)) return 0;
  const std::vector<AnswerRecord> before = read_answers(before_path), after = read_answers(after_path);
  const PairedDifference d = compare_answers(before, after);
  const std::size_t shown = std::min(static_cast<std::size_t>(examples), before.size());
  if (shown > 0)
    fmt::print("{} problems at fixed positions, spread evenly over the {}, whatever came out:\n", shown, before.size());
  for (std::size_t i = 0; i < shown; ++i) {
    const std::size_t at = (2 * i + 1) * before.size() / (2 * shown);
    print_example(at + 1, before.size(), before[at], after[at]);
  }
  if (shown > 0) fmt::print("\n");
  fmt::print("before: {}\nafter:  {}\n", accuracy_text(d.before), accuracy_text(d.after));
  fmt::print("difference: {} points (95 % interval of the paired difference {} to {})\n", points(d.difference),
             points(d.interval.low), points(d.interval.high));
  fmt::print("wrong before and right after: {}; right before and wrong after: {}\n", d.gained, d.lost);
  return 0;
}

}  // namespace llmfp8
