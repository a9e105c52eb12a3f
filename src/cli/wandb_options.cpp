#include "cli/wandb_options.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "cli/run_config.h"
#include "core/error.h"

namespace llmfp8 {
namespace {

constexpr std::size_t kLongestTag = 64;  // W&B's own limit, in characters

// "meta-llama/Llama-3.2-3B" and "models/Llama-3.2-3B/" are both "Llama-3.2-3B".
std::string short_name(std::string model) {
  while (model.ends_with('/')) model.pop_back();
  return model.substr(model.find_last_of('/') + 1);
}

std::string sharding(const RunConfig& config, int gpus) {
  if (config.sharding_mode == ShardingMode::auto_) return gpus > 1 ? "fsdp_full" : "ddp";
  return flag_text(config, "sharding_mode");
}

double seconds_of_environment(const char* variable, double fallback) {
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return fallback;
  double value = 0;
  const std::string_view given = text;
  const auto [end, error] = std::from_chars(given.data(), given.data() + given.size(), value);
  if (error != std::errc() || end != given.data() + given.size() || !(value >= 0) || !std::isfinite(value))
    fail_usage("{}={}: wanted a number of seconds", variable, text);
  return value;
}

// A text that a shell takes as one word.
std::string shell_word(const std::string& text) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./+=:,@%";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace

WandbRun new_wandb_run(const RunConfig& config, int gpus) {
  const char* id = std::getenv("WANDB_RUN_ID");
  WandbRun run = {.id = id != nullptr && *id != '\0' ? id : WandbRun::new_id(),
                  .project = config.wandb_project,
                  .name = config.wandb_run_name};
  if (config.program != Program::train_multi_gpu) return run;
  const std::string model = short_name(config.model_name);
  if (run.name.empty()) run.name = model + "-" + sharding(config, gpus);
  run.tags = {"model:" + model, fmt::format("gpus:{}", gpus), "sharding:" + sharding(config, gpus),
              "precision:" + flag_text(config, "mixed_precision")};
  for (std::string& tag : run.tags) tag.resize(std::min(tag.size(), kLongestTag));
  return run;
}

WandbRun continued_wandb_run(const nlohmann::ordered_json& earlier_run_json, WandbRun fresh) {
  const auto earlier = earlier_run_json.find("wandb");
  if (earlier == earlier_run_json.end()) return fresh;
  WandbRun run = WandbRun::from_json(*earlier);
  run.problem.clear();
  return run;
}

WandbOptions wandb_options(WandbRun run, const nlohmann::ordered_json& flags, const std::filesystem::path& output_dir,
                           const std::filesystem::path& folder) {
  WandbOptions options;
  options.run = std::move(run);
  options.config = nlohmann::ordered_json::object();
  for (const auto& [name, flag] : flags.items()) options.config[name] = flag.at("value");
  options.metrics_file = output_dir / "metrics.jsonl";
  options.folder = folder;
  options.replay_command = "llm-fp8 wandb-sync " + shell_word(output_dir.string());
  options.python = wandb_python();
  options.finish_wait_s = seconds_of_environment("LLMFP8_WANDB_WAIT", options.finish_wait_s);
  return options;
}

}  // namespace llmfp8
