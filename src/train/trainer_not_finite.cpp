// What becomes of a step whose loss or gradient norm is not finite (--on_nonfinite). It has changed nothing, and
// neither have those enqueued behind it: the device has seen to that, however late the host knows.
#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "core/log.h"
#include "train/non_finite.h"
#include "train/trainer.h"

namespace llmfp8 {
namespace {

constexpr std::size_t kMostSkipped = 10;  // steps in a row: then the run stops
constexpr std::size_t kNamedRows = 8;

// The sign of a NaN says nothing to a user.
std::string number_text(double value) { return std::isnan(value) ? "nan" : fmt::format("{:.4g}", value); }

// "4 rows of the data set (7, 31, 2, 18), 512 tokens".
std::string batch_text(const StepQueue::Step& step, const TokenStore& store) {
  std::vector<std::int64_t> rows;
  std::int64_t tokens = 0;
  for (const HostBatch& batch : step.micro_batches) {
    for (const std::int64_t row : batch.rows) rows.push_back(store.source_row(row));
    tokens += batch.counts.num_tokens;
  }
  const std::size_t named = std::min(rows.size(), kNamedRows);
  return fmt::format("{} row{} of the data set ({}{}), {} tokens", rows.size(), rows.size() == 1 ? "" : "s",
                     fmt::join(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(named), ", "),
                     named < rows.size() ? ", …" : "", tokens);
}

}  // namespace

// How many steps right before this one were skipped, one after the other.
std::size_t Trainer::skipped_before(std::int64_t step) const {
  std::size_t n = 0;
  while (n < skipped_steps_.size() &&
         skipped_steps_[skipped_steps_.size() - 1 - n] == step - 1 - static_cast<std::int64_t>(n))
    ++n;
  return n;
}

void Trainer::step_not_finite(const StepQueue::Done& done, double seconds) {
  std::vector<StepQueue::Step> behind = steps_->take_back();
  const std::int64_t number = done.step.number;
  const bool skips = config_.on_nonfinite == OnNonFinite::skip && skipped_before(number) + 1 < kMostSkipped;
  if (!skips) stop_not_finite(done);
  skipped_steps_.push_back(number);
  log::warning("step {}: loss {} or gradient norm {} is not finite; skipped, {} so far ({}){}", number,
               number_text(done.result.loss), number_text(done.result.grad_norm), skipped_steps_.size(),
               batch_text(done.step, inputs_.rows->train), config_.debug_mode ? "; " + why_not_finite(done.step) : "");
  // Looks at steps that are done again begin again.
  if (health_ && health_->is_pending() && health_->step() > number) health_->drop();
  ShadowCheck* const shadow = engine_->shadow();
  if (shadow != nullptr && shadow->is_pending() && shadow->step() > number) shadow->drop();
  after_step(done.result, done.step.learning_rate, seconds);
  for (StepQueue::Step& step : behind) steps_->push(std::move(step));
}

void Trainer::stop_not_finite(const StepQueue::Done& done) {
  const StepResult& result = done.result;
  const std::string in_a_row =
      config_.on_nonfinite == OnNonFinite::skip
          ? fmt::format(", as in the {} steps before it, which --on_nonfinite skip has left out", kMostSkipped - 1)
          : "";
  const std::string why = why_not_finite(done.step);
  // Before the first step there is no state but the model that was given; an earlier run's model stays.
  if (learnt_steps_ == 0) {
    console_.finish();
    write_run("stopped: not finite");
    fail(
        "--model_name {}: loss {} or gradient norm {} of step {} is not finite{}; nothing has been trained or saved "
        "(are the weights finite?); {}",
        config_.model_name, number_text(result.loss), number_text(result.grad_norm), done.step.number, in_a_row, why);
  }
  if (config_.save_interval > 0) save_checkpoint();
  save("last good state");
  metrics_.text("state", "stopped: not finite");
  metrics_.finish();
  write_run("stopped: not finite");
  fail("step {}: loss {} or gradient norm {} is not finite{}; stopped, and the weights of step {} are saved in {}; {}",
       done.step.number, number_text(result.loss), number_text(result.grad_norm), in_a_row, global_step_,
       folder_.path().string(), why);
}

std::string Trainer::why_not_finite(const StepQueue::Step& step) {
  if (!config_.debug_mode) return "--debug_mode names the operation";
  return fmt::format("step {} is not finite: {}", step.number, explain_not_finite(*engine_, step.micro_batches));
}

}  // namespace llmfp8
