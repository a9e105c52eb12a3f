// The trainer's looks at itself: before the first step, at evaluations, and at the health of a step now and then.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <system_error>

#include "core/log.h"
#include "train/dry_run.h"
#include "train/interrupt.h"
#include "train/trainer.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;

fs::path answers_folder(const RunFolder& folder) { return folder.path() / "answers"; }
fs::path answers_file(const RunFolder& folder, std::int64_t step) { return answers_folder(folder) / fmt::format("step-{}.jsonl", step); }

}  // namespace

std::vector<PreflightCheck> Trainer::preflight() {
  const TokenStore& rows = inputs_.rows->train;
  std::vector<PreflightCheck> checks = check_row_ends(rows, *inputs_.tokenizer, config_.max_seq_length);
  checks.push_back(check_special_embeddings(rows, *inputs_.tokenizer, *engine_));
  DiskNeed need;
  need.model_bytes = export_bytes(export_, engine_->params().table());
  need.snapshot_bytes = need.model_bytes;
  for (const NamedTensor& tensor : tensors_beside_model(*engine_, export_)) need.snapshot_bytes += tensor.tensor.bytes();
  // Those on the way, and the one at the end.
  if (config_.save_interval > 0) need.snapshots = (total_steps_ - 1) / config_.save_interval + 1;
  if (config_.keep_checkpoints > 0) need.snapshots = std::min(need.snapshots, config_.keep_checkpoints);
  checks.push_back(check_disk(folder_.path(), need));
  return checks;
}

void Trainer::dry_run() {
  const auto times = [](std::int64_t length, std::int64_t interval) { return interval > 0 ? (length + interval - 1) / interval : 0; };
  const std::int64_t evaluations = !inputs_.eval_loader ? 0
                                   : std::max<std::int64_t>(1, times(config_.num_epochs, config_.eval_interval)) +
                                         (config_.eval_interval_steps > 0 ? (total_steps_ - 1) / config_.eval_interval_steps : 0);
  const DryRun run{*inputs_.train_loader, inputs_.eval_loader.get(), total_steps_, evaluations, config_.max_grad_norm};
  const MeasuredRun measured = measure_run(*engine_, run);
  log::info("what ran in two steps with learning rate 0:\n{}", recipe_table(engine_->ledger(), engine_->config()));
  log::info("{}", describe(preflight()));
  log::info("dry run: {}; nothing was trained, and nothing written", describe(measured, run));
}

void Trainer::evaluate(double epoch) {
  const std::optional<EvalResult> total = evaluate_rows(*inputs_.eval_loader, [this](const HostBatch& batch) { return engine_->evaluate(batch); },
                                                        console_);
  if (!total) return;
  last_eval_loss_ = total->loss();
  evaluated_step_ = global_step_;
  metrics_.log(global_step_, {{names_.eval_loss, last_eval_loss_},
                              {names_.eval_perplexity, std::exp(last_eval_loss_)},
                              {names_.eval_tokens, static_cast<double>(total->num_supervised)},
                              {names_.eval_epoch, epoch},
                              {names_.eval_step, static_cast<double>(global_step_)}});
  saver_->wait();
  if (program_rules(config_.program).keep_best) snapshots_->offer_best(global_step_, last_eval_loss_);
  if (answers_) evaluate_answers();
}

// A part of the answers would look like the whole: nothing is logged where a signal came.
void Trainer::evaluate_answers() {
  std::vector<AnswerRecord> records;
  try {
    records = answers_->run(console_);
  } catch (const Interrupted&) {
    return;
  }
  std::error_code error;
  fs::create_directories(answers_folder(folder_), error);
  CHECK(!error, "{}: cannot be created ({})", answers_folder(folder_).string(), error.message());
  write_answers(answers_file(folder_, global_step_), records);
  console_.finish();
  log::info("answers at step {}: {}", global_step_, describe_answers(records, first_answers_));
  metrics_.log(global_step_, {{names_.eval_accuracy, accuracy_of(records).value()}});
  if (global_step_ == 0) first_answers_ = std::move(records);
}

// Its values, and one line of health.jsonl with every matrix.
void Trainer::log_health() {
  const StepHealthReport report = health_->take();
  const MetricValues values = report.values();
  metrics_.log(report.step, {values.begin(), values.end()});
  std::ofstream file(folder_.health_file(), std::ios::app);
  file << report.json().dump() << "\n";
  CHECK(file.flush(), "{}: cannot be written", folder_.health_file().string());
}

void Trainer::log_shadow() {
  const ShadowReport report = engine_->shadow()->take();
  const MetricValues values = report.values();
  metrics_.log(report.step, {values.begin(), values.end()});
  log::info("{}", report.text());
}

void Trainer::watch_loss(double loss) {
  const std::optional<LossWatch::Spike> spike = loss_watch_.add(loss);
  if (!spike || !spike->is_first) return;
  log::warning("step {}: loss {:.4f} lies {:.1f} standard deviations above the mean of the last {} steps, {:.4f}", global_step_, loss,
               spike->deviations, spike->steps, spike->mean);
}

// Answers of this folder beyond last_step belong to another run, or are made again; -1: all of them.
void Trainer::trim_answers(std::int64_t last_step) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(answers_folder(folder_), error)) {
    std::error_code ignored;
    if (step_of(entry.path().parent_path() / entry.path().stem()) > last_step) fs::remove(entry.path(), ignored);
  }
  if (answers_ && last_step >= 0 && fs::exists(answers_file(folder_, 0), error)) first_answers_ = read_answers(answers_file(folder_, 0));
}

}  // namespace llmfp8
