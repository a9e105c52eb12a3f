// llm-fp8 parity: forward, backward and training steps on a given batch, written out for comparison with PyTorch. The
// defaults are those of the golden files under tests/golden.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "cli/commands/choices.h"
#include "cli/commands/commands.h"
#include "cli/commands/flags.h"
#include "core/error.h"
#include "core/log.h"
#include "core/thread_pool.h"
#include "optim/lr_schedule.h"
#include "train/downloads.h"
#include "train/parity.h"

namespace llmfp8 {
namespace {

struct ParityFlags {
  std::string model, batch, batch2, out, out_weights, weights_cache_dir;
  std::string device = "auto", dtype, recipe = "none", fp8_start = "calibrate", recompute = "none", grad_dtype = "fp32";
  std::string lr_scheduler = "linear", optim_state = "fp32", weight_update = "exact";
  bool fp8_lm_head = false, decay_bias_and_norm = true;
  std::int64_t steps = 0, warmup_steps = 3, total_steps = 0, seed = 42, threads = 0;
  double learning_rate = 1e-3, weight_decay = 0.01, max_grad_norm = 1.0;
  double adam_beta1 = 0.9, adam_beta2 = 0.999, adam_eps = 1e-8;
};

void declare_training(FlagSet& flags, ParityFlags& given) {
  flags.whole("steps", {}, &given.steps, "training steps; 0: forward and backward alone");
  flags.text("batch2", "FILE", &given.batch2, "a second micro-batch of every step (one denominator over both)");
  flags.text("out_weights", "FILE", &given.out_weights, "write the weights after the last step");
  flags.real("learning_rate", {}, &given.learning_rate, "highest learning rate, after the warm-up");
  flags.choice("lr_scheduler", words(kSchedulers), &given.lr_scheduler, "after the warm-up");
  flags.whole("warmup_steps", {}, &given.warmup_steps, "linear warm-up from 0");
  flags.whole("total_steps", {}, &given.total_steps, "length of the schedule; 0: --steps");
  flags.real("adam_beta1", {0.0, 0.999999}, &given.adam_beta1, "decay of the first moment");
  flags.real("adam_beta2", {0.0, 0.99999999}, &given.adam_beta2, "decay of the second moment");
  flags.real("adam_eps", {1e-30}, &given.adam_eps, "added to the root of the second moment");
  flags.real("weight_decay", {}, &given.weight_decay, "decoupled weight decay");
  flags.on_off("decay_bias_and_norm", &given.decay_bias_and_norm, "biases and norms decay too");
  flags.real("max_grad_norm", {}, &given.max_grad_norm, "clip the gradient to this norm; 0: no clipping");
  flags.choice("optim_state", words(kOptimStates), &given.optim_state, "how the moments are kept");
  flags.choice("weight_update", words(kWeightUpdates), &given.weight_update, "how a bf16 weight takes small updates");
  flags.whole("seed", {}, &given.seed, "of stochastic rounding");
}

void declare(FlagSet& flags, ParityFlags& given) {
  flags.text("model", "NAME", &given.model, "a folder, a .gguf file or a hub name",
             Presence::required);
  flags.text(
      "batch", "FILE", &given.batch,
      "safetensors: input_ids, labels, attention_mask i64 [B, S]; or input_ids, labels i64 [T] and cu_seqlens i32",
      Presence::required);
  flags.text("out", "FILE", &given.out,
             "write logits, loss, token_loss, hidden states of row 0 and gradients, before any step");
  flags.choice("dtype", {"fp32", "bf16"}, &given.dtype,
               "of weights and activations; without it, fp32, or bf16 with a recipe");
  flags.choice("recipe", words(kRecipes), &given.recipe, "FP8 recipe, as --fp8_scenario of train_fp8");
  flags.on_off("fp8_lm_head", &given.fp8_lm_head, "the language-model head in FP8 too");
  flags.choice("fp8_start", {"calibrate", "te"}, &given.fp8_start, "first scales of delayed scaling");
  flags.choice("grad_dtype", {"fp32", "bf16"}, &given.grad_dtype, "of the gradients of weights");
  flags.choice("recompute", words(kRecompute), &given.recompute, "what the backward pass computes again");
  declare_training(flags, given);
  flags.choice("device", {"auto", "cpu", "cuda"}, &given.device, "where it runs");
  flags.whole("threads", {0, 4096}, &given.threads, "CPU threads; 0: all cores");
  flags.text("weights_cache_dir", "DIR", &given.weights_cache_dir,
             "folder of downloaded models; without it, the hub's default");
}

void check_together(const FlagSet& flags, const ParityFlags& given) {
  if (given.out.empty() && given.steps == 0) fail_usage("parity: nothing to do, give --out FILE or --steps N");
  if (given.recipe == "none") {
    for (const char* name : {"fp8_lm_head", "fp8_start"}) {
      if (flags.is_set(name)) log::warning("parity: --{} has no effect without --recipe", name);
    }
  }
  if (given.steps > 0) return;
  for (const char* name : {"out_weights", "learning_rate", "lr_scheduler", "warmup_steps", "total_steps", "optim_state",
                           "weight_update"}) {
    if (flags.is_set(name)) fail_usage("parity: --{} has no meaning without --steps", name);
  }
}

EngineOptions engine_options(const ParityFlags& given, const BatchLimits& limits) {
  EngineOptions options;
  options.recipe = meaning(kRecipes, given.recipe);
  const std::string fallback = options.recipe == RecipeKind::none ? "fp32" : "bf16";
  options.dtype = (given.dtype.empty() ? fallback : given.dtype) == "fp32" ? DType::f32 : DType::bf16;
  options.fp8_lm_head = given.fp8_lm_head;
  options.fp8_start = given.fp8_start == "te" ? Fp8Start::te : Fp8Start::calibrate;
  options.grad_dtype = given.grad_dtype == "fp32" ? DType::f32 : DType::bf16;
  options.recompute = meaning(kRecompute, given.recompute);
  options.optimizer = {given.adam_beta1,
                       given.adam_beta2,
                       given.adam_eps,
                       given.weight_decay,
                       meaning(kOptimStates, given.optim_state),
                       meaning(kWeightUpdates, given.weight_update)};
  options.decay_rule = given.decay_bias_and_norm ? DecayRule::everything : DecayRule::no_bias_or_norm;
  options.seed = static_cast<std::uint64_t>(given.seed);
  options.train_limits = limits;
  return options;
}

void check_recipe(const ParityFlags& given, const Capabilities& device) {
  if (given.recipe == "none") return;
  const FormatSupport& support = given.recipe == "mxfp8" ? device.mxfp8 : device.fp8_tensor;
  CHECK(support.available || support.can_emulate, "--recipe {} cannot run here: {}", given.recipe, support.reason);
}

// One line of standard output; exactly as many digits as bring the same double back.
void print_json(const nlohmann::ordered_json& json) {
  fmt::print("{}\n", json.dump());
  std::fflush(stdout);
}

void write_out(Engine& engine, const ParityFlags& given, const ParityBatch& batch,
               std::span<const HostBatch> micro_batches) {
  const StepResult result = engine.gradients(micro_batches);
  write_parity(given.out, batch, trace_forward(engine, batch.host), result.loss,
               hf_gradients(engine, static_cast<double>(result.num_supervised)));
  if (given.steps > 0) return;
  print_json({{"loss", result.loss}, {"grad_norm", result.grad_norm}, {"supervised_tokens", result.num_supervised}});
}

void run_steps(Engine& engine, const ParityFlags& given, std::span<const HostBatch> micro_batches) {
  const LrSchedule schedule{meaning(kSchedulers, given.lr_scheduler), given.learning_rate, given.warmup_steps,
                            given.total_steps > 0 ? given.total_steps : given.steps};
  for (std::int64_t step = 0; step < given.steps; ++step) {
    const double rate = learning_rate(schedule, step);
    const StepResult result = engine.train_step(micro_batches, rate, given.max_grad_norm);
    print_json({{"step", step}, {"lr", rate}, {"loss", result.loss}, {"grad_norm", result.grad_norm}});
    CHECK(result.ok, "step {}: loss {} or gradient norm {} is not finite; the weights are those of the step before",
          step, result.loss, result.grad_norm);
  }
  print_json({{"loss_after", engine.gradients(micro_batches).loss}});
  if (!given.out_weights.empty()) write_hf_tensors(given.out_weights, hf_weights(engine));
}

}  // namespace

int run_parity(CommandArgs args) {
  ParityFlags given;
  FlagSet flags("parity", "forward, backward and training steps on a given batch, to compare with PyTorch",
                "--model NAME --batch FILE --out FILE [flags]");
  declare(flags, given);
  if (!flags.parse(args)) return 0;
  check_together(flags, given);
  if (given.threads > 0) set_num_threads(static_cast<int>(given.threads));
  Console console;
  const std::unique_ptr<WeightSource> source = open_model(fetch_model(given.model, given.weights_cache_dir, console));
  std::vector<ParityBatch> batches = {read_parity_batch(given.batch, source->config())};
  if (!given.batch2.empty()) batches.push_back(read_parity_batch(given.batch2, source->config()));
  const BatchLimits limits = align_batches(batches);
  std::vector<HostBatch> micro_batches;
  for (const ParityBatch& batch : batches) micro_batches.push_back(batch.host);

  const std::unique_ptr<Backend> backend = create_backend(given.device);
  check_recipe(given, backend->capabilities());
  log::info("matrix products: {}", backend->capabilities().matmul);
  Engine engine(*backend, source->config(), engine_options(given, limits));
  engine.load(*source);
  if (!given.out.empty()) write_out(engine, given, batches.front(), micro_batches);
  if (given.steps > 0) run_steps(engine, given, micro_batches);
  return 0;
}

}  // namespace llmfp8
