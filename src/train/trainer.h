// Trainer: a whole run, from a configuration to a saved model. Called by the mains through cli/run_training.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>

#include <nlohmann/json.hpp>

#include "optim/lr_schedule.h"
#include "params/export.h"
#include "report/console.h"
#include "report/metric_names.h"
#include "report/metrics.h"
#include "report/stability.h"
#include "train/engine.h"
#include "train/model_snapshots.h"
#include "train/precision.h"
#include "train/run_folder.h"
#include "train/run_inputs.h"

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
  const Capabilities& device() const { return backend_->capabilities(); }

  // Trains, evaluates and saves. Throws Error when a step is not finite (the last good state has then been saved) or
  // nothing was learnt, DeviceFailed with what is kept when the device was lost.
  void run();

 private:
  struct Window;  // what has run since a log, or since an epoch began

  void open();
  void train();
  void print_header() const;
  void print_multi_gpu_header() const;
  void print_epoch(std::int64_t epoch) const;
  void train_epoch(std::int64_t epoch);
  void enqueue(std::vector<HostBatch> micro_batches);
  void take_result();
  void after_step(const StepResult& result, double learning_rate, double seconds);
  void log_step(const StepResult& result, double learning_rate, double seconds);
  void evaluate(std::int64_t epoch);
  void stop_not_finite(const StepResult& result);
  std::string why_not_finite();
  void stop_device_failed(const DeviceFailed& error);
  void save(const char* why);
  void finish();
  nlohmann::ordered_json run_json(const char* state) const;
  bool done() const { return global_step_ >= total_steps_; }

  RunConfig config_;
  nlohmann::ordered_json flags_;
  Console& console_;
  Metrics metrics_;
  const MetricNames& names_;
  RunFolder folder_;
  std::unique_ptr<Backend> backend_;
  PrecisionChoice precision_;
  RunInputs inputs_;
  ExportSpec export_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<ModelSnapshots> snapshots_;
  StabilityTracker stability_;
  LrSchedule schedule_;
  std::int64_t total_steps_ = 0;
  std::int64_t global_step_ = 0;     // steps done
  std::int64_t learnt_steps_ = 0;    // of them, those with a supervised token
  std::unique_ptr<Window> window_, epoch_;
  std::deque<double> rates_;         // learning rates of the steps in flight
  std::deque<std::vector<HostBatch>> batches_;  // their micro-batches, with --debug_mode alone
  double last_result_ = 0;           // when the last result came, or the first step behind a pause began; seconds, steady clock
  double device_bytes_ = 0;          // allocated before step 1; it stays
  double started_ = 0;               // seconds, steady clock
  double train_seconds_ = 0;         // in steps alone
  std::int64_t train_tokens_ = 0;
  std::int64_t train_supervised_ = 0;
  double last_eval_loss_ = 0;
  bool evaluated_ = false;
};

}  // namespace llmfp8
