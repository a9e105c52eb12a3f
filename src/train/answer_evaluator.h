// Accuracy of final answers while a run goes on: the weights that are being trained write solutions to held-out problems.
// Called by the trainer.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "train/answer_eval.h"
#include "train/engine.h"
#include "train/run_inputs.h"

namespace llmfp8 {

struct AnswerEvaluatorOptions {
  std::int64_t problems = 200;
  std::int64_t max_new_tokens = 256;
  std::int64_t batch_size = 32;  // sequences at once
};

class AnswerEvaluator {
 public:
  // Chooses the problems (the first of the held-out rows, which lie in random order) and allocates all that it will need.
  // engine and inputs outlive it. Throws Error: rows without problem and answer, or without a chat template.
  AnswerEvaluator(Engine& engine, const RunInputs& inputs, const AnswerEvaluatorOptions& options);

  // Greedy answers in high precision, in the order of the problems; no step is in flight. Throws Interrupted.
  std::vector<AnswerRecord> run(Console& console);

  std::int64_t problems() const { return static_cast<std::int64_t>(problems_.size()); }
  std::size_t bytes() const { return generator_->cache_bytes() + generator_->arena_bytes(); }

 private:
  Console* console_ = nullptr;
  const Tokenizer& tokenizer_;
  std::unique_ptr<Stream> stream_;
  std::vector<AnswerProblem> problems_;
  std::vector<std::vector<std::int32_t>> prompts_;
  GenerateOptions options_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<Generator> generator_;
};

// "12.0 % (24 of 200, 95 % interval 8.2 to 17.2)"; with what came before: "; 20 gained and 2 lost since the start".
std::string describe_answers(const std::vector<AnswerRecord>& records, const std::vector<AnswerRecord>& before);

}  // namespace llmfp8
