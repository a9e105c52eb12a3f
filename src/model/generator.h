// Generator: text from a model, many sequences at once, with a cache of keys and values. Prompts are prefilled packed
// end to end by the model's own forward pass; then every sequence gets one token a step. A sequence that ends leaves its
// place to the next prompt, so that the batch stays full. Called by `llm-fp8 generate` and by the answer evaluation.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/plan/planned_ops.h"
#include "model/transformer.h"

namespace llmfp8 {

// They fix the memory plan.
struct GeneratorLimits {
  std::int64_t max_batch = 32;            // sequences at once
  std::int64_t max_prompt_tokens = 2048;  // of one prefill, all its prompts together; also the longest prompt
  std::int64_t max_len = 1024;            // prompt and new tokens of one sequence
};

// For these prompts, within the model's longest position. Throws Error: a prompt that leaves no place for a token.
GeneratorLimits limits_for(std::span<const std::vector<std::int32_t>> prompts, const ModelConfig& config,
                           std::int64_t max_batch, std::int64_t max_new_tokens);

struct SamplingOptions {
  double temperature = 0.0;  // 0: greedy
  double top_p = 1.0;
  std::uint64_t seed = 0;  // the draw depends on it, on the order of the prompts and on max_batch
};

struct GenerateProgress {
  std::int64_t finished = 0;  // sequences
  double work = 0;            // sequences, those under way by their tokens of max_new_tokens
  std::int64_t new_tokens = 0;
};

struct GenerateOptions {
  std::int64_t max_new_tokens = 256;
  std::vector<std::int32_t> stop_ids;
  SamplingOptions sampling;
  std::function<void(const GenerateProgress&)> progress;  // after every step; may be empty
};

enum class StopReason : std::uint8_t { stop_id, max_new_tokens, max_len };

struct Generation {
  std::vector<std::int32_t> ids;  // without the stop id
  StopReason reason = StopReason::max_new_tokens;
};

struct GenerateTimes {
  double prefill_seconds = 0, decode_seconds = 0;
  std::int64_t prompt_tokens = 0,
               decoded_tokens = 0;  // decoded: by decode steps; a prompt's first new token is the prefill's
};

class Generator {
 public:
  // All of them outlive the Generator; the transformer reaches positions 0 … max_len - 1. Allocates all it will need.
  Generator(Backend& backend, const Transformer& transformer, ParamStore& params, const GeneratorLimits& limits);
  ~Generator();

  // Results in the order of the prompts. Throws Error: an empty prompt, one longer than max_prompt_tokens or max_len - 1.
  std::vector<Generation> generate(std::span<const std::vector<std::int32_t>> prompts, const GenerateOptions& options);

  const GenerateTimes& times() const { return times_; }  // of the last call
  std::size_t cache_bytes() const { return cache_.bytes(); }
  std::size_t arena_bytes() const { return planned_->bytes(); }

 private:
  struct Sequence;
  struct Run;

  void allocate_inputs();
  void plan_memory();
  Batch prompt_batch(std::int64_t capacity) const;
  Batch row_batch(std::int64_t rows) const;
  Tensor cache(int layer, int which) const;

  // The work of the two kinds of step, on the real Ops or the planning ones.
  void prefill(Ops& ops, std::int64_t capacity, const SampleArgs& sampling);
  void decode(Ops& ops, std::int64_t rows, const SampleArgs& sampling);
  void decode_layer(const LayerPass& l);
  void sample(Ops& ops, const PassContext& rows, const Tensor& hidden, SampleArgs args);

  // Host side: the inputs of one step, the step, its tokens.
  void admit(Run& run);
  void advance(Run& run);
  std::vector<std::int32_t> read_tokens(std::size_t count);
  void take_token(Run& run, Sequence& sequence, std::int32_t token);
  void upload(const Tensor& to, const std::vector<std::int32_t>& values);

  Backend& backend_;
  const Transformer& transformer_;
  ParamStore& params_;
  GeneratorLimits limits_;
  std::vector<std::int64_t> prompt_capacities_, row_capacities_;  // ascending
  std::unique_ptr<Stream> stream_;

  // Inputs, i32. The prefill uses all of them, a decode step tokens, positions, slots and row_counts.
  Buffer input_buffer_;
  Tensor tokens_, positions_;   // [largest capacity]
  Tensor cu_seqlens_;           // [max_batch + 1]
  Tensor last_rows_;            // [max_batch]: the last position of each prompt
  Tensor slots_;                // [max_batch]: the cache row of each sequence; slot max_batch is nobody's
  Tensor counts_, row_counts_;  // [4]: BatchCounts of the packed prompts; of one row a sequence
  Tensor sampled_;              // [max_batch]

  Buffer cache_;  // keys and values: 2 * layers x A [max_batch + 1, max_len * kv_size]
  std::unique_ptr<PlannedOps> planned_;
  GenerateTimes times_;
};

}  // namespace llmfp8
