#include "train/memory_advice.h"

#include <vector>

#include <fmt/ranges.h>

namespace llmfp8 {
namespace {

// Whether a capacity holds more than the longest document alone: then it has rows to give up.
bool has_rows_to_spare(const BatchLimits& limits) {
  return !limits.empty() && limits.capacities.back() >= (limits.max_doc_tokens + 127) / 128 * 128 + 128;
}

std::string smaller_recompute(Recompute now) {
  switch (now) {
    case Recompute::none: return "--recompute norm_swiglu, mlp or block";
    case Recompute::norm_swiglu: return "--recompute mlp or block";
    case Recompute::mlp: return "--recompute block";
    case Recompute::block: break;
  }
  return "";
}

std::string smaller_gradients(const EngineOptions& o) {
  return o.dtype == DType::bf16 && o.grad_dtype == DType::f32 ? "--grad_dtype bf16" : "";
}

std::string smaller_moments(const EngineOptions& o) {
  switch (o.optimizer.state) {
    case OptimState::fp32: return "--optim_state 8bit or bf16";
    case OptimState::bf16: return "--optim_state 8bit";
    case OptimState::eight_bit: break;
  }
  return "";
}

std::string smaller_remainders(const EngineOptions& o) {
  return o.dtype == DType::bf16 && o.optimizer.weight_update == WeightUpdate::exact ? "--weight_update stochastic" : "";
}

std::vector<std::string> activation_advice(const EngineOptions& o, const std::string& largest_phase) {
  std::vector<std::string> advice;
  const CommandFlags& flags = o.flags;
  if (largest_phase.starts_with("evaluation")) {
    if (!flags.eval_batch_size.empty() && has_rows_to_spare(o.eval_limits))
      advice.push_back(fmt::format("a smaller --{}", flags.eval_batch_size));
  } else if (!flags.batch_size.empty() && has_rows_to_spare(o.train_limits)) {
    advice.push_back(
        fmt::format("a smaller --{} (with more --{} the step stays the same)", flags.batch_size, flags.accumulation));
  }
  if (!flags.length.empty()) advice.push_back(fmt::format("a shorter --{}", flags.length));
  // Nothing is kept for a backward pass in an evaluation.
  if (!largest_phase.starts_with("evaluation")) advice.push_back(smaller_recompute(o.recompute));
  return advice;
}

std::vector<std::string> advice_for(const std::string& what, const EngineOptions& o, const std::string& largest_phase) {
  if (what == "activations and scratch") return activation_advice(o, largest_phase);
  if (what == "gradients") return {smaller_gradients(o)};
  if (what.starts_with("AdamW remainders") || what == "exact-update remainders") return {smaller_remainders(o)};
  if (what.starts_with("AdamW")) return {smaller_moments(o)};
  const std::string bf16 = o.flags.precision.empty() ? "" : fmt::format("--{} bf16", o.flags.precision);
  if (what == "weights in FP8") return {bf16};
  if (what == "weights") return {o.dtype == DType::f32 ? bf16 : "", "a smaller model"};
  return {};
}

}  // namespace

std::string size_text(std::size_t bytes) {
  const double size = static_cast<double>(bytes);
  return size < 1e9 ? fmt::format("{:.1f} MB", size / 1e6) : fmt::format("{:.2f} GB", size / 1e9);
}

OutOfMemory with_advice(const OutOfMemory& error, const EngineOptions& options, std::span<const MemoryLine> taken,
                        const std::string& largest_phase) {
  std::string message = error.what();
  std::vector<std::string> lines, first = advice_for(error.request().what, options, largest_phase), also;
  for (const MemoryLine& line : taken) {
    lines.push_back(fmt::format("{} {}", line.what, size_text(line.bytes)));
    if (line.what == error.request().what) continue;
    for (std::string& flag : advice_for(line.what, options, largest_phase)) {
      // Weights are there whatever the flags say, and copies in FP8 are why FP8 was asked for.
      if (flag.starts_with("--") && !line.what.starts_with("weights")) also.push_back(std::move(flag));
    }
  }
  std::erase(first, "");
  if (!lines.empty()) message += fmt::format(" (taken before: {})", fmt::join(lines, ", "));
  if (!first.empty()) message += fmt::format("; what helps: {}", fmt::join(first, "; "));
  if (!also.empty()) message += fmt::format("; {}: {}", first.empty() ? "what helps" : "also", fmt::join(also, "; "));
  if (first.empty() && also.empty()) message += "; no flag makes this smaller: a smaller model, or a larger device";
  return OutOfMemory(error.request(), message);
}

}  // namespace llmfp8
