// The declarations of all flags, and what can be said about them without a command line: defaults, help, refusals.
#include "cli/options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <type_traits>

#include "core/error.h"

namespace llmfp8 {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kMany = std::int64_t{1} << 40;  // the largest count that any flag takes; keeps products in range
constexpr std::int64_t kLongest = 1 << 20;             // the largest batch or sequence
constexpr std::int64_t kAutomatic = -1;

template <typename T>
std::optional<T> parse_number(const std::string& text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, status] = std::from_chars(text.data(), end, value);
  if (status != std::errc() || stop != end) return std::nullopt;
  if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(value)) return std::nullopt;
  }
  return value;
}

std::optional<bool> parse_bool(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  if (text == "true") return true;
  if (text == "false") return false;
  return std::nullopt;
}

struct Whole {
  std::int64_t fallback = 0;
  std::int64_t least = 0;
  std::int64_t most = kMany;
  std::string zero = {};       // what 0 means, and may be typed instead ("all")
  std::string automatic = {};  // not empty: what the default, "auto", comes to; -1 until the run knows
};

struct Real {
  double fallback = 0.0;
  double least = 0.0;
  double below = std::numeric_limits<double>::max();
  bool is_least_allowed = true;
};

template <typename T>
struct EnumChoice {
  const char* name;
  T value;
  const char* refusal = "";
  bool is_listed = true;
};

// Collects the table; one call a flag.
class Declarations {
 public:
  std::vector<Option> options;

  void group(std::string title) { group_ = std::move(title); }

  Option& add(std::string name, std::string value_name, std::string help) {
    options.push_back(
        {.name = std::move(name), .group = group_, .value_name = std::move(value_name), .help = std::move(help)});
    return options.back();
  }

  Option& whole(const char* name, std::int64_t RunConfig::*member, Whole range, const char* help) {
    Option& option = add(name, "N", help);
    const bool is_bounded = range.most < kMany;
    option.wanted = is_bounded ? fmt::format("a whole number from {} to {}", range.least, range.most)
                               : fmt::format("a whole number of at least {}", range.least);
    option.range =
        is_bounded ? fmt::format("{} to {}", range.least, range.most) : fmt::format("at least {}", range.least);
    option.default_text = std::to_string(range.fallback);
    if (!range.automatic.empty()) {
      range.fallback = kAutomatic;
      option.wanted += " or auto";
      option.default_text = "auto: " + range.automatic;
    }
    if (!range.zero.empty()) {
      option.wanted += fmt::format(" (0: {})", range.zero);
      // Beside the default only where that is 0.
      if (range.fallback == 0) {
        option.default_text += ": " + range.zero;
      } else {
        option.range += fmt::format("; 0: {}", range.zero);
      }
    }
    option.assign = [member, range](RunConfig& config, const std::string& text) {
      if (!range.automatic.empty() && text == "auto") {
        config.*member = kAutomatic;
        return true;
      }
      const auto value =
          !range.zero.empty() && text == range.zero ? std::optional<std::int64_t>(0) : parse_number<std::int64_t>(text);
      if (!value || *value < range.least || *value > range.most) return false;
      config.*member = *value;
      return true;
    };
    option.value = [member, range](const RunConfig& config) {
      return !range.automatic.empty() && config.*member == kAutomatic ? Json("auto") : Json(config.*member);
    };
    fallbacks_.push_back([member, range](RunConfig& config) { config.*member = range.fallback; });
    return option;
  }

  Option& real(const char* name, double RunConfig::*member, Real range, const char* help) {
    Option& option = add(name, "X", help);
    option.range = fmt::format("{} {}", range.is_least_allowed ? "at least" : "above", range.least);
    if (range.below < std::numeric_limits<double>::max()) option.range += fmt::format(" and below {}", range.below);
    option.wanted = "a number " + option.range;
    option.default_text = fmt::format("{}", range.fallback);
    option.assign = [member, range](RunConfig& config, const std::string& text) {
      const auto value = parse_number<double>(text);
      if (!value || *value >= range.below || *value < range.least) return false;
      if (!range.is_least_allowed && *value == range.least) return false;
      config.*member = *value;
      return true;
    };
    option.value = [member](const RunConfig& config) { return Json(config.*member); };
    fallbacks_.push_back([member, range](RunConfig& config) { config.*member = range.fallback; });
    return option;
  }

  // An empty value is refused unless the default is empty.
  Option& text(const char* name, const char* value_name, std::string RunConfig::*member, std::string fallback,
               const char* help) {
    Option& option = add(name, value_name, help);
    option.wanted = "a value that is not empty";
    option.default_text = fallback;
    option.assign = [member, fallback](RunConfig& config, const std::string& value) {
      if (value.empty() && !fallback.empty()) return false;
      config.*member = value;
      return true;
    };
    option.value = [member](const RunConfig& config) { return Json(config.*member); };
    fallbacks_.push_back([member, fallback](RunConfig& config) { config.*member = fallback; });
    return option;
  }

  Option& on_off(const char* name, bool RunConfig::*member, const char* help) {
    Option& option = add(name, "", help);
    option.wanted = "true or false";
    option.assign = [member](RunConfig& config, const std::string& value) {
      const auto parsed = parse_bool(value);
      if (parsed) config.*member = *parsed;
      return parsed.has_value();
    };
    option.value = [member](const RunConfig& config) { return Json(config.*member); };
    fallbacks_.push_back([member](RunConfig& config) { config.*member = false; });
    return option;
  }

  template <typename T>
  Option& choice(const char* name, T RunConfig::*member, T fallback, std::vector<EnumChoice<T>> values,
                 const char* help) {
    std::string names;
    std::vector<Choice> choices;
    const auto name_of = [values](T value) {
      const auto it =
          std::find_if(values.begin(), values.end(), [&](const auto& entry) { return entry.value == value; });
      return std::string(it == values.end() ? "" : it->name);
    };
    for (const auto& entry : values) {
      choices.push_back({entry.name, entry.refusal, entry.is_listed});
      if (entry.is_listed) names += (names.empty() ? "" : "|") + std::string(entry.name);
    }
    Option& option = add(name, names, help);
    option.choices = std::move(choices);
    option.wanted = "one of " + names;
    std::replace(option.wanted.begin(), option.wanted.end(), '|', ',');
    for (std::size_t at = 0; (at = option.wanted.find(',', at)) != std::string::npos; at += 2)
      option.wanted.replace(at, 1, ", ");
    option.default_text = name_of(fallback);
    option.assign = [member, values](RunConfig& config, const std::string& text) {
      const auto it = std::find_if(values.begin(), values.end(), [&](const auto& entry) { return text == entry.name; });
      if (it != values.end()) config.*member = it->value;
      return it != values.end();
    };
    option.value = [member, name_of](const RunConfig& config) { return Json(name_of(config.*member)); };
    fallbacks_.push_back([member, fallback](RunConfig& config) { config.*member = fallback; });
    return option;
  }

  void apply_fallbacks(RunConfig& config) const {
    for (const auto& apply : fallbacks_) apply(config);
  }

 private:
  std::string group_;
  std::vector<std::function<void(RunConfig&)>> fallbacks_;
};

void declare_model_and_data(Declarations& d, bool multi) {
  d.group("Model and data");
  Option& model = d.text("model_name", "NAME", &RunConfig::model_name, "",
                         "a hub name, a folder or a .gguf file");
  model.is_required = true;
  Option& dataset = d.text("dataset_name", "NAME", &RunConfig::dataset_name, "",
                           "a hub name, a folder, a .parquet or .jsonl file (.jsonl.gz, .jsonl.zst, .json too)");
  dataset.is_required = true;
  d.text("split_name", "NAME", &RunConfig::split_name, "train_1M",
         "split of the dataset: train_1M, train_2M, train_5M, train, test, …");
  d.text("dataset_config", "NAME", &RunConfig::dataset_config, "",
         "configuration of the dataset, where its card names several; without it, the default one");
  d.text("dataset_text_field", "NAME", &RunConfig::dataset_text_field, "text",
         "column of plain text, where the dataset has none of problem/generated_solution, messages, prompt/completion, "
         "question/answer");
  d.whole("num_of_samples", &RunConfig::num_of_samples, {.zero = "all"},
          "take the first N rows, before 10 % are held out");
  d.whole("max_seq_length", &RunConfig::max_seq_length, {.fallback = multi ? 1024 : 256, .least = 1, .most = kLongest},
          "longer rows are cut here (BOS counted)");
  d.on_off(
      "packing", &RunConfig::packing,
      "fill batch_size x max_seq_length tokens a micro-batch instead of batch_size rows; nothing is padded either way");
  d.choice<LossOn>("loss_on", &RunConfig::loss_on, LossOn::all,
                   {{"all", LossOn::all}, {"completion", LossOn::completion}, {"assistant", LossOn::assistant}},
                   "tokens that the loss counts; completion: what answers the last user message; assistant: every answer");
  d.text("chat_template", "auto|model|llama3|chatml|legacy|FILE", &RunConfig::chat_template, "auto",
         "auto: the model's own, else the one of its family; legacy: the text of the Python stack");
  d.text("template_date", "TEXT", &RunConfig::template_date, "",
         "date (2024-07-26) for a model's own template that writes one; without it, the template's own constant, else today");
  d.text("weights_cache_dir", "DIR", &RunConfig::weights_cache_dir, multi ? "./model_cache" : "",
         "folder of downloaded models and datasets; without it, the hub's default");
  d.on_off("repair_embeddings", &RunConfig::repair_embeddings,
           "repair untrained embeddings of special tokens that the data uses")
      .not_built_yet = "--repair_embeddings is not built yet";
}

void declare_training(Declarations& d) {
  d.group("Training");
  d.whole("batch_size", &RunConfig::batch_size, {.fallback = 8, .least = 1, .most = kLongest},
          "rows per device and micro-batch");
  d.whole("eval_batch_size", &RunConfig::eval_batch_size, {.most = kLongest, .zero = "batch_size"},
          "rows per device in evaluation");
  d.whole("gradient_accumulation_steps", &RunConfig::gradient_accumulation_steps,
          {.fallback = 1, .least = 1, .most = kLongest},
          "micro-batches per optimizer step; one denominator over all of them");
  d.whole("num_epochs", &RunConfig::num_epochs, {.fallback = 3, .least = 1}, "passes over the training rows");
  d.whole("max_steps", &RunConfig::max_steps, {.zero = "no limit"}, "stop after N optimizer steps");
  d.whole("eval_interval", &RunConfig::eval_interval, {.fallback = 1, .zero = "never"}, "evaluate every N epochs");
  d.whole("eval_interval_steps", &RunConfig::eval_interval_steps, {.zero = "off"}, "evaluate every N optimizer steps too");
  d.whole("eval_answers", &RunConfig::eval_answers, {.most = kLongest, .zero = "off"},
          "with each evaluation and before the first step, write solutions to N held-out problems and log how many final "
          "answers are right");
  d.whole("eval_answer_tokens", &RunConfig::eval_answer_tokens, {.fallback = 256, .least = 1, .most = kLongest},
          "longest solution of --eval_answers");
  d.whole("eval_max_rows", &RunConfig::eval_max_rows, {.zero = "all"}, "evaluate the first N held-out rows");
  d.choice<OnNonFinite>("on_nonfinite", &RunConfig::on_nonfinite, OnNonFinite::stop,
                        {{"stop", OnNonFinite::stop}, {"skip", OnNonFinite::skip}},
                        "a step whose loss or gradient norm is not finite changes nothing; then stop and save, or go "
                        "on with the next (after 10 in a row: stop)");
  d.whole("seed", &RunConfig::seed, {.fallback = 42},
          "order and stochastic rounding; the held-out split is always seed 42");
}

void declare_optimizer(Declarations& d, bool multi) {
  d.group("Optimizer (AdamW)");
  d.real("learning_rate", &RunConfig::learning_rate, {.fallback = multi ? 5e-5 : 1.41e-5},
         "highest learning rate, after the warm-up");
  d.whole("num_warmup_steps", &RunConfig::num_warmup_steps, {.fallback = 100}, "linear warm-up from 0");
  d.choice<LrScheduler>(
      "lr_scheduler", &RunConfig::lr_scheduler, multi ? LrScheduler::cosine : LrScheduler::linear,
      {{"linear", LrScheduler::linear}, {"cosine", LrScheduler::cosine}, {"constant", LrScheduler::constant}},
      "after the warm-up: linear or cosine decay to 0, or constant");
  d.real("adam_beta1", &RunConfig::adam_beta1, {.fallback = 0.9, .below = 1.0}, "decay of the first moment");
  d.real("adam_beta2", &RunConfig::adam_beta2, {.fallback = multi ? 0.95 : 0.999, .below = 1.0},
         "decay of the second moment");
  d.real("adam_eps", &RunConfig::adam_eps, {.fallback = 1e-8, .is_least_allowed = false},
         "added to the root of the second moment");
  d.real("weight_decay", &RunConfig::weight_decay, {.fallback = 0.01},
         multi ? "on all weights but those named bias or norm" : "on all weights");
  d.real("max_grad_norm", &RunConfig::max_grad_norm, {.fallback = 1.0},
         "clip the gradient to this norm; 0: no clipping");
  d.choice<OptimState>("optim_state", &RunConfig::optim_state, OptimState::fp32,
                       {{"fp32", OptimState::fp32}, {"bf16", OptimState::bf16}, {"8bit", OptimState::eight_bit}},
                       "how the moments are kept; short ones are rounded stochastically");
  d.choice<WeightUpdate>(
      "weight_update", &RunConfig::weight_update, WeightUpdate::exact,
      {{"exact", WeightUpdate::exact}, {"stochastic", WeightUpdate::stochastic}, {"python", WeightUpdate::python}},
      "exact: fp32 master weights; stochastic: bf16 weights, rounded stochastically; python: as the Python stack");
  d.choice<GradPrecision>(
      "grad_dtype", &RunConfig::grad_dtype, GradPrecision::automatic,
      {{"auto", GradPrecision::automatic}, {"fp32", GradPrecision::fp32}, {"bf16", GradPrecision::bf16}},
      "of the gradients of weights; auto: bf16 on a GPU where a step has one micro-batch, else fp32");
}

void declare_precision(Declarations& d) {
  d.group("Precision");
  d.choice<MixedPrecision>("mixed_precision", &RunConfig::mixed_precision, MixedPrecision::bf16,
                           {{"bf16", MixedPrecision::bf16},
                            {"fp8", MixedPrecision::fp8},
                            {"fp32", MixedPrecision::fp32},
                            {"fp16", MixedPrecision::fp16, "--mixed_precision fp16 is not supported, use bf16", false}},
                           "fp32 is the reference path, for small models");
  d.on_off("use_te", &RunConfig::use_te,
           "with FP8: Transformer Engine's numeric rules (--fp8_start te), run by this program's own kernels");
  d.choice<Fp8Scenario>(
      "fp8_scenario", &RunConfig::fp8_scenario, Fp8Scenario::default_,
      {{"default", Fp8Scenario::default_},
       {"mxfp8", Fp8Scenario::mxfp8},
       {"hybrid", Fp8Scenario::hybrid},
       {"current", Fp8Scenario::current}},
      "FP8 recipe. default: delayed scaling, attention projections E4M3/E5M2, MLP E4M3; hybrid: delayed, E4M3/E5M2; "
      "mxfp8: a scale per 32 values; current: just-in-time scaling");
  d.on_off("fp8_strict", &RunConfig::fp8_strict, "refuse to run where a recipe would fall back to another");
  d.on_off("fp8_emulate", &RunConfig::fp8_emulate,
           "run mxfp8 where the GPU lacks it: exactly, on bf16 images of its codes, slower than bf16");
  d.on_off("fp8_lm_head", &RunConfig::fp8_lm_head, "the language-model head in FP8 too");
  d.choice<Fp8Start>("fp8_start", &RunConfig::fp8_start, Fp8Start::calibrate,
                     {{"calibrate", Fp8Start::calibrate}, {"te", Fp8Start::te}},
                     "first scales of delayed scaling: one calibration micro-batch, or 1 as Transformer Engine");
  d.whole("health_interval", &RunConfig::health_interval, {.fallback = 100, .zero = "off"},
          "every N steps: the share of weights that the step changed, FP8 codes at zero and at the largest value (health.jsonl)");
  d.whole("shadow_check_interval", &RunConfig::shadow_check_interval, {.zero = "off"},
          "every N steps: loss and gradient of the step's first micro-batch compared with bf16 (shadow/…)");
}

void declare_device(Declarations& d) {
  constexpr const char* kNoSharding = "sharding over several devices is not built yet, use auto or ddp on one device";
  d.group("Device and memory");
  d.choice<Device>("device", &RunConfig::device, Device::auto_,
                   {{"auto", Device::auto_},
                    {"cpu", Device::cpu},
                    {"cuda", Device::cuda}},
                   "auto: the best device that this build can use");
  d.whole("threads", &RunConfig::threads, {.most = 4096, .zero = "all cores"}, "CPU threads");
  d.choice<ShardingMode>("sharding_mode", &RunConfig::sharding_mode, ShardingMode::auto_,
                         {{"auto", ShardingMode::auto_},
                          {"ddp", ShardingMode::ddp},
                          {"fsdp_grad", ShardingMode::fsdp_grad, kNoSharding},
                          {"fsdp_full", ShardingMode::fsdp_full, kNoSharding},
                          {"fsdp_offload", ShardingMode::fsdp_offload, kNoSharding}},
                         "auto: fsdp_full on several devices, ddp on one");
  d.on_off("cpu_offload", &RunConfig::cpu_offload, "keep optimizer state in host memory").not_built_yet =
      "--cpu_offload is not built yet";
  d.choice<Recompute>("recompute", &RunConfig::recompute, Recompute::none,
                      {{"none", Recompute::none},
                       {"norm_swiglu", Recompute::norm_swiglu},
                       {"mlp", Recompute::mlp},
                       {"block", Recompute::block}},
                      "what the backward pass computes again instead of keeping it; the numbers do not change");
  d.on_off("gradient_checkpointing", &RunConfig::gradient_checkpointing, "the same as --recompute block");
  d.on_off("deterministic", &RunConfig::deterministic,
           "equal bits from run to run; the CPU backend always is, for a fixed number of threads");
}

void declare_output(Declarations& d, bool multi) {
  d.group("Output");
  d.text("output_dir", "DIR", &RunConfig::output_dir, multi ? "./checkpoints" : "./saved_model",
         "the model in HF layout, checkpoints, run.json, metrics.jsonl, summary.json");
  d.text("log_dir", "DIR", &RunConfig::log_dir, "./runs", "TensorBoard files, in a folder per run");
  d.whole("log_interval", &RunConfig::log_interval, {.fallback = multi ? 10 : 50, .least = 1}, "log every N steps");
  d.whole("save_interval", &RunConfig::save_interval, {.fallback = 1000, .zero = "only the final model"},
          "save a checkpoint every N steps, at the end and on Ctrl-C or SIGTERM; SIGUSR1 saves one at once");
  d.whole("save_ahead", &RunConfig::save_ahead,
          {.zero = "training waits for the files", .automatic = "0 on a CPU, 1000 on a GPU"},
          "steps that training may do while a checkpoint is being written; a kill costs save_interval steps and those "
          "at most");
  d.whole("keep_checkpoints", &RunConfig::keep_checkpoints, {.fallback = 2, .least = 1},
          "older checkpoints are removed");
  Option& resume = d.text("resume", "auto|DIR", &RunConfig::resume, "",
                          "go on from the newest checkpoint of output_dir (none: start), or from DIR, a checkpoint or "
                          "a run's folder");
  resume.implicit = "auto";
  d.on_off("overwrite", &RunConfig::overwrite, "allow a finished run in output_dir to be replaced");
  d.on_off("use_wandb", &RunConfig::use_wandb,
           "log to Weights & Biases through its Python package; where that fails: one warning, and training goes on");
  d.text("wandb_project", "NAME", &RunConfig::wandb_project, multi ? "llm-fp8-advanced" : "llm-fp8", "project");
  d.text("wandb_run_name", "NAME", &RunConfig::wandb_run_name, "",
         multi ? "name of the run; without it, {model}-{sharding}" : "name of the run");
  d.on_off("quiet", &RunConfig::quiet, "no progress bar, no information lines; warnings, errors and the last line stay");
  d.on_off("dry_run", &RunConfig::dry_run,
           "check model, data, disk and memory, measure a step, tell how long the run would take, then stop");
  d.on_off("debug_mode", &RunConfig::debug_mode,
           "a step that is not finite is run again, and the first operation that wrote a NaN or infinity is named");
  d.on_off("profile_memory", &RunConfig::profile_memory, "memory use per component over time").not_built_yet =
      "--profile_memory is not built yet";
  d.text("config", "FILE", &RunConfig::config, "",
         "flags from a YAML or TOML file (key: value); the command line wins");
}

void declare_pytorch(Declarations& d) {
  d.group("Named after PyTorch mechanisms: accepted, and mapped to what this engine has");
  d.on_off("compile_model", &RunConfig::compile_model,
           "torch.compile → graph capture of the step on a GPU; no effect on the CPU");
  d.on_off("memory_efficient_attention", &RunConfig::memory_efficient_attention,
           "→ fused attention, which is always on");
  d.whole("empty_cache_freq", &RunConfig::empty_cache_freq, {.fallback = 50},
          "→ arena trim; the arena is sized before step 1, so there is nothing to trim and no effect is needed");
  d.whole("num_workers", &RunConfig::num_workers, {.fallback = 4, .most = 4096},
          "DataLoader workers; no effect: batches are cut from memory and need none");
  d.whole("num_proc", &RunConfig::num_proc, {.fallback = 8, .least = 1, .most = 4096},
          "datasets.map processes; no effect: --threads cores tokenise");
}

struct Table {
  std::vector<Option> options;
  RunConfig defaults;
};

Table make_table(Program program) {
  const bool multi = program == Program::train_multi_gpu;
  Declarations d;
  declare_model_and_data(d, multi);
  declare_training(d);
  declare_optimizer(d, multi);
  declare_precision(d);
  declare_device(d);
  declare_output(d, multi);
  declare_pytorch(d);
  Table table;
  d.apply_fallbacks(table.defaults);
  table.defaults.program = program;
  table.options = std::move(d.options);
  return table;
}

const Table& table_of(Program program) {
  static const std::array<Table, 2> tables = {make_table(Program::train_fp8), make_table(Program::train_multi_gpu)};
  return tables[program == Program::train_fp8 ? 0 : 1];
}

}  // namespace

const std::vector<Option>& option_table(Program program) { return table_of(program).options; }

const Option* find_option(Program program, std::string_view name) {
  const auto& options = option_table(program);
  const auto it =
      std::find_if(options.begin(), options.end(), [&](const Option& option) { return option.name == name; });
  return it == options.end() ? nullptr : &*it;
}

RunConfig default_config(Program program) { return table_of(program).defaults; }

std::string option_text(const Option& option, const RunConfig& config) {
  const Json value = option.value(config);
  return value.is_string() ? value.get<std::string>() : value.dump();
}

void refuse_what_is_not_built(const RunConfig& config) {
  const RunConfig& defaults = table_of(config.program).defaults;
  for (const Option& option : option_table(config.program)) {
    const std::string value = option_text(option, config);
    if (!option.not_built_yet.empty() && value != option_text(option, defaults)) fail_usage("{}", option.not_built_yet);
    for (const Choice& choice : option.choices) {
      if (choice.name != value || choice.refusal.empty()) continue;
      if (!choice.is_listed) fail_usage("{}", choice.refusal);
      fail_usage("--{} {}: {}", option.name, value, choice.refusal);
    }
  }
}

}  // namespace llmfp8
