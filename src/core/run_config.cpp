#include "core/run_config.h"

namespace llmfp8 {

const ProgramRules& program_rules(Program program) {
  static constexpr ProgramRules kTrainFp8 = {
      .name = "train_fp8", .decay_bias_and_norm = true, .drop_last = false, .keep_best = false};
  static constexpr ProgramRules kTrainMultiGpu = {
      .name = "train_multi_gpu", .decay_bias_and_norm = false, .drop_last = true, .keep_best = true};
  return program == Program::train_fp8 ? kTrainFp8 : kTrainMultiGpu;
}

}  // namespace llmfp8
