#include "train/answer_evaluator.h"

#include <algorithm>

#include "train/generation_progress.h"
#include "train/interrupt.h"

namespace llmfp8 {
namespace {

std::vector<std::int64_t> held_out_rows(const RunInputs& inputs) {
  std::vector<std::int64_t> rows;
  const TokenStore& store = inputs.rows->held_out;
  for (std::int64_t row = 0; row < store.rows(); ++row) rows.push_back(store.source_row(row));
  return rows;
}

}  // namespace

AnswerEvaluator::AnswerEvaluator(Engine& engine, const RunInputs& inputs, const AnswerEvaluatorOptions& options)
    : tokenizer_(*inputs.tokenizer), stream_(engine.backend().create_stream()) {
  CHECK(inputs.rows->held_out.rows() > 0, "--eval_answers: no row is held out (--eval_interval 0)");
  CHECK(inputs.chat_template != nullptr, "--eval_answers: rows of plain text have no problem to ask; columns problem and "
        "expected_answer (or generated_solution) are wanted");
  problems_ = choose_problems(*inputs.dataset, held_out_rows(inputs), options.problems);
  for (const AnswerProblem& problem : problems_)
    prompts_.push_back(prompt_tokens(problem.messages, *inputs.chat_template, tokenizer_));
  options_.max_new_tokens = options.max_new_tokens;
  options_.stop_ids = stop_ids(engine.config(), inputs.chat_template.get(), tokenizer_);
  options_.progress = [this](const GenerateProgress& progress) {
    throw_if_interrupted();
    console_->update(shown(progress, prompts_.size(), "answer"));
  };
  const GeneratorLimits limits = limits_for(prompts_, engine.config(), options.batch_size, options.max_new_tokens);
  transformer_ = std::make_unique<Transformer>(engine.config(), limits.max_len, engine.backend(), *stream_);
  generator_ = std::make_unique<Generator>(engine.backend(), *transformer_, engine.params(), limits);
}

std::vector<AnswerRecord> AnswerEvaluator::run(Console& console) {
  console_ = &console;
  const std::vector<Generation> generations = generator_->generate(prompts_, options_);
  std::vector<AnswerRecord> records;
  for (std::size_t i = 0; i < problems_.size(); ++i) {
    records.push_back(grade(problems_[i], tokenizer_.decode(generations[i].ids, true)));
  }
  return records;
}

std::string describe_answers(const std::vector<AnswerRecord>& records, const std::vector<AnswerRecord>& before) {
  const Accuracy accuracy = accuracy_of(records);
  const Interval interval = wilson_interval(accuracy);
  std::string text = fmt::format("{:.1f} % ({} of {}, 95 % interval {:.1f} to {:.1f})", 100 * accuracy.value(), accuracy.correct,
                                 accuracy.count, 100 * interval.low, 100 * interval.high);
  if (before.empty()) return text;
  const PairedDifference difference = compare_answers(before, records);
  return text + fmt::format("; {} gained and {} lost since the start", difference.gained, difference.lost);
}

}  // namespace llmfp8
