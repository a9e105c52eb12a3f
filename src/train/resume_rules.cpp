#include "train/resume_rules.h"

#include <algorithm>
#include <iterator>

#include "core/error.h"

namespace llmfp8 {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kOtherRows = "the rows would be others";
constexpr std::string_view kOtherState = "the optimizer's state has another form";
constexpr std::string_view kOtherRecipe = "weights and scaling state belong to that recipe";

// What really ran. Where a flag itself decides nothing ("--chat_template auto"), what came of it stands here.
constexpr ResumeSetting kFacts[] = {
    {"program", ResumeRule::same, "its rules for weight decay and incomplete batches are others"},
    {"model", ResumeRule::same, "it is another model"},
    {"recipe", ResumeRule::same, kOtherRecipe},
    {"weights", ResumeRule::same, kOtherRecipe},
    {"training rows", ResumeRule::same, "another data set, tokenizer or template gave them"},
    {"held-out rows", ResumeRule::noted},
    {"world size", ResumeRule::same, "the rows would be dealt out otherwise"},
    {"gradients", ResumeRule::noted},
    {"device", ResumeRule::noted},
    {"matrix products", ResumeRule::noted},
    {"steps in all", ResumeRule::noted},
    {"steps per epoch", ResumeRule::judged},
};

constexpr ResumeSetting kFlags[] = {
    // Model and data.
    {"model_name", ResumeRule::open},
    {"dataset_name", ResumeRule::open},
    {"dataset_text_field", ResumeRule::open},
    {"dataset_config", ResumeRule::same, kOtherRows},
    {"split_name", ResumeRule::same, kOtherRows},
    {"num_of_samples", ResumeRule::same, kOtherRows},
    {"max_seq_length", ResumeRule::same, kOtherRows},
    {"packing", ResumeRule::same, "the rows would be cut into other batches"},
    {"loss_on", ResumeRule::same, "other tokens would be learnt"},
    {"chat_template", ResumeRule::open},
    {"template_date", ResumeRule::open},
    {"weights_cache_dir", ResumeRule::open},
    {"repair_embeddings", ResumeRule::open},
    // Training.
    {"batch_size", ResumeRule::judged},
    {"gradient_accumulation_steps", ResumeRule::judged},
    {"eval_batch_size", ResumeRule::open},
    {"num_epochs", ResumeRule::open},
    {"max_steps", ResumeRule::open},
    {"eval_interval", ResumeRule::open},
    {"eval_max_rows", ResumeRule::open},
    {"eval_interval_steps", ResumeRule::open},
    {"eval_answers", ResumeRule::open},
    {"eval_answer_tokens", ResumeRule::open},
    {"on_nonfinite", ResumeRule::open},
    {"seed", ResumeRule::same, "order and rounding would be others"},
    // Optimizer.
    {"learning_rate", ResumeRule::noted},
    {"num_warmup_steps", ResumeRule::noted},
    {"lr_scheduler", ResumeRule::noted},
    {"adam_beta1", ResumeRule::noted},
    {"adam_beta2", ResumeRule::noted},
    {"adam_eps", ResumeRule::noted},
    {"weight_decay", ResumeRule::noted},
    {"max_grad_norm", ResumeRule::noted},
    {"optim_state", ResumeRule::same, kOtherState},
    {"weight_update", ResumeRule::same, kOtherState},
    {"grad_dtype", ResumeRule::open},
    // Precision: "recipe" and "weights" say what came of these.
    {"mixed_precision", ResumeRule::open},
    {"use_te", ResumeRule::open},
    {"fp8_scenario", ResumeRule::open},
    {"fp8_strict", ResumeRule::open},
    {"fp8_emulate", ResumeRule::open},
    {"fp8_lm_head", ResumeRule::open},
    {"fp8_start", ResumeRule::open},
    {"health_interval", ResumeRule::open},
    {"shadow_check_interval", ResumeRule::open},
    // Device and memory.
    {"device", ResumeRule::open},
    {"threads", ResumeRule::open},
    {"sharding_mode", ResumeRule::open},
    {"cpu_offload", ResumeRule::open},
    {"recompute", ResumeRule::open},
    {"gradient_checkpointing", ResumeRule::open},
    {"deterministic", ResumeRule::noted},
    // Output.
    {"output_dir", ResumeRule::open},
    {"log_dir", ResumeRule::open},
    {"log_interval", ResumeRule::open},
    {"save_interval", ResumeRule::open},
    {"save_ahead", ResumeRule::open},
    {"keep_checkpoints", ResumeRule::open},
    {"resume", ResumeRule::open},
    {"overwrite", ResumeRule::open},
    {"use_wandb", ResumeRule::open},
    {"wandb_project", ResumeRule::open},
    {"wandb_run_name", ResumeRule::open},
    {"quiet", ResumeRule::open},
    {"dry_run", ResumeRule::open},
    {"debug_mode", ResumeRule::open},
    {"profile_memory", ResumeRule::open},
    {"config", ResumeRule::open},
    // Named after PyTorch mechanisms.
    {"compile_model", ResumeRule::open},
    {"memory_efficient_attention", ResumeRule::open},
    {"empty_cache_freq", ResumeRule::open},
    {"num_workers", ResumeRule::open},
    {"num_proc", ResumeRule::open},
};

std::string text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

std::string difference(std::string_view name, const Json& now, const Json& saved) {
  return fmt::format("{} is {}, the checkpoint has {}", name, text(now), text(saved));
}

std::int64_t flag_number(const Json& run, const char* flag) { return run.at("flags").at(flag).at("value"); }

struct Differences {
  std::vector<std::string> refused, noted;

  void add(const std::string& shown, const ResumeSetting& setting, const Json& now, const Json& saved) {
    if (now == saved || setting.rule == ResumeRule::open || setting.rule == ResumeRule::judged) return;
    const std::string line = difference(shown, now, saved);
    if (setting.rule == ResumeRule::same) refused.push_back(fmt::format("{} ({})", line, setting.why));
    if (setting.rule == ResumeRule::noted) noted.push_back(line);
  }

  // A step may be cut into micro-batches otherwise, as long as it has the same rows.
  void add_batch(const Json& now, const Json& saved) {
    const std::int64_t batch = flag_number(now, "batch_size"), old_batch = flag_number(saved, "batch_size");
    const std::int64_t cut = flag_number(now, "gradient_accumulation_steps"),
                       old_cut = flag_number(saved, "gradient_accumulation_steps");
    if (batch == old_batch && cut == old_cut) return;
    const bool is_packed = now.at("flags").at("packing").at("value") == true;
    const bool same_rows = batch * cut == old_batch * old_cut && !is_packed &&
                           now.at("ran").at("steps per epoch") == saved.at("ran").at("steps per epoch");
    const std::string line =
        fmt::format("--batch_size x --gradient_accumulation_steps is {} x {}, the checkpoint has {} x {}", batch, cut,
                    old_batch, old_cut);
    if (same_rows) {
      noted.push_back(line);
    } else {
      refused.push_back(line + " (its place in the epoch counts steps of that many rows)");
    }
  }
};

// A hub name may stand for other files than it did. Said where something is refused: names and flags may be the same then.
std::vector<std::string> other_commits(const Json& now, const Json& saved) {
  std::vector<std::string> lines;
  for (const char* what : {"model", "dataset"}) {
    const Json none = Json::object();
    const Json here = now.value("hub", none).value(what, none), there = saved.value("hub", none).value(what, none);
    if (here.empty() || there.empty() || here == there) continue;
    const auto text_of = [](const Json& origin) {
      return fmt::format("{} at commit {}", origin.value("repository", "?"), origin.value("commit", "?"));
    };
    lines.push_back(fmt::format("--{}_name is {}, the checkpoint has {} (the hub's cache may still hold it: give its folder)", what,
                                text_of(here), text_of(there)));
  }
  return lines;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts) all += (all.empty() ? "" : "; ") + part;
  return all;
}

template <std::size_t n>
const ResumeSetting* find(const ResumeSetting (&settings)[n], std::string_view name) {
  const auto* const found =
      std::find_if(std::begin(settings), std::end(settings), [&](const auto& s) { return s.name == name; });
  return found == std::end(settings) ? nullptr : found;
}

}  // namespace

const ResumeSetting* resume_setting(std::string_view flag) { return find(kFlags, flag); }

std::vector<std::string> compare_for_resume(const Json& saved, const Json& now, const std::string& folder) {
  Differences differences;
  for (const ResumeSetting& fact : kFacts) {
    const std::string name(fact.name);
    differences.add(name, fact, now.at("ran").at(name), saved.at("ran").at(name));
  }
  for (const ResumeSetting& flag : kFlags) {
    const std::string name(flag.name);
    // A version that did not know the flag ran without it.
    if (!now.at("flags").contains(name) || !saved.at("flags").contains(name)) continue;
    differences.add("--" + name, flag, now.at("flags").at(name).at("value"), saved.at("flags").at(name).at("value"));
  }
  differences.add_batch(now, saved);
  if (!differences.refused.empty()) {
    for (std::string& line : other_commits(now, saved)) differences.refused.push_back(std::move(line));
    fail("--resume {}: {}; give what the checkpoint has, or start a new run from its weights with --model_name {}",
         folder, joined(differences.refused), folder);
  }
  return differences.noted;
}

}  // namespace llmfp8
