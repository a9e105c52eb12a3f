// Runs that work: what they write, under which names, and the promises about accumulation, repetition and reloading.
#include <cmath>
#include <cstdlib>
#include <set>

#include <gtest/gtest.h>

#include "e2e/checkpoints.h"

namespace llmfp8::testing {
namespace {

void expect_exported_like(const fs::path& source, const fs::path& output) {
  Safetensors before = Safetensors::read(source / "model.safetensors"),
              after = Safetensors::read(output / "model.safetensors");
  ASSERT_EQ(before.header.size(), after.header.size());
  EXPECT_EQ(after.header.at("__metadata__").dump(), R"({"format":"pt"})");
  std::size_t changed = 0;
  for (const auto& [name, entry] : before.header.items()) {
    ASSERT_TRUE(after.header.contains(name)) << name;
    if (name == "__metadata__") continue;
    EXPECT_EQ(after.header[name]["dtype"], entry["dtype"]) << name;
    EXPECT_EQ(after.header[name]["shape"], entry["shape"]) << name;
    changed += after.bytes_of(name) != before.bytes_of(name) ? 1 : 0;
  }
  EXPECT_GT(changed, before.header.size() / 2);
  for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    EXPECT_EQ(read_bytes(source / file), read_bytes(output / file)) << file;
  }
}

void expect_names(const fs::path& output, const std::set<std::string>& train, const std::set<std::string>& eval) {
  std::set<std::string> in_train, in_eval;
  for (const nlohmann::json& line : read_jsonl(output / "metrics.jsonl")) {
    const bool is_eval = line.contains("Eval/Loss") || line.contains("eval/loss");
    for (const auto& [name, value] : line.items()) {
      if (name.find('/') == std::string::npos) continue;
      EXPECT_TRUE(value.is_number()) << name << " " << value;
      (is_eval ? in_eval : in_train).insert(name);
    }
  }
  for (const std::string& name : train) EXPECT_TRUE(in_train.contains(name)) << name;
  for (const std::string& name : eval) EXPECT_TRUE(in_eval.contains(name)) << name;
}

void expect_stability_report(const fs::path& output) {
  const nlohmann::json summary = read_json(output / "summary.json");
  for (const char* series : {"loss", "gradient_norm", "learning_rate"}) {
    for (const char* value : {"mean", "median", "std", "variance", "cv", "iqr", "max_deviation", "range",
                              "convergence_rate", "oscillation_index", "stability_ratio", "normality_p_value"}) {
      EXPECT_TRUE(summary.contains(std::string("stability_report/") + series + "/" + value)) << series << " " << value;
    }
  }
}

struct Kind {
  const char* name;
  Args flags;
  const char* precision;  // as run.json calls it
  bool fp8;
};

const Kind kKinds[] = {
    {"bf16", {"--mixed_precision", "bf16"}, "bf16", false},
    {"fp32", {"--mixed_precision", "fp32"}, "fp32", false},
    {"default", {"--mixed_precision", "fp8"}, "fp8 (default)", true},
    {"hybrid", {"--mixed_precision", "fp8", "--fp8_scenario", "hybrid"}, "fp8 (hybrid)", true},
    {"mxfp8", {"--mixed_precision", "fp8", "--fp8_scenario", "mxfp8", "--fp8_strict", "--fp8_emulate"}, "fp8 (mxfp8)", true},
    {"current", {"--mixed_precision", "fp8", "--fp8_scenario", "current"}, "fp8 (current)", true},
};

TEST(Runs, EveryRecipeWritesWhatIsPromised) {
  for (const Kind& kind : kKinds) {
    SCOPED_TRACE(kind.name);
    Workshop shop;
    Args flags = kind.flags;
    flags.insert(flags.end(), {"--num_epochs", "2", "--wandb_run_name", "a-run", "--learning_rate", "1e-3"});
    const Finished run = run_well("train_fp8", shop.args(flags));
    const std::string checkpoint = "checkpoints/step-18/";
    EXPECT_EQ(files_below(shop.output()),
              (std::vector<std::string>{checkpoint + "checksums.json", checkpoint + "config.json", checkpoint + "model.safetensors",
                                        checkpoint + "state/state.json", checkpoint + "state/training_state.safetensors",
                                        checkpoint + "tokenizer.json", checkpoint + "tokenizer_config.json", "config.json", "metrics.jsonl",
                                        "model.safetensors", "run.json", "summary.json", "tokenizer.json", "tokenizer_config.json"}));
    const std::vector<std::string> logs = files_below(shop.logs());
    ASSERT_EQ(logs.size(), 1u);
    EXPECT_TRUE(logs[0].starts_with("a-run/events.out.tfevents.")) << logs[0];
    expect_exported_like(shop.path("model"), shop.output());
    expect_names(shop.output(),
                 {"Train/Loss", "Train/Perplexity", "Train/StepTime_s", "Train/GPU_Memory_MB", "Train/Progress",
                  "Train/TimePerStep_ms", "Train/TokensPerSecond", "Train/SupervisedTokensPerSecond", "Train/ETA_s", "Train/Utilisation",
                  "Train/FP8_GEMM_Share", "stability/loss", "stability/gradient_norm", "stability/learning_rate"},
                 {"Eval/Loss", "Eval/Perplexity", "Eval/Tokens"});
    expect_stability_report(shop.output());
    EXPECT_EQ(metric(shop.output(), "Train/Loss").size(), 18u);
    for (const double share : metric(shop.output(), "Train/Utilisation")) {
      EXPECT_GT(share, 0.0);
      EXPECT_LT(share, 2.0);
    }
    EXPECT_EQ(metric(shop.output(), "Eval/Loss").size(), 2u);

    const nlohmann::json json = read_json(shop.output() / "run.json");
    EXPECT_EQ(json.at("state"), "finished");
    EXPECT_EQ(json.at("precision"), kind.precision);
    EXPECT_EQ(json.at("fallback"), "");
    EXPECT_TRUE(json.at("notes").is_array());
    EXPECT_FALSE(json.at("versions").at("llm-fp8").get<std::string>().empty());
    EXPECT_EQ(json.at("versions").at("matmul"), json.at("matmul"));
    EXPECT_EQ(json.at("steps").at("done"), 18);
    EXPECT_EQ(json.at("flags").at("batch_size").at("value"), 4);
    EXPECT_EQ(json.at("flags").at("batch_size").at("from"), "command line");
    const double share = read_json(shop.output() / "summary.json").at("fp8_gemm_share");
    EXPECT_EQ(share > 0.3, kind.fp8) << share;
    // The console stays short: what only a file should hold is not printed.
    EXPECT_FALSE(run.says("Train/")) << run.err;
    EXPECT_FALSE(run.says("stability")) << run.err;
  }
}

TEST(Runs, MultiGpuProgramHasItsOwnNamesAndKeepsTheBest) {
  Workshop shop;
  const Finished run = run_well("train_multi_gpu", shop.args({"--mixed_precision", "fp8", "--num_epochs", "2",
                                                              "--learning_rate", "1e-3"}));
  for (const char* line : {"world size", "sharding", "batch per GPU", "gradient accumulation", "effective batch"})
    EXPECT_EQ(run.count(line), 1u) << line << "\n" << run.err;
  for (const char* line : {"\nepoch 1: loss ", "\nepoch 2: loss "}) EXPECT_EQ(run.count(line), 1u) << run.err;
  expect_names(shop.output(),
               {"train/loss", "train/perplexity", "train/learning_rate", "train/grad_norm", "train/tokens_per_second",
                "train/gpu_memory_gb", "train/step", "train/supervised_tokens_per_second", "train/eta_s", "train/utilisation",
                "train/fp8_gemm_share"},
               {"eval/loss", "eval/perplexity", "eval/epoch", "eval/step"});
  expect_stability_report(shop.output());
  expect_exported_like(shop.path("model"), shop.output());
  expect_exported_like(shop.path("model"), shop.output() / "checkpoint_best");
  EXPECT_EQ(metric(shop.output(), "train/loss").size(), 18u);
  EXPECT_EQ(read_json(shop.output() / "run.json").at("program"), "train_multi_gpu");
}

TEST(Runs, LastIncompleteBatchIsKeptByOneAndDroppedByTheOther) {
  Workshop shop;
  shop.text_rows(42);  // 37 to train on
  run_well("train_fp8", shop.args());
  EXPECT_EQ(metric(shop.output(), "Train/Loss").size(), 10u);
  run_well("train_multi_gpu", shop.args({"--output_dir", shop.path("multi").string()}));
  EXPECT_EQ(metric(shop.path("multi"), "train/loss").size(), 9u);
}

TEST(Runs, EveryModelKindTrainsAndLoadsAgain) {
  for (const char* golden : {"llama_tied", "llama_untied", "qwen2"}) {
    SCOPED_TRACE(golden);
    Workshop shop;
    const fs::path model = shop.model(golden);
    run_well("train_fp8", shop.args({"--mixed_precision", "fp8", "--learning_rate", "1e-3"}));
    expect_exported_like(model, shop.output());
    // Trained on with a learning rate of 0, the saved model evaluates to the loss that the first run ended with.
    const fs::path again = shop.path("again");
    run_well("train_fp8", shop.args({"--model_name", shop.output().string(), "--output_dir", again.string(),
                                     "--learning_rate", "0", "--max_steps", "1"}));
    EXPECT_DOUBLE_EQ(metric(again, "Eval/Loss").back(), metric(shop.output(), "Eval/Loss").back());
    // And is saved as it was loaded.
    EXPECT_EQ(Safetensors::read(again / "model.safetensors").data,
              Safetensors::read(shop.output() / "model.safetensors").data);
  }
}

TEST(Runs, EqualRunsGiveEqualBits) {
  for (const Args& flags :
       {Args{"--mixed_precision", "fp8", "--threads", "2"}, Args{"--mixed_precision", "fp8", "--fp8_scenario", "mxfp8"},
        Args{"--weight_update", "stochastic", "--optim_state", "8bit"}}) {
    Workshop shop;
    Args first = flags, second = flags;
    first.insert(first.end(), {"--learning_rate", "1e-3"});
    second.insert(second.end(), {"--learning_rate", "1e-3", "--output_dir", shop.path("second").string()});
    run_well("train_fp8", shop.args(first));
    run_well("train_fp8", shop.args(second));
    EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), read_bytes(shop.path("second") / "model.safetensors"));
    EXPECT_EQ(metric(shop.output(), "Train/Loss"), metric(shop.path("second"), "Train/Loss"));
    // Another seed is another order.
    second.insert(second.end(), {"--seed", "7", "--overwrite"});
    run_well("train_fp8", shop.args(second));
    EXPECT_NE(metric(shop.output(), "Train/Loss"), metric(shop.path("second"), "Train/Loss"));
  }
}

TEST(Runs, AccumulationIsTheLargerBatch) {
  Workshop shop;
  const Args same = {"--mixed_precision", "fp32", "--learning_rate", "1e-3"};
  Args large = same, cut = same;
  large.insert(large.end(), {"--batch_size", "8"});
  cut.insert(cut.end(),
             {"--batch_size", "4", "--gradient_accumulation_steps", "2", "--output_dir", shop.path("cut").string()});
  run_well("train_fp8", shop.args(large));
  run_well("train_fp8", shop.args(cut));
  for (const char* name : {"Train/Loss", "stability/gradient_norm"}) {
    const std::vector<double> a = metric(shop.output(), name), b = metric(shop.path("cut"), name);
    ASSERT_EQ(a.size(), 5u);
    ASSERT_EQ(b.size(), 5u);
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5 * a[i]) << name << " of step " << i + 1;
  }
  EXPECT_LT(metric(shop.output(), "Train/Loss").back(), metric(shop.output(), "Train/Loss").front());
}

TEST(Runs, FlagsThatSaySomething) {
  Workshop shop;
  const Finished te =
      run_well("train_fp8", shop.args({"--use_te", "--mixed_precision", "fp8", "--max_steps", "2"}));
  EXPECT_EQ(te.count("--use_te:"), 1u) << te.err;
  EXPECT_TRUE(te.says("first scales 1, as --fp8_start te")) << te.err;
  const nlohmann::json notes = read_json(shop.output() / "run.json").at("notes");
  EXPECT_TRUE(std::any_of(notes.begin(), notes.end(), [](const nlohmann::json& note) {
    return note.get<std::string>().starts_with("--use_te: Transformer Engine's numeric rules");
  })) << notes;
  // It is that flag: the same losses, and others than after a calibration.
  const auto losses = [&](Args flags) {
    flags.insert(flags.end(), {"--mixed_precision", "fp8", "--max_steps", "2", "--overwrite"});
    run_well("train_fp8", shop.args(flags));
    return metric(shop.output(), "Train/Loss");
  };
  const std::vector<double> te_losses = metric(shop.output(), "Train/Loss");
  EXPECT_EQ(losses({"--fp8_start", "te"}), te_losses);
  // Gradients rounded to bf16 have another norm, by less than a bf16 step.
  const auto first_norm = [&](const Args& flags) {
    losses(flags);
    return metric(shop.output(), "stability/gradient_norm").front();
  };
  const double wide = first_norm({"--grad_dtype", "fp32"}), narrow = first_norm({"--grad_dtype", "bf16"});
  EXPECT_NE(wide, narrow);
  EXPECT_NEAR(wide, narrow, 0x1p-8 * wide);
  EXPECT_NE(losses({}), te_losses);
  EXPECT_NE(losses({"--use_te", "--fp8_start", "calibrate"}), te_losses);
  EXPECT_EQ(te.count("warning:"), 0u) << te.err;
  const Finished bf16 = run_well("train_fp8", shop.args({"--use_te", "--max_steps", "2", "--overwrite"}));
  EXPECT_EQ(bf16.count("--use_te:"), 1u) << bf16.err;
  EXPECT_EQ(bf16.count("--use_te: no effect without --mixed_precision fp8"), 1u) << bf16.err;

  const Finished packed = run_well("train_fp8", shop.args({"--packing", "--overwrite"}));
  EXPECT_EQ(packed.count("--packing fills batches of 256 tokens: "), 1u) << packed.err;
  EXPECT_TRUE(packed.says(" steps an epoch, 9 without")) << packed.err;
  EXPECT_LT(metric(shop.output(), "Train/Loss").size(), 9u);

  const Finished quiet = run_well("train_fp8", shop.args({"--quiet", "--overwrite"}));
  EXPECT_TRUE(quiet.err.starts_with("done: ")) << quiet.err;
  EXPECT_EQ(quiet.count("\n"), 1u) << quiet.err;
  EXPECT_EQ(packed.count("\ndone: "), 1u) << packed.err;

  const Finished ignored =
      run_well("train_fp8", shop.args({"--fp8_scenario", "mxfp8", "--max_steps", "1", "--overwrite"}));
  EXPECT_EQ(ignored.count("warning: --fp8_scenario mxfp8 has no effect with --mixed_precision bf16"), 1u)
      << ignored.err;
}

TEST(Runs, TemplatesAndWhatIsLearnt) {
  Workshop shop;
  const std::string math = shop.math_rows(40).string();
  const Args base = {"--dataset_name", math, "--max_seq_length", "512", "--max_steps", "1", "--overwrite"};
  const auto with = [&](Args more) {
    more.insert(more.begin(), base.begin(), base.end());
    return run_well("train_fp8", shop.args(more));
  };
  const Finished llama = with({"--chat_template", "llama3"});
  EXPECT_TRUE(llama.says("<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful assistant that solves math"))
      << llama.err;
  const double all = metric(shop.output(), "Eval/Tokens").back();

  const Finished completion = with({"--chat_template", "llama3", "--loss_on", "completion"});
  EXPECT_LT(metric(shop.output(), "Eval/Tokens").back(), 0.3 * all);
  EXPECT_GT(metric(shop.output(), "Eval/Tokens").back(), 4 * 10);
  EXPECT_TRUE(completion.says("«<|begin_of_text|><|start_header_id|>system")) << completion.err;
  EXPECT_TRUE(completion.says("»It is \\boxed{")) << completion.err;

  const Finished legacy = with({"--chat_template", "legacy"});
  EXPECT_TRUE(legacy.says("<|start_header_id|>system<|end_header_id|>\nYou are a helpful assistant that solves math"))
      << legacy.err;
  EXPECT_TRUE(legacy.says("\\boxed{}.\n<|eot_id|>\n<|start_header_id|>user")) << legacy.err;
  EXPECT_EQ(read_json(shop.output() / "run.json").at("chat_template"), "legacy");
}

TEST(Runs, CheckpointsOnTheWayAreWholeModels) {
  Workshop shop;
  run_well("train_fp8", shop.args({"--save_interval", "3", "--keep_checkpoints", "2"}));
  // The last one is the end's.
  EXPECT_EQ(saved_steps(shop.output()), (std::vector<std::int64_t>{6, 9}));
  run_well("train_fp8", shop.args({"--model_name", (shop.output() / "checkpoints" / "step-6").string(), "--output_dir",
                                   shop.path("next").string(), "--max_steps", "1"}));
}

// The tiny models answer nothing right; what is seen here is when they are asked and where it is written.
TEST(Runs, AnswersAreAskedForBeforeTheFirstStepAndWithEachEvaluation) {
  Workshop shop;
  const Finished run = run_well("train_fp8", shop.args({"--dataset_name", shop.math_rows(40).string(), "--num_epochs", "1", "--eval_answers", "3",
                                                        "--eval_answer_tokens", "5", "--eval_interval_steps", "4", "--eval_interval", "0",
                                                        "--batch_size", "4", "--log_interval", "1"}));
  EXPECT_EQ(metric(shop.output(), "Eval/Accuracy").size(), 4u);  // steps 0, 4, 8, 9
  EXPECT_EQ(metric(shop.output(), "Eval/Loss").size(), 3u);
  for (const char* file : {"step-0.jsonl", "step-4.jsonl", "step-8.jsonl", "step-9.jsonl"}) {
    EXPECT_EQ(read_jsonl(shop.output() / "answers" / file).size(), 3u) << file;
  }
  EXPECT_TRUE(run.says("answers at step 9: 0.0 % (0 of 3")) << run.err;
  // Being asked changes nothing.
  run_well("train_fp8", shop.args({"--dataset_name", shop.math_rows(40).string(), "--num_epochs", "1", "--batch_size", "4", "--output_dir",
                                   shop.path("unasked").string()}));
  EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), read_bytes(shop.path("unasked") / "model.safetensors"));
  const Finished plain = run_program("train_fp8", shop.args({"--eval_answers", "3", "--output_dir", shop.path("other").string()}));
  EXPECT_EQ(plain.code, 1);
  EXPECT_TRUE(plain.says("--eval_answers: rows of plain text have no problem to ask")) << plain.err;
}

TEST(Runs, HealthIsLookedAtNowAndThenAndChangesNothing) {
  Workshop shop;
  const Args fp8 = {"--mixed_precision", "fp8", "--num_epochs", "2", "--device", test_device(), "--deterministic"};
  Args watched = fp8;
  watched.insert(watched.end(), {"--health_interval", "3"});
  run_well("train_fp8", shop.args(watched));
  const std::vector<nlohmann::json> lines = read_jsonl(shop.output() / "health.jsonl");
  const std::int64_t steps = read_json(shop.output() / "run.json")["steps"]["done"].get<std::int64_t>();
  ASSERT_GE(steps, 3);
  EXPECT_EQ(lines.size(), static_cast<std::size_t>(steps / 3));
  EXPECT_EQ(metric(shop.output(), "health/weights_changed").size(), lines.size());
  EXPECT_EQ(metric(shop.output(), "health/fp8_zero_share/gradient").size(), lines.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["step"], 3 * (i + 1));
    EXPECT_FALSE(lines[i]["matrices"].empty());
  }
  Args alone = fp8;
  alone.insert(alone.end(), {"--health_interval", "0", "--output_dir", shop.path("alone").string()});
  run_well("train_fp8", shop.args(alone));
  EXPECT_FALSE(fs::exists(shop.path("alone") / "health.jsonl"));
  EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), read_bytes(shop.path("alone") / "model.safetensors"));
}

TEST(Runs, ShadowChecksAreLoggedAndChangeNothing) {
  Workshop shop;
  const Args fp8 = {"--mixed_precision", "fp8", "--num_epochs", "2", "--batch_size", "2", "--gradient_accumulation_steps", "2",
                    "--learning_rate", "1e-3", "--device", test_device(), "--deterministic"};
  const auto run_with = [&](const Args& more) {
    Args flags = fp8;
    flags.insert(flags.end(), more.begin(), more.end());
    return run_well("train_fp8", shop.args(flags));
  };
  const Finished checked = run_with({"--shadow_check_interval", "4"});
  run_with({"--output_dir", shop.path("alone").string()});
  EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), read_bytes(shop.path("alone") / "model.safetensors"));
  EXPECT_EQ(metric(shop.output(), "Train/Loss"), metric(shop.path("alone"), "Train/Loss"));
  for (const char* name : {"shadow/loss", "shadow/loss_difference", "shadow/gradient_cosine", "shadow/gradient_cosine_worst",
                           "shadow/gradient_norm_difference", "shadow/gradient_cosine/mlp.down_proj", "shadow/gradient_cosine/embed_tokens"}) {
    EXPECT_EQ(metric(shop.output(), name).size(), 4u) << name;  // steps 4, 8, 12, 16
    EXPECT_TRUE(metric(shop.path("alone"), name).empty()) << name;
  }
  for (const double cosine : metric(shop.output(), "shadow/gradient_cosine")) EXPECT_GT(cosine, 0.9);
  EXPECT_EQ(checked.count("against bf16: loss "), 4u) << checked.err;
}

TEST(Runs, ADryRunLooksAndWritesNothing) {
  Workshop shop;
  const Finished run = run_well("train_fp8", shop.args({"--dry_run", "--mixed_precision", "fp8", "--num_epochs", "2", "--device", test_device()}));
  EXPECT_TRUE(run.says("what ran in two steps with learning rate 0")) << run.err;
  EXPECT_TRUE(run.says("end of text")) << run.err;
  EXPECT_TRUE(run.says("disk")) << run.err;
  EXPECT_TRUE(run.says("2 evaluations of about")) << run.err;
  EXPECT_TRUE(run.says("nothing was trained, and nothing written")) << run.err;
  EXPECT_FALSE(fs::exists(shop.output()));
  EXPECT_FALSE(fs::exists(shop.logs()));
  // The run that it was about finds the way free.
  const Finished real = run_well("train_fp8", shop.args({"--mixed_precision", "fp8", "--num_epochs", "1"}));
  EXPECT_FALSE(real.says("nothing was trained")) << real.err;
}

TEST(Runs, OverwritingRemovesWhatTheEarlierRunKept) {
  Workshop shop;
  run_well("train_multi_gpu", shop.args({"--save_interval", "3", "--keep_checkpoints", "10"}));
  for (const char* folder : {"checkpoint_best", "checkpoints/step-3", "checkpoints/step-6"})
    ASSERT_TRUE(fs::exists(shop.output() / folder)) << folder;
  run_well("train_fp8", shop.args({"--overwrite", "--save_interval", "4"}));
  EXPECT_FALSE(fs::exists(shop.output() / "checkpoint_best"));
  EXPECT_FALSE(fs::exists(shop.output() / "checkpoints" / "step-3"));
  EXPECT_EQ(saved_steps(shop.output()), (std::vector<std::int64_t>{8, 9}));
  run_well("train_fp8", shop.args({"--overwrite", "--max_steps", "1", "--save_interval", "0"}));
  EXPECT_FALSE(fs::exists(shop.output() / "checkpoints"));
}

// Plain text needs no template, so a tokenizer without one's tokens is good enough.
TEST(Runs, PlainTextNeedsNoChatTemplate) {
  Workshop shop;
  const fs::path file = shop.path("model") / "tokenizer.json";
  nlohmann::json tokenizer = read_json(file);
  for (nlohmann::json& token : tokenizer.at("added_tokens")) {
    std::string content = token.at("content");
    if (content == "<|start_header_id|>") token["content"] = "<|something_else|>";
  }
  write_bytes(file, tokenizer.dump());
  const Finished run = run_well("train_fp8", shop.args({"--max_steps", "1"}));
  EXPECT_TRUE(run.says("chat template: none")) << run.err;
  EXPECT_EQ(read_json(shop.output() / "run.json").at("chat_template"), "none");
  // Conversations do.
  const Finished math = run_program(
      "train_fp8", shop.args({"--dataset_name", shop.math_rows(40).string(), "--max_steps", "1", "--overwrite"}));
  EXPECT_EQ(math.code, 2) << math.err;
  EXPECT_TRUE(math.says("--chat_template auto")) << math.err;
}

TEST(Runs, ConfigFileIsTheCommandLine) {
  Workshop shop;
  write_bytes(shop.path("run.yaml"), "mixed_precision: fp8\nmax_steps: 3\nlearning_rate: 1e-3\n");
  run_well("train_fp8", shop.args({"--config", shop.path("run.yaml").string(), "--max_steps", "2"}));
  const nlohmann::json flags = read_json(shop.output() / "run.json").at("flags");
  EXPECT_EQ(flags.at("mixed_precision").at("from"), "config file");
  EXPECT_EQ(flags.at("max_steps").at("value"), 2);
  EXPECT_EQ(metric(shop.output(), "Train/Loss").size(), 2u);
}

TEST(Runs, CompressedRowsGiveTheSameRun) {
  Workshop shop;
  const fs::path rows = shop.path("rows.jsonl");
  run_well("train_fp8", shop.args());
  const std::vector<double> losses = metric(shop.output(), "Train/Loss");
  fs::remove_all(shop.output());
  ASSERT_EQ(std::system(("gzip -k '" + rows.string() + "'").c_str()), 0);
  const std::string packed = rows.string() + ".gz";
  run_well("train_fp8", shop.args({"--dataset_name", packed}));
  EXPECT_EQ(metric(shop.output(), "Train/Loss"), losses);
  const std::string bytes = read_bytes(packed);
  write_bytes(packed, bytes.substr(0, bytes.size() - 9));
  fs::remove_all(shop.output());
  const Finished cut = run_program("train_fp8", shop.args({"--dataset_name", packed}));
  EXPECT_EQ(cut.code, 1);
  EXPECT_NE(cut.err.find("rows.jsonl.gz: cut off: it ends at byte " + std::to_string(bytes.size() - 9)),
            std::string::npos)
      << cut.err;
}

}  // namespace
}  // namespace llmfp8::testing
