// The names under which values are logged, the same for console, metrics.jsonl, TensorBoard and W&B. Two styles, those
// of the Python programs. The trainer asks for names.loss; a name that a program does not have is empty, and Metrics
// drops values with an empty name.
#pragma once

#include <string_view>

namespace llmfp8 {

enum class MetricStyle { train_fp8, train_multi_gpu };

struct MetricNames {
  std::string_view loss;  // token mean of the optimizer step
  std::string_view perplexity;
  std::string_view learning_rate;
  std::string_view grad_norm;
  std::string_view step;
  std::string_view progress;  // 0 … 1
  std::string_view step_time_s;
  std::string_view time_per_step_ms;  // mean since the last log
  std::string_view gpu_memory_mb;
  std::string_view gpu_memory_gb;
  std::string_view tokens_per_second;
  std::string_view supervised_tokens_per_second;
  std::string_view useful_share;  // 0 … 1: tokens among the positions that were computed; the rest fills up batches
  std::string_view eta_s;
  std::string_view skipped_steps;   // of the run so far (--on_nonfinite skip)
  std::string_view utilisation;  // model FLOP/s over the device's measured bf16 matrix rate; FP8 may be above 1
  std::string_view fp8_gemm_share;  // 0 … 1, of the floating-point operations in matrix products

  std::string_view eval_loss;
  std::string_view eval_perplexity;
  std::string_view eval_tokens;
  std::string_view eval_accuracy;  // 0 … 1, of final answers (--eval_answers)
  std::string_view eval_epoch;
  std::string_view eval_step;

  std::string_view stability_loss;  // the series under the stability report
  std::string_view stability_gradient_norm;
  std::string_view stability_learning_rate;
};

inline constexpr MetricNames kTrainFp8Names = {
    .loss = "Train/Loss",
    .perplexity = "Train/Perplexity",
    .learning_rate = "Train/LearningRate",
    .grad_norm = "Train/GradNorm",
    .step = "",
    .progress = "Train/Progress",
    .step_time_s = "Train/StepTime_s",
    .time_per_step_ms = "Train/TimePerStep_ms",
    .gpu_memory_mb = "Train/GPU_Memory_MB",
    .gpu_memory_gb = "",
    .tokens_per_second = "Train/TokensPerSecond",
    .supervised_tokens_per_second = "Train/SupervisedTokensPerSecond",
    .useful_share = "Train/UsefulShare",
    .eta_s = "Train/ETA_s",
    .skipped_steps = "Train/SkippedSteps",
    .utilisation = "Train/Utilisation",
    .fp8_gemm_share = "Train/FP8_GEMM_Share",
    .eval_loss = "Eval/Loss",
    .eval_perplexity = "Eval/Perplexity",
    .eval_tokens = "Eval/Tokens",
    .eval_accuracy = "Eval/Accuracy",
    .eval_epoch = "",
    .eval_step = "",
    .stability_loss = "stability/loss",
    .stability_gradient_norm = "stability/gradient_norm",
    .stability_learning_rate = "stability/learning_rate",
};

inline constexpr MetricNames kTrainMultiGpuNames = {
    .loss = "train/loss",
    .perplexity = "train/perplexity",
    .learning_rate = "train/learning_rate",
    .grad_norm = "train/grad_norm",
    .step = "train/step",
    .progress = "",
    .step_time_s = "",
    .time_per_step_ms = "",
    .gpu_memory_mb = "",
    .gpu_memory_gb = "train/gpu_memory_gb",
    .tokens_per_second = "train/tokens_per_second",
    .supervised_tokens_per_second = "train/supervised_tokens_per_second",
    .useful_share = "train/useful_share",
    .eta_s = "train/eta_s",
    .skipped_steps = "train/skipped_steps",
    .utilisation = "train/utilisation",
    .fp8_gemm_share = "train/fp8_gemm_share",
    .eval_loss = "eval/loss",
    .eval_perplexity = "eval/perplexity",
    .eval_tokens = "eval/tokens",
    .eval_accuracy = "eval/accuracy",
    .eval_epoch = "eval/epoch",
    .eval_step = "eval/step",
    .stability_loss = "",
    .stability_gradient_norm = "",
    .stability_learning_rate = "",
};

inline constexpr const MetricNames& metric_names(MetricStyle style) {
  return style == MetricStyle::train_fp8 ? kTrainFp8Names : kTrainMultiGpuNames;
}

// "stability_report/loss/mean", in the summary of both programs.
inline constexpr std::string_view kStabilityReportPrefix = "stability_report";

}  // namespace llmfp8
