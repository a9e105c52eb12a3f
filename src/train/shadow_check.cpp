#include "train/shadow_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/step_scalars.h"

namespace llmfp8 {
namespace {

constexpr double kUnknownMatch = std::numeric_limits<double>::quiet_NaN();

// "model.layers.3.self_attn.q_proj.weight" → "self_attn.q_proj": the module's name without its place.
std::string kind_of(const ParamSpec& spec, const WeightSlice& slice) {
  std::string_view name = slice.name;
  const std::string prefix = spec.layer < 0 ? "model." : fmt::format("model.layers.{}.", spec.layer);
  if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  constexpr std::string_view kWeight = ".weight";
  if (name.ends_with(kWeight)) name.remove_suffix(kWeight.size());
  return std::string(name);
}

std::size_t count_tensors(const WeightTable& table) {
  std::size_t n = 0;
  for (const ParamSpec& spec : table.params()) n += spec.slices.size();
  return n;
}

// The rows of a parameter that are one HF tensor.
Tensor slice_of(const Tensor& param, const WeightSlice& slice) {
  const Tensor matrix = param.shape.rank() == 1 ? param.reshape(Shape{param.numel(), 1}) : param;
  return matrix.slice_rows(slice.row_begin, slice.shape[0]);
}

}  // namespace

GradientSums& GradientSums::operator+=(const GradientSums& other) {
  own += other.own;
  reference += other.reference;
  both += other.both;
  return *this;
}

GradientMatch match(const GradientSums& s) {
  if (!std::isfinite(s.own) || !std::isfinite(s.reference) || !std::isfinite(s.both)) {
    return {kUnknownMatch, kUnknownMatch, kUnknownMatch};
  }
  if (s.reference == 0) return {s.own == 0 ? kUnknownMatch : 0.0, kUnknownMatch, kUnknownMatch};
  GradientMatch m;
  const double own = std::sqrt(s.own), reference = std::sqrt(s.reference);
  if (own > 0) m.cosine = std::clamp((s.both - s.own - s.reference) / (2 * own * reference), -1.0, 1.0);
  m.norm_difference = own / reference - 1;
  // |g - b|^2 by the parallelogram law; rounding alone makes it negative.
  m.difference = std::sqrt(std::max(0.0, 2 * s.own + 2 * s.reference - s.both)) / reference;
  return m;
}

MetricValues ShadowReport::values() const {
  MetricValues values;
  if (num_supervised == 0) return values;
  values = {{"shadow/loss", reference_loss},
            {"shadow/loss_difference", loss - reference_loss},
            {"shadow/loss_relative_difference", loss / reference_loss - 1}};
  const auto add = [&](std::string_view name, double value) {
    if (!std::isnan(value)) values.emplace_back(name, value);
  };
  add("shadow/gradient_cosine", gradient.cosine);
  add("shadow/gradient_norm_difference", gradient.norm_difference);
  add("shadow/gradient_difference", gradient.difference);
  add("shadow/gradient_cosine_worst", worst_cosine);
  for (const auto& [kind, m] : kinds) {
    add("shadow/gradient_cosine/" + kind, m.cosine);
    add("shadow/gradient_norm_difference/" + kind, m.norm_difference);
  }
  return values;
}

std::string ShadowReport::text() const {
  if (num_supervised == 0)
    return fmt::format("step {} against bf16: its first micro-batch has no supervised token", step);
  const std::string lowest = worst.empty() ? "" : fmt::format(" (lowest {:.4f}, {})", worst_cosine, worst);
  return fmt::format(
      "step {} against bf16: loss {:.4f}, {:.4f} in bf16 ({:+.2f} %); gradient's cosine {:.4f}{}, its norm {:+.1f} %",
      step, loss, reference_loss, 100 * (loss / reference_loss - 1), gradient.cosine, lowest,
      100 * gradient.norm_difference);
}

ShadowCheck::ShadowCheck(const WeightTable& table, Backend& backend, Stream& stream)
    : table_(table), backend_(backend), stream_(stream), tensors_(count_tensors(table)) {
  const std::size_t bytes = 3 * (tensors_ + 1) * sizeof(StepScalars);
  sums_ = backend_.allocate(bytes, "sums of the shadow check");
  host_ = backend_.allocate_host(bytes, "sums of the shadow check");
  passed_ = backend_.create_event(EventKind::ordering);
}

ShadowCheck::~ShadowCheck() { drop(); }  // the device still writes into host_

StepScalars* ShadowCheck::at(Pass pass, std::size_t tensor) const {
  return static_cast<StepScalars*>(sums_.data()) + static_cast<std::size_t>(pass) * (tensors_ + 1) + tensor;
}

StepScalars* ShadowCheck::loss(Pass pass) const { return at(pass, tensors_); }

void ShadowCheck::ask(std::int64_t step) {
  CHECK(!asked_ && !pending_, "the shadow check of step {} has not been taken", step_);
  asked_ = true;
  step_ = step;
}

void ShadowCheck::begin(Ops& ops) const {
  ops.zero(sums_.tensor(DType::u8, Shape{static_cast<std::int64_t>(sums_.bytes())}));
}

void ShadowCheck::measure(Pass pass, Ops& ops, const LocalGradTarget& grads) const {
  std::size_t tensor = 0;
  for (const ParamSpec& spec : table_.params())
    for (const WeightSlice& slice : spec.slices)
      ops.accumulate_sum_of_squares(slice_of(grads.grad(spec.index), slice), at(pass, tensor++));
}

void ShadowCheck::end() {
  backend_.copy_to_host(host_.data(), sums_.data(), sums_.bytes(), stream_);
  backend_.record(*passed_, stream_);
  asked_ = false;
  pending_ = true;
}

void ShadowCheck::drop() {
  if (pending_) backend_.synchronize(*passed_);
  asked_ = pending_ = false;
}

ShadowReport ShadowCheck::take() {
  CHECK(pending_, "no step has been checked");
  drop();
  const auto* const all = static_cast<const StepScalars*>(host_.data());
  const auto found = [&](Pass pass, std::size_t tensor) -> const StepScalars& {
    return all[static_cast<std::size_t>(pass) * (tensors_ + 1) + tensor];
  };
  ShadowReport report;
  report.step = step_;
  const StepScalars &own = found(Pass::both, tensors_), &reference = found(Pass::reference, tensors_);
  report.num_supervised = own.num_supervised;
  if (report.num_supervised == 0) return report;
  report.loss = own.loss_sum / static_cast<double>(own.num_supervised);
  report.reference_loss = reference.loss_sum / static_cast<double>(reference.num_supervised);

  GradientSums whole;
  std::vector<std::pair<std::string, GradientSums>> kinds;  // in the order of the model
  std::size_t tensor = 0;
  for (const ParamSpec& spec : table_.params()) {
    for (const WeightSlice& slice : spec.slices) {
      const GradientSums sums{found(Pass::own, tensor).grad_sum_squares,
                              found(Pass::reference, tensor).grad_sum_squares,
                              found(Pass::both, tensor).grad_sum_squares};
      ++tensor;
      whole += sums;
      const std::string kind = kind_of(spec, slice);
      const auto of_kind =
          std::find_if(kinds.begin(), kinds.end(), [&](const auto& entry) { return entry.first == kind; });
      if (of_kind == kinds.end()) {
        kinds.emplace_back(kind, sums);
      } else {
        of_kind->second += sums;
      }
      // Of vectors it says little: the gradient of a key's bias is all but zero.
      const double cosine = match(sums).cosine;
      if (slice.shape.rank() == 2 && (report.worst.empty() ? !std::isnan(cosine) : cosine < report.worst_cosine)) {
        report.worst = slice.name;
        report.worst_cosine = cosine;
      }
    }
  }
  report.gradient = match(whole);
  for (const auto& [kind, sums] : kinds) report.kinds.emplace_back(kind, match(sums));
  return report;
}

}  // namespace llmfp8
