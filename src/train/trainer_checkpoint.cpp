// The trainer's side of checkpoints: what of a run lies in state.json, and how it goes on from there.
#include <cmath>
#include <limits>
#include <system_error>

#include "core/clock.h"
#include "core/host_memory.h"
#include "core/log.h"
#include "train/resume_rules.h"
#include "train/trainer.h"

namespace llmfp8 {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kNoLoss = std::numeric_limits<double>::infinity();
constexpr const char* kDefaultValue = "default";  // where a flag's value is from, in run.json and state.json

Json to_json(const StepWindow& w) {
  return {{"steps", w.steps},
          {"tokens", w.tokens},
          {"positions", w.positions},
          {"supervised", w.supervised},
          {"loss_sum", w.loss_sum},
          {"seconds", w.seconds},
          {"pairs", w.pairs}};
}

StepWindow window_from(const Json& json) {
  return {json.at("steps"), json.at("tokens"), json.at("positions"), json.at("supervised"), json.at("loss_sum"), json.at("seconds"),
          json.value("pairs", std::int64_t{0})};
}

Json to_json(const GemmLedger& ledger) {
  Json records = Json::array();
  for (const GemmRecord& r : ledger.records())
    records.push_back(
        {r.calls, r.flops, static_cast<int>(r.a), static_cast<int>(r.b), static_cast<int>(r.scaling), r.just_in_time});
  return records;
}

std::vector<GemmRecord> records_from(const Json& json) {
  std::vector<GemmRecord> records;
  for (const Json& r : json) {
    records.push_back({r.at(0), r.at(1), static_cast<DType>(r.at(2).get<int>()), static_cast<DType>(r.at(3).get<int>()),
                       static_cast<Scaling>(r.at(4).get<int>()), r.at(5)});
  }
  return records;
}

std::string describe(const ModelConfig& c, const std::string& stored_as) {
  std::string text = fmt::format(
      "{}, {} layers of {}, {} heads of {} ({} for keys), MLP {}, vocabulary {}, {}, RoPE {}, eps {}", c.model_type,
      c.num_hidden_layers, c.hidden_size, c.num_attention_heads, c.head_dim, c.num_key_value_heads, c.intermediate_size,
      c.vocab_size, c.tie_word_embeddings ? "tied" : "untied", c.rope_theta, c.rms_norm_eps);
  if (c.rope_scaling) {
    const Llama3RopeScaling& s = *c.rope_scaling;
    text += fmt::format(" scaled by {} ({}, {}, {})", s.factor, s.low_freq_factor, s.high_freq_factor,
                        s.original_max_position_embeddings);
  }
  return text + ", stored as " + stored_as;
}

std::string describe(const TokenStore& rows) {
  return rows.rows() == 0 ? "none"
                          : fmt::format("{} rows{} of checksum {:08x}", rows.rows(), rows.knows_all() ? "" : " of a large data set", rows.checksum());
}

}  // namespace

// The facts that resume_rules.cpp judges.
Json Trainer::what_runs() {
  if (!what_runs_.is_null()) return what_runs_;
  const Recipe& recipe = engine_->fp8().recipe();
  what_runs_ = {
      {"program", program_rules(config_.program).name},
      {"model", describe(engine_->config(), inputs_.model->stored_as())},
      {"recipe", fmt::format("{}{}", recipe.name(), recipe.quantizes(Product::lm_head) ? " with the head" : "")},
      {"weights", name(precision_.dtype)},
      {"training rows", describe(inputs_.rows->train)},
      {"held-out rows", describe(inputs_.rows->held_out)},
      {"world size", 1},
      {"gradients", name(engine_->options().grad_dtype)},
      {"device", backend_->capabilities().device},
      {"matrix products", backend_->capabilities().matmul},
      {"steps in all", total_steps_},
      {"steps per epoch", inputs_.train_loader->steps_per_epoch()}};
  return what_runs_;
}

// By what the names were typed for; empty where nothing came from the hub.
Json Trainer::hub_commits() const {
  Json commits = Json::object();
  const auto add = [&](const char* what, const std::optional<HubOrigin>& origin) {
    if (origin) commits[what] = {{"repository", origin->repository}, {"revision", origin->revision}, {"commit", origin->commit}};
  };
  add("model", inputs_.model_origin);
  add("dataset", inputs_.dataset_origin);
  return commits;
}

Json Trainer::checkpoint_state() {
  const EngineCounters engine = engine_->counters();
  const auto bytes_of = [](const std::filesystem::path& file) {
    std::error_code error;
    const std::uintmax_t bytes = std::filesystem::file_size(file, error);
    return error ? 0 : bytes;
  };
  Json state = {{"version", LLMFP8_VERSION},
                {"step", global_step_},
                {"learnt_steps", learnt_steps_},
                {"cursor", {{"epoch", cursor_.epoch}, {"step", cursor_.step}}},
                {"engine", {{"steps_done", engine.steps_done}, {"calibrated", engine.calibrated}}},
                {"train_seconds", train_seconds_},
                {"train_tokens", train_tokens_},
                {"train_supervised", train_supervised_},
                {"evaluated_step", evaluated_step_},
                {"window", to_json(window_)},
                {"epoch", to_json(epoch_)},
                {"metrics_bytes", bytes_of(folder_.metrics_file())},
                {"health_bytes", bytes_of(folder_.health_file())},
                {"skipped_steps", skipped_steps_},
                {"resumed_from_steps", resumed_from_},
                {"logger_state", logger_state_},
                {"ran", what_runs()},
                {"hub", hub_commits()},
                {"flags", flags_},
                {"products", to_json(engine_->ledger())},
                {"stability", stability_.state()}};
  saver_->wait();  // the best loss is its neighbour's
  // Absent where JSON has no such number.
  if (std::isfinite(last_eval_loss_)) state["last_eval_loss"] = last_eval_loss_;
  if (std::isfinite(snapshots_->best_loss())) state["best_loss"] = snapshots_->best_loss();
  return state;
}

void Trainer::save_checkpoint() {
  Json state = checkpoint_state();
  const bool has_failed = !saver_->failed().empty() && saver_->failed().back() == global_step_;
  // A signal may come right after a save.
  if (state == saved_state_ && !has_failed) return;
  saver_->save(global_step_, state);
  saved_state_ = std::move(state);
}

SaverOptions Trainer::saver_options() const {
  SaverOptions options;
  options.host_bytes = [] { return available_host_bytes(); };
  if (resume_ != nullptr) options.first_step = resume_->checkpoint.step();
  if (config_.save_interval > 0) options.most_lost = config_.save_interval + config_.save_ahead;
  return options;
}

// Before the next step begins, where a kill in it would cost more than is promised.
void Trainer::wait_for_save() {
  if (!saver_->must_wait(global_step_ + static_cast<std::int64_t>(engine_->steps_in_flight()) + 1)) return;
  while (engine_->steps_in_flight() > 0) take_result();
  saver_->wait();
  last_result_ = now_seconds();
}

// A resumed run's rows are those of its checkpoint, so without --template_date the day is that one's: as it was given there, or
// as the clock told it.
TemplateDate Trainer::template_date() const {
  const Json none = Json::object();
  const Json saved = resume_ == nullptr ? none : resume_->checkpoint.state().value("flags", none).value("template_date", none);
  const std::string day = saved.value("value", "");
  if (!config_.template_date.empty() || day.empty()) return TemplateDate::parse(config_.template_date);
  return saved.value("from", "") == kDefaultValue ? TemplateDate::as_on(day) : TemplateDate::parse(day);
}

// The day that is written stands in what is recorded, also where no flag named it.
void Trainer::record_template_date() {
  if (!inputs_.chat_template || inputs_.chat_template->date().empty()) return;
  Json& flag = flags_["template_date"];
  flag["value"] = inputs_.chat_template->date();
  if (!config_.template_date.empty() || resume_ == nullptr) return;
  if (template_date().is_given) flag["from"] = "checkpoint";
  if (flag["value"] != TemplateDate::parse("").iso())
    log::info("--resume: the chat template is told the day of the checkpoint's rows, {}", inputs_.chat_template->date());
}

void Trainer::resume() {
  const Checkpoint& checkpoint = resume_->checkpoint;
  const Json& state = checkpoint.state();
  const std::string folder = checkpoint.folder().string();
  try {
    resume_differences_ = compare_for_resume(state, {{"ran", what_runs()}, {"hub", hub_commits()}, {"flags", flags_}}, folder);
    global_step_ = checkpoint.step();
    CHECK(global_step_ <= total_steps_,
          "--resume {}: it is at step {}, and --num_epochs and --max_steps end this run at step {}", folder,
          global_step_, total_steps_);
    checkpoint.load(*engine_, export_);
    learnt_steps_ = state.at("learnt_steps");
    cursor_ = {state.at("cursor").at("epoch"), state.at("cursor").at("step")};
    train_seconds_ = state.at("train_seconds");
    train_tokens_ = state.at("train_tokens");
    train_supervised_ = state.at("train_supervised");
    evaluated_step_ = state.at("evaluated_step");
    last_eval_loss_ = state.value("last_eval_loss", std::numeric_limits<double>::quiet_NaN());
    window_ = window_from(state.at("window"));
    epoch_ = window_from(state.at("epoch"));
    engine_->ledger().set_records(records_from(state.at("products")));
    stability_.restore(state.at("stability"));
    skipped_steps_ = state.value("skipped_steps", skipped_steps_);  // versions without --on_nonfinite have none
    resumed_from_ = state.at("resumed_from_steps").get<std::vector<std::int64_t>>();
    logger_state_ = state.at("logger_state");
  } catch (const Json::exception& error) {
    fail("--resume {}: state/state.json: {}", folder, error.what());
  }
  resumed_from_.push_back(global_step_);
  log::info("resumed from step {} of {} ({})", global_step_, total_steps_, folder);
  if (global_step_ == total_steps_)
    log::info("nothing is left to train: --num_epochs or --max_steps would make the run longer");
  for (const std::string& difference : resume_differences_)
    log::warning("--resume: {}: from here on the steps are not those of a run that went through", difference);
}

std::uintmax_t Trainer::kept_metrics_bytes() const {
  return continues_metrics() ? resume_->checkpoint.state().value("metrics_bytes", std::uintmax_t{0}) : 0;
}

// Into another folder: the best model so far is this run's too, and a worse one must not stand there as the best.
void Trainer::take_best_over() {
  const double best = resume_->checkpoint.state().value("best_loss", kNoLoss);
  if (std::isinf(best)) return;
  const std::filesystem::path run = resume_->checkpoint.folder().parent_path().parent_path();
  if (snapshots_->take_best(run, best)) {
    log::info("checkpoint_best is so far that of {} (evaluation loss {:.4f})", run.string(), best);
  } else {
    log::warning("the best model so far (evaluation loss {:.4f}) is not in {}: checkpoint_best will be the best from step {} on", best,
                 (run / "checkpoint_best").string(), global_step_ + 1);
  }
}

// What this run does again, or replaces: it must not stand twice in metrics.jsonl, and no later run may take a
// checkpoint of it for this one's.
void Trainer::leave_superseded_behind() {
  const std::filesystem::path checkpoints = folder_.path() / "checkpoints";
  clear_remains(folder_.path());
  clear_remains(checkpoints);
  if (config_.overwrite) snapshots_->resume({}, set_aside(checkpoints, step_folders(checkpoints)), kNoLoss);
  if (!continues_metrics()) {
    std::error_code ignored;
    std::filesystem::remove(folder_.health_file(), ignored);  // another run's
    if (resume_ != nullptr) take_best_over();
    return;
  }
  const Json& state = resume_->checkpoint.state();
  snapshots_->resume(resume_->kept, set_aside(checkpoints, resume_->superseded), state.value("best_loss", kNoLoss));
  const std::uintmax_t bytes = kept_metrics_bytes();
  RunFolder::cut_lines(folder_.health_file(), state.value("health_bytes", std::uintmax_t{0}));
  if (!RunFolder::cut_lines(folder_.metrics_file(), bytes)) {
    log::warning(
        "{}: it is shorter than when the checkpoint was saved ({} bytes); values of steps before {} are missing",
        folder_.metrics_file().string(), bytes, global_step_);
  }
}

}  // namespace llmfp8
