// Command lines that cannot work, and runs that end before their end: a finished folder, a full disk, a signal, NaN.
#include <cstring>
#include <limits>

#include <gtest/gtest.h>

#include "e2e/workshop.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

// What a program that died halfway would leave behind.
void expect_no_remains(const fs::path& folder) {
  for (const std::string& file : files_below(folder)) {
    for (const char* mark : {".tmp", ".incomplete", ".writable"}) EXPECT_EQ(file.find(mark), std::string::npos) << file;
  }
  for (const char* name : {".model.incomplete", ".checkpoint_best.incomplete"})
    EXPECT_FALSE(fs::exists(folder / name)) << name;
}

void expect_error(const Finished& run, int code, const std::vector<std::string>& wanted) {
  EXPECT_EQ(run.code, code) << run.err;
  ASSERT_EQ(run.errors().size(), 1u) << run.err;
  for (const std::string& part : wanted)
    EXPECT_NE(run.errors()[0].find(part), std::string::npos) << part << " in\n" << run.err;
}

struct Line {
  Args flags;
  std::vector<std::string> wanted;
};

TEST(BadCommandLine, IsRefusedBeforeAnythingIsOpened) {
  const Line kLines[] = {
      {{"--bach_size", "4"}, {"--bach_size", "did you mean --batch_size"}},
      {{"--mixed_precision", "fp9"}, {"--mixed_precision fp9", "bf16", "fp8", "fp32"}},
      {{"--mixed_precision", "fp16"}, {"fp16", "use bf16"}},
      {{"--fp8_scenario", "mxpf8"}, {"--fp8_scenario mxpf8", "mxfp8"}},
      {{"--batch_size", "0"}, {"--batch_size 0", "from 1"}},
      {{"--batch_size", "many"}, {"--batch_size many", "whole number"}},
      {{"--max_seq_length", "0"}, {"--max_seq_length 0", "from 1"}},
      {{"--max_seq_length", "-5"}, {"--max_seq_length -5", "from 1"}},
      {{"--gradient_accumulation_steps", "0"}, {"--gradient_accumulation_steps 0"}},
      {{"--num_epochs", "0"}, {"--num_epochs 0"}},
      {{"--num_of_samples", "-1"}, {"--num_of_samples -1"}},
      {{"--learning_rate", "nan"}, {"--learning_rate nan", "number"}},
      {{"--adam_beta1", "1.0"}, {"--adam_beta1 1.0", "below 1"}},
      {{"--sharding_mode", "fsdp"}, {"--sharding_mode fsdp", "fsdp_full"}},
      {{"--template_date", "2026-11-32"}, {"--template_date", "2024-07-26"}},
      {{"--config", "no-such.yaml"}, {"--config no-such.yaml"}},
      {{"--model_name", ""}, {"--model_name"}},
      {{"--dataset_name="}, {"--dataset_name"}},
  };
  Workshop shop;
  for (const char* program : {"train_fp8", "train_multi_gpu"}) {
    for (const Line& line : kLines) {
      expect_error(run_program(program, shop.args(line.flags)), 2, line.wanted);
      EXPECT_FALSE(fs::exists(shop.output()));
    }
  }
  expect_error(run_program("train_fp8", {}), 2, {"--model_name"});
  expect_error(run_program("train_fp8", {"--output_dir"}), 2, {"--output_dir", "missing"});
}

// With or without the CUDA backend in this build: no GPU can be seen.
TEST(BadRun, DeviceThatIsNotThere) {
  Workshop shop;
  const RunOptions hidden{.environment = {{"CUDA_VISIBLE_DEVICES", "-1"}}};
  expect_error(run_program("train_fp8", shop.args({"--device", "cuda"}), hidden), 1, {"--device cuda"});
  expect_no_remains(shop.output());
}

TEST(BadRun, OutputFolderThatCannotBeWritten) {
  Workshop shop;
  const fs::path file = shop.path("rows.jsonl");
  expect_error(run_program("train_fp8", shop.args({"--output_dir", file.string()})), 1,
               {"--output_dir", "file", "folder"});
  expect_error(run_program("train_fp8", shop.args({"--output_dir", (file / "below").string()})), 1,
               {"--output_dir", "rows.jsonl"});
  expect_error(run_program("train_fp8", shop.args({"--output_dir", "/proc/llmfp8"})), 1,
               {"--output_dir", "/proc/llmfp8"});
  expect_error(run_program("train_fp8", shop.args({"--log_dir", file.string()})), 1, {"--log_dir", "rows.jsonl"});
  EXPECT_FALSE(fs::exists(shop.output()));
}

TEST(BadRun, DiskFullAtTheEnd) {
  Workshop shop;
  // The model has some 400 kB; everything else of a run is smaller than 64 kB.
  expect_error(run_program("train_fp8", shop.args({"--max_steps", "2"}), {.max_file_bytes = 64 << 10}), 1,
               {"model.safetensors", "File too large"});
  EXPECT_FALSE(fs::exists(shop.output() / "model.safetensors"));
  expect_no_remains(shop.output());
  EXPECT_EQ(read_json(shop.output() / "run.json").at("state"), "stopped: an error");
  // The folder holds no finished run, so the same command works once there is room.
  EXPECT_EQ(run_program("train_fp8", shop.args({"--max_steps", "2"})).code, 0);
}

TEST(BadRun, FinishedFolderIsKept) {
  Workshop shop;
  ASSERT_EQ(run_program("train_fp8", shop.args({"--max_steps", "2", "--save_interval", "0"})).code, 0);
  const std::string model = read_bytes(shop.output() / "model.safetensors");
  const std::vector<std::string> files = files_below(shop.output());

  expect_error(run_program("train_fp8", shop.args({"--max_steps", "3"})), 1,
               {"--output_dir", "finished run", "--overwrite"});
  EXPECT_EQ(files_below(shop.output()), files);
  EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), model);

  // A full disk: the old model stays whole.
  expect_error(run_program("train_fp8", shop.args({"--max_steps", "3", "--overwrite"}), {.max_file_bytes = 64 << 10}),
               1, {"model.safetensors"});
  EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), model);
  expect_no_remains(shop.output());

  ASSERT_EQ(run_program("train_fp8", shop.args({"--max_steps", "3", "--overwrite", "--learning_rate", "1e-2", "--save_interval", "0"})).code, 0);
  EXPECT_EQ(files_below(shop.output()), files);
  EXPECT_NE(read_bytes(shop.output() / "model.safetensors"), model);
}

void put_nan(const fs::path& model) {
  Safetensors file = Safetensors::read(model / "model.safetensors");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::size_t at = file.header.at("model.norm.weight").at("data_offsets").at(0);
  std::memcpy(file.data.data() + at, &nan, sizeof nan);
  file.write(model / "model.safetensors");
}

TEST(BadRun, WeightsThatAreNotFinite) {
  Workshop shop;
  ASSERT_EQ(run_program("train_fp8", shop.args({"--max_steps", "2"})).code, 0);
  const std::string model = read_bytes(shop.output() / "model.safetensors");
  put_nan(shop.path("model"));
  expect_error(run_program("train_fp8", shop.args({"--overwrite"})), 1, {"step 1", "not finite"});
  EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), model);

  expect_error(run_program("train_fp8", shop.args({"--output_dir", shop.path("new").string()})), 1,
               {"step 1", "not finite", "--debug_mode names the operation"});
  EXPECT_FALSE(fs::exists(shop.path("new") / "model.safetensors"));
  const nlohmann::json kept = read_json(shop.path("new") / "run.json");
  EXPECT_EQ(kept.at("state"), "stopped: not finite");
  EXPECT_NE(kept.at("error").get<std::string>().find("of step 1 is not finite; nothing has been trained"), std::string::npos) << kept.at("error");

  expect_error(run_program("train_fp8", shop.args({"--output_dir", shop.path("debug").string(), "--debug_mode"})), 1,
               {"step 1 is not finite: weight model.norm.weight", "first NaN at [0, 0]"});
}

TEST(BadRun, LossThatBecomesInfiniteKeepsTheLastGoodState) {
  Workshop shop;
  // A learning rate beyond reason: the first steps pass, then something overflows.
  const Finished run = run_program(
      "train_fp8", shop.args({"--learning_rate", "1e38", "--lr_scheduler", "constant", "--max_grad_norm", "0", "--debug_mode"}));
  expect_error(run, 1, {"not finite", "saved in", ": first "});
  ASSERT_TRUE(fs::exists(shop.output() / "model.safetensors"));
  const nlohmann::json json = read_json(shop.output() / "run.json");
  EXPECT_EQ(json.at("state"), "stopped: not finite");
  EXPECT_GE(json.at("steps").at("done").get<int>(), 1);
  expect_no_remains(shop.output());
}

TEST(BadRun, AStepThatIsNotFiniteStopsOrIsSkipped) {
  Workshop shop;
  shop.poison_row(11);
  const Args fp8 = {"--mixed_precision", "fp8", "--learning_rate", "1e-3", "--num_epochs", "2"};
  const auto with = [&](const char* folder, const Args& more) {
    Args flags = fp8;
    flags.insert(flags.end(), more.begin(), more.end());
    flags.insert(flags.end(), {"--output_dir", shop.path(folder).string()});
    return run_program("train_fp8", shop.args(flags));
  };
  expect_error(with("stop", {}), 1, {"loss nan or gradient norm nan is not finite; stopped, and the weights of step", "saved in"});
  EXPECT_FALSE(read_json(shop.path("stop") / "run.json").contains("skipped_steps"));

  const Finished run = with("skip", {"--on_nonfinite", "skip"});
  EXPECT_EQ(run.code, 0) << run.err;
  const fs::path out = shop.path("skip");
  const std::vector<std::int64_t> skipped = read_json(out / "run.json").at("skipped_steps");
  ASSERT_EQ(skipped.size(), 2u);  // once in each epoch
  EXPECT_GT(skipped[0], 1);
  EXPECT_GT(skipped[1], 9);
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string line = "warning: step " + std::to_string(skipped[i]) + ": loss nan or gradient norm nan is not finite; skipped, " +
                             std::to_string(i + 1) + " so far (4 rows of the data set (";
    EXPECT_EQ(run.count(line), 1u) << line << "\n" << run.err;
  }
  EXPECT_EQ(run.count("warning:"), 2u) << run.err;
  EXPECT_TRUE(run.says("done: 18 steps") && run.says(", 2 steps skipped as not finite")) << run.err;
  EXPECT_EQ(read_json(out / "run.json").at("state"), "finished");
  EXPECT_EQ(read_json(out / "run.json").at("steps").at("done"), 18);
  EXPECT_EQ(read_json(out / "summary.json").at("skipped_steps"), 2);
  const std::vector<double> counts = metric(out, "Train/SkippedSteps");
  ASSERT_EQ(counts.size(), 18u);
  EXPECT_EQ(counts[static_cast<std::size_t>(skipped[0]) - 2], 0);
  EXPECT_EQ(counts[static_cast<std::size_t>(skipped[0]) - 1], 1);
  EXPECT_EQ(counts.back(), 2);
  EXPECT_EQ(metric(out, "Train/Loss").size(), 16u);  // a skipped step has none
  EXPECT_EQ(metric(out, "Train/LearningRate").size(), 18u);
  // Until then it is the run that stops.
  const std::vector<double> before = metric(shop.path("stop"), "Train/Loss"), losses = metric(out, "Train/Loss");
  ASSERT_EQ(static_cast<std::int64_t>(before.size()), skipped[0] - 1);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), losses.begin()));

  // Looks at every step, the skipped ones too, change nothing.
  const Finished watched = with("watched", {"--on_nonfinite", "skip", "--health_interval", "1", "--shadow_check_interval", "1", "--debug_mode"});
  EXPECT_EQ(watched.code, 0) << watched.err;
  EXPECT_EQ(watched.count("is not finite: weight model.embed_tokens.weight"), 2u) << watched.err;
  EXPECT_EQ(watched.count("against bf16: loss nan"), 2u) << watched.err;
  EXPECT_EQ(read_bytes(out / "model.safetensors"), read_bytes(shop.path("watched") / "model.safetensors"));
  EXPECT_EQ(losses, metric(shop.path("watched"), "Train/Loss"));
}

TEST(BadRun, TenStepsInARowAreNotSkipped) {
  Workshop shop;
  const Finished run = run_program("train_fp8", shop.args({"--learning_rate", "1e38", "--lr_scheduler", "constant", "--max_grad_norm", "0",
                                                           "--num_epochs", "4", "--on_nonfinite", "skip"}));
  expect_error(run, 1, {"is not finite, as in the 9 steps before it, which --on_nonfinite skip has left out; stopped", "saved in"});
  const nlohmann::json json = read_json(shop.output() / "run.json");
  EXPECT_EQ(json.at("state"), "stopped: not finite");
  EXPECT_EQ(json.at("skipped_steps").size(), 9u);
  EXPECT_EQ(json.at("skipped_steps").back(), json.at("steps").at("done"));
  // Taken up again, the tenth is still the tenth.
  const Finished again = run_program("train_fp8", shop.args({"--learning_rate", "1e38", "--lr_scheduler", "constant", "--max_grad_norm", "0",
                                                             "--num_epochs", "4", "--on_nonfinite", "skip", "--resume"}));
  expect_error(again, 1, {"as in the 9 steps before it"});
  EXPECT_EQ(again.count("; skipped, "), 0u) << again.err;

  Workshop nan;
  put_nan(nan.path("model"));
  expect_error(run_program("train_fp8", nan.args({"--num_epochs", "2", "--on_nonfinite", "skip"})), 1,
               {"of step 10 is not finite, as in the 9 steps before it", "nothing has been trained or saved"});
  expect_error(run_program("train_fp8", nan.args({"--on_nonfinite", "skip"})), 1,
               {"not one of 9 steps was learnt from: 9 skipped as not finite"});
  EXPECT_FALSE(fs::exists(nan.output() / "model.safetensors"));
}

TEST(BadRun, SequenceOfOneToken) {
  Workshop shop;
  expect_error(run_program("train_fp8", shop.args({"--max_seq_length", "1"})), 1, {"supervised", "max_seq_length 1"});
  EXPECT_FALSE(fs::exists(shop.output()));
}

TEST(BadRun, SeveralRanks) {
  Workshop shop;
  for (const std::string variable :
       {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    expect_error(run_program("train_multi_gpu", shop.args(), {.environment = {{variable, "2"}}}), 1, {variable + "=2"});
    EXPECT_FALSE(fs::exists(shop.output()));
  }
}

TEST(BadRun, RowsWithoutTextAreLeftOutAndCounted) {
  Workshop shop;
  const std::string good = read_bytes(shop.path("rows.jsonl"));
  write_bytes(shop.path("rows.jsonl"), good + "{\"text\": \"\"}\n{\"text\": null}\n");
  const Finished run = run_program("train_fp8", shop.args({"--max_steps", "1"}));
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.count("warning: 2 rows left out: 1 without a value, 1 empty"), 1u) << run.err;
}

TEST(BadRun, MoreSamplesAskedForThanThereAre) {
  Workshop shop;
  const Finished run = run_program("train_fp8", shop.args({"--max_steps", "1", "--num_of_samples", "1000"}));
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(read_json(shop.output() / "run.json").at("rows").at("train"), 36);
  EXPECT_EQ(run.count("warning: --num_of_samples 1000: split train_1M has 40 rows, all of them are taken"), 1u) << run.err;
}

TEST(BadRun, InterruptBeforeTheFirstStepLeavesNothing) {
  Workshop shop;
  shop.text_rows(300'000);  // takes long enough to be tokenised
  const Finished run =
      run_program("train_fp8", shop.args(), {.interrupt_when = [&] { return fs::exists(shop.output()); }});
  EXPECT_EQ(run.code, 130) << run.err;
  EXPECT_TRUE(run.errors().empty()) << run.err;
  EXPECT_TRUE(run.says("stopped before the first step; nothing was saved")) << run.err;
  EXPECT_FALSE(run.says("memory")) << run.err;  // it did not go on to the end of its preparations
  EXPECT_FALSE(fs::exists(shop.output()));
}

// Rows whose answers are all cut off.
fs::path rows_without_labels(Workshop& shop, int good) {
  std::string text;
  for (int i = 0; i < 40; ++i) {
    const std::string prompt = i < good ? "1+1=" : std::string(200, 'x');
    text += nlohmann::json{{"prompt", prompt}, {"completion", "2"}}.dump() + "\n";
  }
  write_bytes(shop.path("cut.jsonl"), text);
  return shop.path("cut.jsonl");
}

TEST(BadRun, StepsWithoutLabels) {
  Workshop shop;
  const Args args = {"--dataset_name", rows_without_labels(shop, 6).string(), "--loss_on", "completion", "--batch_size",
                     "1", "--eval_interval", "0"};
  Args saving = args;
  saving.insert(saving.end(), {"--save_interval", "5", "--keep_checkpoints", "100"});
  const Finished run = run_program("train_fp8", shop.args(saving));
  EXPECT_EQ(run.code, 0) << run.err;
  // 36 rows are trained on; a row with a label may be among the four that are held out.
  const std::size_t learnt = metric(shop.output(), "Train/Loss").size();
  EXPECT_LE(learnt, 6u);
  EXPECT_GE(learnt, 2u);
  EXPECT_EQ(run.count("has no supervised token: nothing was learnt from it"), 36 - learnt) << run.err;
  EXPECT_EQ(metric(shop.output(), "Train/Progress").size(), 36u);
  EXPECT_EQ(read_json(shop.output() / "run.json").at("steps").at("done"), 36);
  // Seven saves, more than there are steps with a label.
  for (int step = 5; step < 36; step += 5)
    EXPECT_TRUE(fs::exists(shop.output() / "checkpoints" / ("step-" + std::to_string(step)))) << step;

  // A run that ends before the first row with a label.
  Args none = args;
  none.insert(none.end(), {"--max_steps", "1", "--output_dir", shop.path("none").string()});
  bool seen = false;
  for (int seed = 0; seed < 20 && !seen; ++seed) {
    Args with_seed = none;
    with_seed.insert(with_seed.end(), {"--seed", std::to_string(seed)});
    const Finished one = run_program("train_fp8", shop.args(with_seed));
    if (one.code == 0) {
      fs::remove_all(shop.path("none"));
      continue;
    }
    seen = true;
    expect_error(one, 1, {"not one of 1 step has a supervised token"});
    EXPECT_FALSE(fs::exists(shop.path("none") / "model.safetensors"));
    EXPECT_EQ(read_json(shop.path("none") / "run.json").at("state"), "stopped: nothing learnt");
  }
  EXPECT_TRUE(seen);
}

TEST(BadRun, InterruptSavesAndExits130) {
  Workshop shop;
  const auto has_logged = [&] {
    std::error_code ignored;
    return fs::exists(shop.output() / "metrics.jsonl") && fs::file_size(shop.output() / "metrics.jsonl", ignored) > 100;
  };
  const Finished run = run_program("train_fp8", shop.args({"--num_epochs", "5000"}), {.interrupt_when = has_logged});
  EXPECT_EQ(run.code, 130) << run.err;
  EXPECT_TRUE(run.errors().empty()) << run.err;
  EXPECT_TRUE(fs::exists(shop.output() / "model.safetensors"));
  const nlohmann::json json = read_json(shop.output() / "run.json");
  EXPECT_EQ(json.at("state"), "stopped by a signal");
  EXPECT_GE(json.at("steps").at("done").get<int>(), 1);
  EXPECT_LT(json.at("steps").at("done").get<int>(), json.at("steps").at("total").get<int>());
  expect_no_remains(shop.output());
  // What was saved can be trained on.
  EXPECT_EQ(run_program("train_fp8", shop.args({"--model_name", shop.output().string(), "--output_dir",
                                                shop.path("next").string(), "--max_steps", "1"}))
                .code,
            0);
}

}  // namespace
}  // namespace llmfp8::testing
