#include "train/trainer.h"

#include <algorithm>
#include <cmath>

#include <unistd.h>

#include "backend/registry.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/thread_pool.h"
#include "data/parquet.h"
#include "data/step_prefetcher.h"
#include "report/text_table.h"
#include "train/interrupt.h"
#include "train/memory_advice.h"

namespace llmfp8 {
namespace {

constexpr const char* kStarted = "started";  // how run.json stays where a run is killed

std::string_view device_name(Device device) {
  return device == Device::cpu ? "cpu" : device == Device::cuda ? "cuda" : "auto";
}

DType grad_dtype(const RunConfig& config, const PrecisionChoice& precision, const Capabilities& device) {
  if (precision.dtype == DType::f32) return DType::f32;
  const bool narrow = config.grad_dtype == GradPrecision::automatic
                          ? device.asynchronous && config.gradient_accumulation_steps == 1
                          : config.grad_dtype == GradPrecision::bf16;
  return narrow ? DType::bf16 : DType::f32;
}

EngineOptions engine_options(const RunConfig& config, const PrecisionChoice& precision, const RunInputs& inputs,
                             const Capabilities& device) {
  EngineOptions options;
  options.dtype = precision.dtype;
  options.recipe = precision.recipe;
  options.fp8_lm_head = config.fp8_lm_head;
  options.fp8_start = precision.fp8_start;
  options.recompute = config.recompute;
  options.grad_dtype = grad_dtype(config, precision, device);
  options.optimizer = {config.adam_beta1, config.adam_beta2, config.adam_eps, config.weight_decay, config.optim_state,
                       config.weight_update};
  options.decay_rule = program_rules(config.program).decay_bias_and_norm ? DecayRule::everything : DecayRule::no_bias_or_norm;
  options.seed = static_cast<std::uint64_t>(config.seed);
  options.shadow_check = config.shadow_check_interval > 0;
  options.flags = {"batch_size", "gradient_accumulation_steps", "max_seq_length", "eval_batch_size", "mixed_precision"};
  options.train_limits = BatchLimits::of(*inputs.train_loader);
  if (inputs.eval_loader) options.eval_limits = BatchLimits::of(*inputs.eval_loader);
  return options;
}

// What --save_ahead comes to where it was not given. Beside a CPU's steps the writing of a checkpoint takes little: there a
// kill never costs more than the interval. A GPU would stand still for hundreds of steps.
std::int64_t save_ahead_of(const Capabilities& device) { return device.asynchronous ? 1000 : 0; }

std::string counted(std::int64_t n, std::string_view noun) { return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s"); }

}  // namespace

Trainer::Trainer(const RunConfig& config, nlohmann::ordered_json flags, Console& console)
    : config_(config),
      flags_(std::move(flags)),
      console_(console),
      names_(config.program == Program::train_fp8 ? kTrainFp8Names : kTrainMultiGpuNames),
      resume_(choose_resume_point(config.resume, config.output_dir)),
      folder_(config.output_dir, config.overwrite || continues_metrics() ? RunFolder::Finished::allow : RunFolder::Finished::refuse) {
  started_ = now_seconds();
  started_at_ = unix_seconds();
  open();
  print_header();
}

void Trainer::open() {
  if (config_.threads > 0) set_num_threads(static_cast<int>(config_.threads));
  backend_ = create_backend(device_name(config_.device), {.deterministic = config_.deterministic});
  precision_ = choose_precision(config_, backend_->capabilities());
  for (const std::string& note : precision_.notes) log::info("{}", note);
  if (!precision_.fallback.empty()) log::warning("{}", precision_.fallback);
  if (config_.save_ahead < 0) flags_["save_ahead"]["value"] = config_.save_ahead = save_ahead_of(backend_->capabilities());
  if (config_.shadow_check_interval > 0 && !precision_.fallback.empty() && precision_.recipe == RecipeKind::none) {
    log::warning("--shadow_check_interval {} has no effect: bf16 runs", config_.shadow_check_interval);
  }

  inputs_ = open_run_inputs(config_, template_date(), console_);
  record_template_date();
  total_steps_ = inputs_.train_loader->total_steps(config_.num_epochs, config_.max_steps);
  schedule_ = {config_.lr_scheduler, config_.learning_rate, config_.num_warmup_steps, total_steps_};

  matrix_rate_ = measured_matrix_rate(*backend_);
  engine_ = std::make_unique<Engine>(*backend_, inputs_.model->config(), engine_options(config_, precision_, inputs_, backend_->capabilities()));
  steps_ = std::make_unique<StepQueue>(*engine_, [this](const StepQueue::Step& step) { enqueue(step); });
  throw_if_interrupted();
  for (const MemoryLine& line : engine_->memory()) device_bytes_ += static_cast<double>(line.bytes);
  export_ = ExportSpec::of(*inputs_.model, engine_->params().table());
  if (resume_ == nullptr) engine_->load(*inputs_.model);
  if (config_.health_interval > 0) health_ = std::make_unique<StepHealth>(*engine_);
  if (config_.eval_answers > 0) {
    answers_ = std::make_unique<AnswerEvaluator>(*engine_, inputs_, AnswerEvaluatorOptions{config_.eval_answers, config_.eval_answer_tokens});
    log::info("answers to {} of the held-out problems are asked for at each evaluation", answers_->problems());
  }
  const auto earlier = config_.overwrite ? ModelSnapshots::Earlier::replace : ModelSnapshots::Earlier::keep;
  snapshots_ = std::make_unique<ModelSnapshots>(folder_.path(), config_.keep_checkpoints, earlier,
                                                [this](const std::filesystem::path& folder) {
    export_model(export_, engine_->params(), *backend_, engine_->stream(), folder);
  });
  saver_ = std::make_unique<CheckpointSaver>(*engine_, export_, *snapshots_, saver_options());
  if (resume_ != nullptr) resume();
  throw_if_interrupted();
}

Trainer::~Trainer() = default;

void Trainer::print_header() const {
  const ModelConfig& c = engine_->config();
  const BatchLoader& loader = *inputs_.train_loader;
  const std::int64_t effective = config_.batch_size * config_.gradient_accumulation_steps;
  log::info("model: {} ({}, {:.1f}M parameters, stored as {})", config_.model_name, c.model_type,
            static_cast<double>(engine_->params().table().num_parameters()) / 1e6, inputs_.model->stored_as());
  log::info("device: {}; matrix products: {}; a large bf16 one alone reaches {:.3g} TFLOP/s", backend_->capabilities().device,
            backend_->capabilities().matmul, matrix_rate_ / 1e12);
  log::info("precision: {}; weights and activations {}, gradients {}, AdamW update {}", precision_.description, name(precision_.dtype),
            name(engine_->options().grad_dtype),
            precision_.dtype == DType::f32 || config_.weight_update == WeightUpdate::exact ? "exact (as fp32)" : "rounded");
  if (config_.weight_update == WeightUpdate::python) {
    log::warning("--weight_update python rounds weights to nearest as the Python stack does: small updates are lost");
  }
  log::info("steps: {} ({} an epoch, {}), {} rows each (batch {} x accumulation {}), not padded", total_steps_, loader.steps_per_epoch(),
            total_steps_ == config_.max_steps ? "ended by --max_steps" : counted(config_.num_epochs, "epoch"), effective, config_.batch_size,
            config_.gradient_accumulation_steps);
  if (inputs_.dataset->rows() > kMostListedRows) {
    log::info("order: {} rows are more than {}; the split{} a keyed permutation (a Feistel network of four rounds of Philox 4x32-10), not numpy's",
              inputs_.dataset->rows(), kMostListedRows, inputs_.rows->train.rows() > kMostListedRows ? " and each epoch's order are" : " is");
  }
  log::info("chat template: {}; the loss counts {}", inputs_.chat_template_name(),
            config_.loss_on == LossOn::completion  ? "the last completion only"
            : config_.loss_on == LossOn::assistant ? "the assistant's turns only"
                                                   : "every token");
  if (config_.packing) {
    log::info("--packing fills batches of {} tokens: {} steps an epoch, {} without", config_.batch_size * config_.max_seq_length,
              loader.steps_per_epoch(), loader.unpacked_steps_per_epoch());
  }
  log::info("first row, what is not learnt {}: {}", isatty(2) ? "in grey" : "between « and »", inputs_.example(isatty(2) != 0, 600));
  if (config_.program == Program::train_multi_gpu) print_multi_gpu_header();
  TextTable table({{"memory", Align::left}, {"size", Align::right}});
  std::size_t total = 0;
  std::vector<MemoryLine> lines = engine_->memory();
  if (answers_) lines.push_back({"answers: keys, values, scratch", answers_->bytes()});
  for (const MemoryLine& line : lines) {
    table.add_row({line.what, size_text(line.bytes)});
    total += line.bytes;
  }
  table.add_rule();
  table.add_row({"total", size_text(total)});
  log::info("{}", table.text(TableStyle::plain));
}

// The block at the head of a run of the Python program.
void Trainer::print_multi_gpu_header() const {
  TextTable table({{"run", Align::left}, {"", Align::left}});
  table.add_row({"model", config_.model_name});
  table.add_row({"world size", "1"});
  table.add_row({"device", backend_->capabilities().device});
  table.add_row({"sharding", "none (one device)"});
  table.add_row({"precision", precision_.description});
  table.add_row({"batch per GPU", std::to_string(config_.batch_size)});
  table.add_row({"gradient accumulation", std::to_string(config_.gradient_accumulation_steps)});
  table.add_row({"effective batch", std::to_string(config_.batch_size * config_.gradient_accumulation_steps)});
  log::info("{}", table.text(TableStyle::plain));
}

void Trainer::print_epoch(std::int64_t epoch) const {
  const StepWindow& e = epoch_;
  if (e.supervised == 0) return;
  const double loss = e.loss_sum / static_cast<double>(e.supervised);
  log::info("epoch {}: loss {:.4f}, perplexity {:.2f}, {:.0f} tokens/s, {}", epoch + 1, loss, std::exp(loss),
            static_cast<double>(e.tokens) / e.seconds, duration_text(e.seconds));
}

nlohmann::ordered_json Trainer::run_json() const {
  nlohmann::ordered_json json;
  json["state"] = state_;
  if (!error_.empty()) json["error"] = error_;
  json["program"] = program_rules(config_.program).name;
  json["started"] = started_at_;
  json["versions"] = {{"llm-fp8", LLMFP8_VERSION}, {"matmul", backend_->capabilities().matmul}};
  // Asked only where the module is open already.
  if (inputs_.dataset->files().front().extension() == ".parquet") json["versions"]["parquet"] = parquet_support().detail;
  json["device"] = backend_->capabilities().device;
  json["matmul"] = backend_->capabilities().matmul;
  json["matrix_flops_per_second"] = matrix_rate_;  // the denominator of utilisation
  json["threads"] = num_threads();
  json["precision"] = precision_.description;
  json["fallback"] = precision_.fallback;
  json["notes"] = precision_.notes;
  if (!resumed_from_.empty()) {
    json["resumed_from_steps"] = resumed_from_;
    json["resumed_with_differences"] = resume_differences_;
  }
  if (learnt_steps_ > 0) json["recipe_that_ran"] = recipe_json(engine_->ledger(), engine_->config());
  json["model"] = {{"origin", inputs_.model->origin()}, {"stored_as", inputs_.model->stored_as()}};
  if (nlohmann::ordered_json hub = hub_commits(); !hub.empty()) json["hub"] = std::move(hub);
  json["parameters"] = engine_->params().table().num_parameters();
  json["chat_template"] = inputs_.chat_template_name();
  json["rows"] = {{"train", inputs_.rows->train.rows()}, {"held_out", inputs_.rows->held_out.rows()}, {"left_out", inputs_.rows->dropped()},
                  {"truncated", inputs_.rows->train.truncated_rows()}};
  if (!inputs_.rows->train.knows_all()) json["rows"]["known"] = inputs_.rows->train.known_rows();
  json["steps"] = {{"done", global_step_}, {"total", total_steps_}};
  if (!skipped_steps_.empty()) json["skipped_steps"] = skipped_steps_;
  json["checkpoints"] = {{"failed_steps", saver_->failed()}, {"beside_training", !saver_->waited_for_files()}};
  for (const MemoryLine& line : engine_->memory()) json["memory_bytes"][line.what] = line.bytes;
  metrics_.describe(json);
  json["flags"] = flags_;
  return json;
}

void Trainer::write_run(std::string state) {
  state_ = std::move(state);
  folder_.write_run(run_json());
}

// What ended the run is thrown on: it matters more than whether run.json could be written.
void Trainer::keep_error(const char* error) {
  error_ = one_line(error);
  try {
    console_.finish();
    saver_->wait();
    write_run(state_ == kStarted ? "stopped: an error" : state_);
  } catch (const std::exception&) {
  }
}

void Trainer::run() {
  if (config_.dry_run) return dry_run();
  for (const PreflightCheck& check : preflight()) {
    if (check.warns) log::warning("{}: {}", check.what, check.found);
  }
  leave_superseded_behind();
  trim_answers(continues_metrics() ? global_step_ : -1);
  write_run(kStarted);
  try {
    train();
  } catch (const DeviceFailed& error) {
    stop_device_failed(error);
  } catch (const Interrupted&) {
    throw;
  } catch (const std::bad_alloc&) {
    keep_error("out of memory");
    throw;
  } catch (const std::exception& error) {
    keep_error(error.what());
    throw;
  }
}

void Trainer::train() {
  if (answers_ && global_step_ == 0) evaluate_answers();
  for (; cursor_.epoch < config_.num_epochs && !interrupted(); cursor_ = {cursor_.epoch + 1, 0}) {
    const std::int64_t epoch = cursor_.epoch, before = global_step_;
    train_epoch(epoch);
    if (config_.program == Program::train_multi_gpu && global_step_ > before) print_epoch(epoch);
    const bool last = done() || epoch + 1 == config_.num_epochs;
    const bool is_due = last || (config_.eval_interval > 0 && (epoch + 1) % config_.eval_interval == 0);
    if (inputs_.eval_loader && !interrupted() && is_due && evaluated_step_ != global_step_) evaluate(static_cast<double>(epoch + 1));
    if (done() || interrupted()) break;
  }
  finish();
}

void Trainer::train_epoch(std::int64_t epoch) {
  if (cursor_.step == 0) epoch_ = StepWindow();
  const std::int64_t end = std::min(inputs_.train_loader->steps_per_epoch(epoch), cursor_.step + total_steps_ - global_step_);
  StepPrefetcher ahead(*inputs_.train_loader, epoch, cursor_.step, end);
  // A device that works by itself gets its next step before the host knows how the last one went.
  const std::size_t lag = backend_->capabilities().asynchronous ? Engine::kStepsInFlight - 1 : 0;
  last_result_ = now_seconds();
  for (std::int64_t s = cursor_.step; s < end && !interrupted(); ++s) {
    wait_for_save();
    const std::int64_t before = global_step_ + static_cast<std::int64_t>(engine_->steps_in_flight());
    steps_->push({before + 1, learning_rate(schedule_, before), ahead.next()});
    const std::int64_t enqueued = global_step_ + static_cast<std::int64_t>(engine_->steps_in_flight());
    // What is saved or evaluated must be the state of that step.
    const auto is_due = [&](std::int64_t interval) { return interval > 0 && enqueued % interval == 0; };
    const bool evaluates = inputs_.eval_loader && is_due(config_.eval_interval_steps), saves = take_save_request() || is_due(config_.save_interval);
    while (engine_->steps_in_flight() > (evaluates || saves ? 0 : lag)) take_result();
    if (evaluates && !interrupted()) {
      evaluate(static_cast<double>(epoch) + static_cast<double>(s + 1) / static_cast<double>(inputs_.train_loader->steps_per_epoch(epoch)));
    }
    if (saves && (!done() || config_.save_interval == 0)) save_checkpoint();  // at the end finish() saves
    if (evaluates || saves) last_result_ = now_seconds();
  }
  while (engine_->steps_in_flight() > 0) take_result();
}

void Trainer::enqueue(const StepQueue::Step& step) {
  // The first step begins with a calibration, whose codes are not those of a step.
  const bool is_looked_at = health_ && step.number > 1 && step.number % config_.health_interval == 0;
  if (is_looked_at && health_->is_pending()) log_health();
  if (is_looked_at) health_->begin_step(step.number);
  ShadowCheck* const shadow = engine_->shadow();
  if (shadow != nullptr && step.number % config_.shadow_check_interval == 0) {
    if (shadow->is_pending()) log_shadow();
    shadow->ask(step.number);
  }
  engine_->enqueue_step(step.micro_batches, step.learning_rate, config_.max_grad_norm);
  if (is_looked_at) health_->end_step();
}

void Trainer::take_result() {
  const StepQueue::Done done = steps_->pop();
  const double arrived = now_seconds(), seconds = arrived - last_result_;
  if (done.result.halted) {
    step_not_finite(done, seconds);
  } else {
    after_step(done.result, done.step.learning_rate, seconds);
  }
  // Logging and saving are no part of a step, unless the device worked at the next one meanwhile.
  last_result_ = engine_->steps_in_flight() > 0 ? arrived : now_seconds();
}

void Trainer::after_step(const StepResult& result, double learning_rate, double seconds) {
  ++global_step_;
  ++cursor_.step;
  const bool is_learnt = result.ok;
  // Possible where only completions are learnt and truncation cut them all off.
  if (!is_learnt && !result.halted) log::warning("step {} has no supervised token: nothing was learnt from it", global_step_);
  train_seconds_ += seconds;
  train_tokens_ += result.num_tokens;
  if (is_learnt) train_supervised_ += result.num_supervised;
  window_.add(result, seconds);
  epoch_.add(result, seconds);
  if (is_learnt) stability_.add(result.loss, result.grad_norm, learning_rate);
  if (is_learnt) watch_loss(result.loss);
  if (is_learnt) ++learnt_steps_;
  if (is_learnt && !has_shown_what_ran_) {
    has_shown_what_ran_ = true;
    log::info("what ran in step {}:\n{}FP8 share of the matrix products: {:.1f} %", global_step_, recipe_table(engine_->ledger(), engine_->config()),
              100.0 * engine_->ledger().fp8_share());
  }
  Progress progress;
  progress.step = global_step_;
  progress.total_steps = total_steps_;
  if (is_learnt) progress.loss = result.loss;
  progress.tokens_per_second = static_cast<double>(train_tokens_) / train_seconds_;
  progress.useful_share = static_cast<double>(epoch_.tokens) / static_cast<double>(epoch_.positions);
  progress.memory_bytes = device_bytes_;
  console_.update(progress);
  if (global_step_ == 1 || global_step_ % config_.log_interval == 0 || done()) log_step(result, learning_rate, seconds);
  if (health_ && health_->is_pending() && health_->step() <= global_step_) log_health();
  ShadowCheck* const shadow = engine_->shadow();
  if (shadow != nullptr && shadow->is_pending() && shadow->step() <= global_step_) log_shadow();
}

void Trainer::log_step(const StepResult& result, double learning_rate, double seconds) {
  const StepWindow& w = window_;
  const double flops = ModelFlops(engine_->params().table()).of(static_cast<double>(w.tokens), static_cast<double>(w.pairs));
  const double eta = train_seconds_ / static_cast<double>(global_step_) * static_cast<double>(total_steps_ - global_step_);
  // A step without labels has no loss and no gradient, nor has one that was skipped: their names are left out.
  const auto learnt = [&](std::string_view name) { return result.ok ? name : std::string_view(); };
  const bool skips = config_.on_nonfinite == OnNonFinite::skip;
  metrics_.log(global_step_, {{learnt(names_.loss), result.loss},
                              {learnt(names_.perplexity), std::exp(result.loss)},
                              {names_.learning_rate, learning_rate},
                              {learnt(names_.grad_norm), result.grad_norm},
                              {names_.step, static_cast<double>(global_step_)},
                              {names_.progress, static_cast<double>(global_step_) / static_cast<double>(total_steps_)},
                              {names_.step_time_s, seconds},
                              {names_.time_per_step_ms, 1000.0 * w.seconds / static_cast<double>(w.steps)},
                              {names_.gpu_memory_mb, device_bytes_ / 1e6},
                              {names_.gpu_memory_gb, device_bytes_ / 1e9},
                              {names_.tokens_per_second, static_cast<double>(w.tokens) / w.seconds},
                              {names_.supervised_tokens_per_second, static_cast<double>(w.supervised) / w.seconds},
                              {names_.useful_share, static_cast<double>(w.tokens) / static_cast<double>(w.positions)},
                              {names_.eta_s, eta},
                              {skips ? names_.skipped_steps : std::string_view(), static_cast<double>(skipped_steps_.size())},
                              {names_.utilisation, flops / w.seconds / matrix_rate_},
                              {names_.fp8_gemm_share, engine_->ledger().fp8_share()},
                              {learnt(names_.stability_loss), result.loss},
                              {learnt(names_.stability_gradient_norm), result.grad_norm},
                              {learnt(names_.stability_learning_rate), learning_rate}});
  window_ = StepWindow();
}

// Nothing can be read from the device any more: what is kept is what lies on disk.
void Trainer::stop_device_failed(const DeviceFailed& error) {
  console_.finish();
  saver_->wait();  // it writes from copies
  constexpr const char* kState = "stopped: the device failed";
  metrics_.text("state", kState);
  metrics_.finish();
  error_ = one_line(fmt::format("{}; {}", error.what(), what_is_kept(folder_.metrics_file(), global_step_, snapshots_->newest())));
  write_run(kState);
  throw DeviceFailed(error_);
}

void Trainer::save(const char* why) {
  console_.finish();
  saver_->wait();
  log::info("saving the model ({}) to {}", why, folder_.path().string());
  export_model(export_, engine_->params(), *backend_, engine_->stream(), folder_.path());
  snapshots_->remove_earlier();
  log::info("saved and read back: {}", folder_.path().string());
}

void Trainer::finish() {
  const bool stopped = interrupted();
  if (learnt_steps_ == 0) {
    console_.finish();
    write_run(stopped ? "stopped by a signal" : "stopped: nothing learnt");
    if (!stopped) {
      CHECK(skipped_steps_.empty(),
            "not one of {} was learnt from: {} skipped as not finite (are the weights finite?); nothing was saved",
            counted(global_step_, "step"), skipped_steps_.size());
      fail("not one of {} has a supervised token: nothing was learnt or saved (see --loss_on, --max_seq_length)", counted(global_step_, "step"));
    }
    log::info("stopped before the first step; nothing was saved");
    return;
  }
  // First what takes longest to make again.
  if (config_.save_interval > 0) save_checkpoint();
  save(stopped ? "stopped by a signal" : "final");
  stability_.report(metrics_);
  metrics_.summary("steps", static_cast<double>(global_step_));
  metrics_.summary("tokens", static_cast<double>(train_tokens_));
  metrics_.summary("tokens_per_second", train_seconds_ > 0 ? static_cast<double>(train_tokens_) / train_seconds_ : 0.0);
  metrics_.summary("supervised_tokens_per_second",
                   train_seconds_ > 0 ? static_cast<double>(train_supervised_) / train_seconds_ : 0.0);
  metrics_.summary("train_seconds", train_seconds_);
  metrics_.summary("wall_seconds", now_seconds() - started_);
  if (config_.on_nonfinite == OnNonFinite::skip) metrics_.summary("skipped_steps", static_cast<double>(skipped_steps_.size()));
  metrics_.summary("loss_spikes", static_cast<double>(loss_watch_.spikes()));
  metrics_.summary("fp8_gemm_share", engine_->ledger().fp8_share());
  if (evaluated_step_ >= 0) metrics_.summary(names_.eval_loss, last_eval_loss_);
  metrics_.text("precision", precision_.description);
  metrics_.text("fallback", precision_.fallback.empty() ? "none" : precision_.fallback);
  metrics_.text("device", backend_->capabilities().device);
  metrics_.finish();
  write_run(stopped ? "stopped by a signal" : "finished");
  log::result("{}: {} and {} tokens in {} ({:.0f} tokens/s){}{}; every value is in {}", stopped ? "stopped" : "done", counted(global_step_, "step"),
            train_tokens_, duration_text(now_seconds() - started_), static_cast<double>(train_tokens_) / train_seconds_,
            evaluated_step_ >= 0 ? fmt::format(", evaluation loss {:.4f}", last_eval_loss_) : "",
            skipped_steps_.empty() ? "" : fmt::format(", {} skipped as not finite", counted(std::ssize(skipped_steps_), "step")),
            folder_.metrics_file().string());
}

}  // namespace llmfp8
