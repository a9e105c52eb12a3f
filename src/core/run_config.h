// Every value that the command line of train_fp8 and train_multi_gpu can set, under its flag's name. Filled by cli/ (flags
// are declared in cli/options.cpp), acted on by train/.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/settings.h"

namespace llmfp8 {

enum class Program { train_fp8, train_multi_gpu };

enum class MixedPrecision { bf16, fp16, fp8, fp32 };  // fp16 is always refused ("use bf16")
enum class Fp8Scenario { default_, mxfp8, hybrid, current };
enum class ShardingMode { auto_, ddp, fsdp_grad, fsdp_full, fsdp_offload };
enum class Device { auto_, cpu, cuda };

// Where a value came from; written to run.json.
enum class ValueSource { default_, config_file, command_line };

// Defaults differ between the programs, so they stand in options.cpp, not here.
struct RunConfig {
  Program program = Program::train_fp8;

  // Model and data
  std::string model_name;
  std::string dataset_name;
  std::string dataset_config;             // "": the data set's default
  std::string dataset_text_field;
  std::string split_name;
  std::int64_t num_of_samples = 0;        // 0: all rows
  std::int64_t max_seq_length = 0;
  bool packing = false;
  LossOn loss_on = LossOn::all;
  std::string chat_template;              // auto | model | llama3 | chatml | legacy | a file
  std::string template_date;              // "": the template's constant, else today
  std::string weights_cache_dir;          // "": the hub's default
  bool repair_embeddings = false;

  // Training
  std::int64_t batch_size = 0;            // rows per device and micro-batch
  std::int64_t eval_batch_size = 0;       // never 0 after parsing: batch_size unless given
  std::int64_t gradient_accumulation_steps = 0;
  std::int64_t num_epochs = 0;
  std::int64_t max_steps = 0;             // 0: no limit
  std::int64_t eval_interval = 0;         // epochs; 0: never
  std::int64_t eval_interval_steps = 0;
  std::int64_t health_interval = 100;
  std::int64_t eval_answers = 0;
  std::int64_t eval_answer_tokens = 256;
  std::int64_t eval_max_rows = 0;         // 0: all held-out rows
  OnNonFinite on_nonfinite = OnNonFinite::stop;
  std::int64_t seed = 0;

  // Optimizer
  double learning_rate = 0.0;
  std::int64_t num_warmup_steps = 0;
  LrScheduler lr_scheduler = LrScheduler::linear;
  double adam_beta1 = 0.0;
  double adam_beta2 = 0.0;
  double adam_eps = 0.0;
  double weight_decay = 0.0;
  double max_grad_norm = 0.0;             // 0: no clipping
  OptimState optim_state = OptimState::fp32;
  WeightUpdate weight_update = WeightUpdate::exact;
  GradPrecision grad_dtype = GradPrecision::automatic;

  // Precision
  MixedPrecision mixed_precision = MixedPrecision::bf16;
  bool use_te = false;
  Fp8Scenario fp8_scenario = Fp8Scenario::default_;
  bool fp8_strict = false;
  bool fp8_emulate = false;
  bool fp8_lm_head = false;
  Fp8Start fp8_start = Fp8Start::calibrate;
  std::int64_t shadow_check_interval = 0;  // steps; 0: off

  // Device and memory
  Device device = Device::auto_;
  std::int64_t threads = 0;               // 0: all cores
  ShardingMode sharding_mode = ShardingMode::auto_;
  bool cpu_offload = false;
  Recompute recompute = Recompute::none;
  bool gradient_checkpointing = false;    // after parsing, true exactly when recompute is block
  bool deterministic = false;

  // Output
  std::string output_dir;
  std::string log_dir;
  std::int64_t log_interval = 0;          // steps
  std::int64_t save_interval = 0;         // steps; 0: only the final model
  std::int64_t save_ahead = -1;           // steps that may be done while a checkpoint is written; -1: the device tells
  std::int64_t keep_checkpoints = 0;
  std::string resume;                     // "": a new run; "auto" or a checkpoint folder
  bool overwrite = false;
  bool use_wandb = false;
  std::string wandb_project;
  std::string wandb_run_name;             // "": none given
  bool quiet = false;
  bool dry_run = false;
  bool debug_mode = false;
  bool profile_memory = false;
  std::string config;                     // "": no file

  // Named after PyTorch mechanisms
  bool compile_model = false;
  bool memory_efficient_attention = false;
  std::int64_t empty_cache_freq = 0;
  std::int64_t num_workers = 0;
  std::int64_t num_proc = 0;

  // Flags that are absent kept their default.
  std::map<std::string, ValueSource, std::less<>> sources;

  bool is_set(std::string_view flag) const { return sources.find(flag) != sources.end(); }
};

// What differs between the programs beyond the defaults of their flags.
struct ProgramRules {
  std::string_view name;         // "train_fp8" | "train_multi_gpu"
  bool decay_bias_and_norm;      // false: no weight decay on names with "bias" or "norm"
  bool drop_last;                // the last incomplete batch of an epoch is dropped
  bool keep_best;                // checkpoint_best (by evaluation loss) is kept beside the final model
};
const ProgramRules& program_rules(Program program);

}  // namespace llmfp8
