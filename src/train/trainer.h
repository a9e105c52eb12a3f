// Trainer: a whole run, from a configuration to a saved model. Called by the mains through cli/run_training.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "optim/lr_schedule.h"
#include "params/export.h"
#include "report/console.h"
#include "report/loss_watch.h"
#include "report/metric_names.h"
#include "report/metrics.h"
#include "report/stability.h"
#include "train/answer_evaluator.h"
#include "train/checkpoint_saver.h"
#include "train/engine.h"
#include "train/model_snapshots.h"
#include "train/precision.h"
#include "train/preflight.h"
#include "train/resume.h"
#include "train/run_folder.h"
#include "train/run_inputs.h"
#include "train/step_health.h"
#include "train/step_queue.h"
#include "train/step_window.h"
#include "train/utilisation.h"

namespace llmfp8 {

class Trainer {
 public:
  // Opens everything and allocates everything; throws Error for whatever can be known before step 1, and Interrupted
  // where Ctrl-C or SIGTERM came first (its caller has installed the handlers of interrupt.h).
  // flags: what run.json says of the command line.
  Trainer(const RunConfig& config, nlohmann::ordered_json flags, Console& console);
  ~Trainer();

  // Where values go; to be filled before run().
  Metrics& metrics() { return metrics_; }
  const RunFolder& folder() const { return folder_; }
  // As run.json has them: with what came of those that leave it to the run.
  const nlohmann::ordered_json& flags() const { return flags_; }
  std::int64_t steps_done() const { return global_step_; }  // after a resume, those before it too
  // Whether metrics.jsonl goes on behind what the run that was resumed has written.
  bool continues_metrics() const { return resume_ != nullptr && resume_->is_own; }
  // How much of metrics.jsonl stays after a resume; run() cuts the rest.
  std::uintmax_t kept_metrics_bytes() const;
  // What loggers want to find again after a resume ("tensorboard_folder", a W&B run id): filled before run() by who
  // adds them, kept in every checkpoint. An object; empty in a new run.
  nlohmann::ordered_json& logger_state() { return logger_state_; }
  const Capabilities& device() const { return backend_->capabilities(); }

  // Trains, evaluates and saves; with --dry_run only looks, says and changes nothing. Throws Error when --on_nonfinite ends
  // it at a step (the last good state has then been saved) or nothing was learnt, DeviceFailed with what is kept when the device was lost.
  void run();

 private:
  void open();
  void train();
  std::vector<PreflightCheck> preflight();
  void dry_run();
  void print_header() const;
  void print_multi_gpu_header() const;
  void print_epoch(std::int64_t epoch) const;
  void train_epoch(std::int64_t epoch);
  void enqueue(const StepQueue::Step& step);
  void take_result();
  void after_step(const StepResult& result, double learning_rate, double seconds);
  void log_health();
  void log_shadow();
  void watch_loss(double loss);
  void log_step(const StepResult& result, double learning_rate, double seconds);
  void evaluate(double epoch);
  void evaluate_answers();
  // In trainer_not_finite.cpp.
  void step_not_finite(const StepQueue::Done& done, double seconds);
  [[noreturn]] void stop_not_finite(const StepQueue::Done& done);
  std::string why_not_finite(const StepQueue::Step& step);
  std::size_t skipped_before(std::int64_t step) const;
  void stop_device_failed(const DeviceFailed& error);
  void save(const char* why);
  void finish();
  nlohmann::ordered_json run_json() const;
  void write_run(std::string state);
  void keep_error(const char* error);
  // In trainer_checkpoint.cpp.
  nlohmann::ordered_json what_runs();
  nlohmann::ordered_json hub_commits() const;
  nlohmann::ordered_json checkpoint_state();
  void save_checkpoint();
  SaverOptions saver_options() const;
  void wait_for_save();
  TemplateDate template_date() const;
  void record_template_date();
  void resume();
  void leave_superseded_behind();
  void take_best_over();
  // In trainer_looks.cpp, with preflight, dry_run, evaluate, evaluate_answers, log_health, log_shadow and watch_loss.
  void trim_answers(std::int64_t last_step);
  bool done() const { return global_step_ >= total_steps_; }

  RunConfig config_;
  nlohmann::ordered_json flags_;
  Console& console_;
  Metrics metrics_;
  const MetricNames& names_;
  std::unique_ptr<ResumePoint> resume_;  // null: a new run
  RunFolder folder_;
  std::unique_ptr<Backend> backend_;
  PrecisionChoice precision_;
  RunInputs inputs_;
  ExportSpec export_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<ModelSnapshots> snapshots_;
  std::unique_ptr<CheckpointSaver> saver_;
  std::unique_ptr<StepHealth> health_;  // with --health_interval alone
  StabilityTracker stability_;
  LossWatch loss_watch_;
  LrSchedule schedule_;
  std::int64_t total_steps_ = 0;
  std::int64_t global_step_ = 0;     // steps done
  std::int64_t learnt_steps_ = 0;    // of them, those with a supervised token
  Cursor cursor_;                    // the next step to do; behind an epoch's last step until the epoch has been evaluated
  StepWindow window_, epoch_;        // since a log; since the epoch began
  std::unique_ptr<StepQueue> steps_;         // in flight
  std::vector<std::int64_t> skipped_steps_;  // ascending; with --on_nonfinite skip alone
  double last_result_ = 0;           // when the last result came, or the first step behind a pause began; seconds, steady clock
  double matrix_rate_ = 0;           // of a large bf16 product on the device; FLOP/s
  double device_bytes_ = 0;          // allocated before step 1; it stays
  double started_ = 0;               // seconds, steady clock
  double started_at_ = 0;            // seconds since 1970
  double train_seconds_ = 0;         // in steps alone
  std::int64_t train_tokens_ = 0;
  std::int64_t train_supervised_ = 0;
  std::unique_ptr<AnswerEvaluator> answers_;          // with --eval_answers alone
  std::vector<AnswerRecord> first_answers_;            // before the first step
  double last_eval_loss_ = 0;
  std::int64_t evaluated_step_ = -1;  // the step of the last evaluation; -1: there was none
  bool has_shown_what_ran_ = false;
  std::string state_;  // of run.json
  std::string error_;  // that ended the run
  std::vector<std::int64_t> resumed_from_;      // steps
  std::vector<std::string> resume_differences_;  // from the run that wrote the checkpoint
  nlohmann::ordered_json logger_state_ = nlohmann::ordered_json::object();
  nlohmann::ordered_json what_runs_;            // once asked for
  nlohmann::ordered_json saved_state_;          // of the last checkpoint
};

}  // namespace llmfp8
