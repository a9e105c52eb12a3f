// llm-fp8 eval and compare: the loss of a model over held-out rows, how many of its final answers are right, and how two
// models compare.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "cli/commands/choices.h"
#include "cli/commands/commands.h"
#include "cli/commands/model_session.h"
#include "cli/commands/recorded_run.h"
#include "core/error.h"
#include "core/log.h"
#include "report/console.h"
#include "report/text_table.h"
#include "train/answer_eval.h"
#include "train/downloads.h"
#include "train/generation_progress.h"
#include "train/run_inputs.h"

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
  std::string dataset_name, dataset_config, split = "test", dataset_text_field = "text", out, loss_on = "all";
  std::int64_t num_of_samples = 0;
  bool held_out = false, loss = false, answers = true, json = false, quiet = false;
  std::int64_t max_seq_length = 1024, eval_batch_size = 8, eval_max_rows = 0;
  std::int64_t rows = 200, max_new_tokens = 200;

  ConsoleOptions console_options() const {
    ConsoleOptions options;
    options.is_quiet = quiet;
    return options;
  }
};

constexpr const char* kOfLoss[] = {"max_seq_length", "loss_on", "eval_batch_size", "eval_max_rows"};
constexpr const char* kOfAnswers[] = {"rows", "max_new_tokens", "batch_size", "out"};

void declare(FlagSet& flags, EvalFlags& given) {
  declare_model_flags(flags, given.model);
  flags.text("dataset_name", "NAME", &given.dataset_name,
             "a hub name, a folder, a .parquet or .jsonl file (.jsonl.gz, .jsonl.zst, .json too); without it, what the run that wrote the "
             "model was given, with its split and the rows that it held out");
  flags.text("split", "NAME", &given.split, "split of the data set");
  flags.text("dataset_config", "NAME", &given.dataset_config, "configuration of the data set; without it, the default one");
  flags.text("dataset_text_field", "NAME", &given.dataset_text_field, "column of plain text");
  flags.whole("num_of_samples", {0}, &given.num_of_samples, "take the first N rows of the split; 0: all");
  flags.on_off("held_out", &given.held_out, "of these, only the 10 % that a training run holds out");
  flags.on_off("loss", &given.loss, "loss, perplexity and supervised tokens, as a training run's evaluation computes them");
  flags.whole("max_seq_length", {1, 1 << 20}, &given.max_seq_length, "of --loss: longer rows are cut here (BOS counted)");
  flags.choice("loss_on", words(kLossOn), &given.loss_on, "of --loss: tokens that it counts; completion: what answers the last user message; assistant: every answer");
  flags.whole("eval_batch_size", {1, 1 << 20}, &given.eval_batch_size, "of --loss: rows at once");
  flags.whole("eval_max_rows", {0}, &given.eval_max_rows, "of --loss: the first N rows; 0: all");
  flags.on_off("answers", &given.answers, "exact match of final answers, greedy generation; with --loss only where it is typed");
  flags.whole("rows", {1, 1 << 24}, &given.rows, "problems, spread evenly over the split; with --held_out the first ones");
  flags.whole("max_new_tokens", {1, 1 << 20}, &given.max_new_tokens, "a longer answer is cut off");
  flags.text("out", "FILE", &given.out, "write every problem with the model's text and answer, JSON Lines");
  flags.on_off("json", &given.json, "one JSON object on standard output");
  flags.on_off("quiet", &given.quiet, "no progress, no speed");
}

void check_together(const FlagSet& flags, EvalFlags& given) {
  if (given.loss && !flags.is_set("answers")) given.answers = false;
  if (!given.loss && !given.answers) fail_usage("eval: nothing to do: --no-answers without --loss");
  for (const char* name : kOfLoss) {
    if (flags.is_set(name) && !given.loss) fail_usage("eval: --{} has no meaning without --loss", name);
  }
  for (const char* name : kOfAnswers) {
    if (flags.is_set(name) && !given.answers) fail_usage("eval: --{} has no meaning without --answers", name);
  }
}

// What the run that wrote the model was given stands where nothing was typed; a data set that was typed has its own split.
void take_defaults_of_run(FlagSet& flags, EvalFlags& given) {
  const RecordedRun run = recorded_run(find_local(RepoKind::model, given.model.model).value_or(std::filesystem::path()));
  std::vector<std::string> taken;
  const auto take = [&](const char* name, const std::string& value) {
    if (!value.empty() && flags.take_default(name, value)) taken.push_back(value == "true" ? fmt::format("--{}", name) : fmt::format("--{} {}", name, value));
  };
  if (!run.file.empty()) {
    const bool takes_rows = !flags.is_set("dataset_name");
    take("weights_cache_dir", run.flag("weights_cache_dir"));
    take("dtype", run.flag("mixed_precision") == "fp32" ? "f32" : "bf16");
    take("chat_template", run.flag("chat_template"));
    take("template_date", run.flag("template_date"));
    take("dataset_text_field", run.flag("dataset_text_field"));
    if (takes_rows) {
      take("dataset_name", run.flag("dataset_name"));
      take("dataset_config", run.flag("dataset_config"));
      take("split", run.flag("split_name"));
      take("num_of_samples", run.flag("num_of_samples"));
      take("held_out", "true");
    }
    if (given.loss) {
      for (const char* name : {"max_seq_length", "loss_on", "eval_batch_size"}) take(name, run.flag(name));
      if (takes_rows) take("eval_max_rows", run.flag("eval_max_rows"));
    }
  }
  if (given.dataset_name.empty()) fail_usage("eval: --dataset_name is missing, and no run.json beside the model names one");
  if (!taken.empty() && !given.quiet) log::info("as in {}: {}", run.file.string(), fmt::join(taken, " "));
}

struct MeasuredLoss {
  EvalResult result;
  std::int64_t rows = 0;
};

MeasuredLoss measure_loss(ModelSession& session, const Dataset& dataset, const std::vector<std::int64_t>& rows,
                          const EvalFlags& given) {
  SplitRows split;
  split.test = rows;
  keep_first(split.test, given.eval_max_rows);
  const ChatTemplate* chat_template =
      wants_chat_template(given.model.chat_template, dataset) ? &session.chat_template() : nullptr;
  const RowEncoder encoder(session.tokenizer(), chat_template, {given.max_seq_length, meaning(kLossOn, given.loss_on)});
  Console console(given.console_options());
  TokenizedDataset tokens = tokenize_rows(dataset, split, encoder, console);
  check_vocabulary(tokens, session.source(), session.tokenizer());
  if (const std::string faults = fault_summary(tokens.rows_by_fault); !faults.empty()) log::warning("{}", faults);
  const BatchLoader loader = evaluation_loader(tokens.held_out, given.eval_batch_size, given.max_seq_length);
  return {session.loss(loader, console), tokens.held_out.rows()};
}

std::vector<AnswerRecord> answer(ModelSession& session, const std::vector<AnswerProblem>& problems,
                                 const EvalFlags& given) {
  std::vector<std::vector<std::int32_t>> prompts;
  for (const AnswerProblem& problem : problems) {
    prompts.push_back(prompt_tokens(problem.messages, session.chat_template(), session.tokenizer()));
  }
  Console console(given.console_options());
  GenerateOptions options;
  options.max_new_tokens = given.max_new_tokens;
  options.stop_ids = stop_ids(session.config(), &session.chat_template(), session.tokenizer());
  options.progress = [&](const GenerateProgress& progress) { console.update(shown(progress, prompts.size(), "problem")); };
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

void print_result(const std::optional<MeasuredLoss>& loss, const std::vector<AnswerRecord>& records) {
  if (loss) {
    fmt::print("loss: {:.4f}, perplexity {:.2f}, over {} supervised tokens of {} row{}\n", loss->result.loss(),
               std::exp(loss->result.loss()), loss->result.num_supervised, loss->rows, loss->rows == 1 ? "" : "s");
  }
  if (!records.empty()) print_accuracy(records);
}

void print_json(const std::optional<MeasuredLoss>& loss, const std::vector<AnswerRecord>& records,
                const std::string& model) {
  nlohmann::ordered_json json = {{"model", model}};
  if (loss) {
    json["loss"] = loss->result.loss();
    json["perplexity"] = std::exp(loss->result.loss());
    json["tokens"] = loss->result.num_supervised;
    json["rows"] = loss->rows;
  }
  if (!records.empty()) {
    const Accuracy accuracy = accuracy_of(records);
    const Interval interval = wilson_interval(accuracy);
    json["accuracy"] = accuracy.value();
    json["accuracy_interval"] = {interval.low, interval.high};
    json["correct"] = accuracy.correct;
    json["problems"] = accuracy.count;
  }
  fmt::print("{}\n", json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace

int run_eval(CommandArgs args) {
  EvalFlags given;
  FlagSet flags("eval", "loss and perplexity of a model over rows; accuracy of its final answers to math problems",
                "--model NAME --dataset_name NAME [flags]");
  declare(flags, given);
  if (!flags.parse(args)) return 0;
  check_together(flags, given);
  take_defaults_of_run(flags, given);
  DatasetOptions options;
  options.config = given.dataset_config;
  options.text_field = given.dataset_text_field;
  options.num_of_samples = given.num_of_samples;
  Console console(given.console_options());
  const Dataset dataset = open_dataset(fetch_dataset(given.dataset_name, given.split, given.dataset_config, given.model.weights_cache_dir, console), options);
  std::vector<std::int64_t> rows;
  if (given.held_out) {
    rows = train_test_split(dataset.rows(), kHeldOutShare, kSplitSeed).test.list();
  } else {
    rows.resize(static_cast<std::size_t>(dataset.rows()));
    std::iota(rows.begin(), rows.end(), 0);
  }
  std::vector<AnswerProblem> problems;
  if (given.answers)
    problems = given.held_out ? choose_problems(dataset, rows, given.rows) : choose_problems(dataset, given.rows);
  if (!given.out.empty()) check_answers_can_be_written(given.out);
  ModelSession session(given.model);
  std::optional<MeasuredLoss> loss;
  if (given.loss) loss = measure_loss(session, dataset, rows, given);
  std::vector<AnswerRecord> records;
  if (given.answers) records = answer(session, problems, given);
  if (!given.out.empty()) write_answers(given.out, records);
  if (given.json) {
    print_json(loss, records, given.model.model);
  } else {
    print_result(loss, records);
  }
  CHECK(std::fflush(stdout) == 0, "standard output cannot be written");
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
