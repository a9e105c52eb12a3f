// llm-fp8 eval --loss: the numbers of a run's own evaluation, from what the run has written; and what it refuses.
#include <gtest/gtest.h>

#include "e2e/checkpoints.h"

namespace llmfp8::testing {
namespace {

// The trainer's evaluation ran on one thread, too.
const RunOptions kOneThread = {.environment = {{"LLMFP8_NUM_THREADS", "1"}}};

Args eval_args(const Args& more) {
  Args args = {"eval", "--device", test_device(), "--loss", "--json"};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

nlohmann::json measured(const Args& more) {
  const Finished run = run_program("llm-fp8", eval_args(more), kOneThread);
  EXPECT_EQ(run.code, 0) << run.err;
  return run.code == 0 ? nlohmann::json::parse(run.out) : nlohmann::json::object();
}

// The evaluation that the run logged last: loss, perplexity, tokens.
void expect_last_evaluation(const nlohmann::json& found, const fs::path& output) {
  ASSERT_TRUE(found.contains("loss")) << found;
  EXPECT_EQ(found.at("loss").get<double>(), metric(output, "Eval/Loss").back());
  EXPECT_EQ(found.at("perplexity").get<double>(), metric(output, "Eval/Perplexity").back());
  EXPECT_EQ(found.at("tokens").get<double>(), metric(output, "Eval/Tokens").back());
}

TEST(Eval, LossOfWhatARunWroteIsTheRunsOwn) {
  for (const Args& precision : {Args{"--mixed_precision", "fp8"}, Args{"--mixed_precision", "fp32"}}) {
    for (const char* golden : {"llama_tied", "qwen2"}) {
      SCOPED_TRACE(precision.back() + " " + golden);
      Workshop shop;
      shop.model(golden);
      Args flags = precision;
      flags.insert(flags.end(), {"--learning_rate", "1e-3", "--num_of_samples", "37", "--eval_batch_size", "3"});
      run_well("train_fp8", shop.args(flags));
      ASSERT_GT(metric(shop.output(), "Eval/Loss").back(), 0.0);
      // The run's flags stand in its folder, and in those of its checkpoints.
      const nlohmann::json found = measured({"--model", shop.output().string()});
      expect_last_evaluation(found, shop.output());
      EXPECT_EQ(found.at("rows"), 4);
      // The model's own dtype is bf16: a checkpoint of an fp32 run holds the rest of the weights beside it.
      if (precision.back() == "fp8") expect_last_evaluation(measured({"--model", (shop.output() / "checkpoints/step-9").string()}), shop.output());
      // Typed out, for a folder that is no run's.
      const fs::path bare = shop.path("bare");
      fs::create_directories(bare);
      for (const char* file : {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"})
        fs::copy_file(shop.output() / file, bare / file);
      expect_last_evaluation(measured({"--model", bare.string(), "--dataset_name", shop.path("rows.jsonl").string(), "--held_out",
                                       "--num_of_samples", "37", "--max_seq_length", "64", "--eval_batch_size", "3", "--dtype",
                                       precision.back() == "fp8" ? "bf16" : "f32"}),
                             shop.output());
    }
  }
}

TEST(Eval, LossMasksPromptsAndAnswersAreTheTrainersProblems) {
  Workshop shop;
  const std::string rows = shop.math_rows(40).string();
  run_well("train_fp8", shop.args({"--dataset_name", rows, "--loss_on", "completion", "--max_seq_length", "256", "--eval_max_rows", "3",
                                   "--eval_answers", "3", "--eval_answer_tokens", "5", "--learning_rate", "1e-3"}));
  const std::string out = shop.path("answers.jsonl").string();
  const nlohmann::json found = measured({"--model", shop.output().string(), "--answers", "--rows", "3", "--max_new_tokens", "5", "--out", out});
  expect_last_evaluation(found, shop.output());
  EXPECT_EQ(found.at("problems"), 3);
  EXPECT_EQ(found.at("accuracy").get<double>(), metric(shop.output(), "Eval/Accuracy").back());
  EXPECT_EQ(read_bytes(out), read_bytes(shop.output() / "answers/step-9.jsonl"));
  // Every token instead, on all rows of a data set that was typed.
  const nlohmann::json all = measured({"--model", shop.output().string(), "--dataset_name", rows, "--loss_on", "all"});
  EXPECT_EQ(all.at("rows"), 40);
  EXPECT_GT(all.at("tokens").get<double>(), 5 * found.at("tokens").get<double>());
}

TEST(Eval, RefusesInOneLine) {
  Workshop shop;
  const std::string model = shop.path("model").string(), rows = shop.path("rows.jsonl").string();
  const struct {
    Args args;
    int code;
    const char* says;
  } refusals[] = {
      {{"--model", model}, 2, "--dataset_name is missing"},
      {{"--model", model, "--dataset_name", rows, "--loss=false", "--no-answers"}, 2, "nothing to do"},
      {{"--model", model, "--dataset_name", rows, "--loss=false", "--max_seq_length", "8"}, 2, "--max_seq_length has no meaning without --loss"},
      {{"--model", model, "--dataset_name", rows, "--out", "x"}, 2, "--out has no meaning without --answers"},
      {{"--model", model, "--dataset_name", rows, "--max_seq_length", "0"}, 2, "--max_seq_length"},
      {{"--model", model, "--dataset_name", rows, "--answers"}, 1, "no row has a problem and an answer"},
      {{"--model", model, "--dataset_name", rows, "--max_seq_length", "1"}, 1, "no supervised token"},
      {{"--model", model, "--dataset_name", rows, "--num_of_samples", "1", "--held_out"}, 1, ""},
      {{"--model", shop.path("none").string(), "--dataset_name", rows}, 2, "is neither a folder, nor a .gguf file"},
  };
  for (const auto& refusal : refusals) {
    const Finished run = run_program("llm-fp8", eval_args(refusal.args), kOneThread);
    EXPECT_EQ(run.code, refusal.code) << run.err;
    EXPECT_EQ(run.out, "");
    ASSERT_EQ(run.errors().size(), 1u) << run.err;
    EXPECT_NE(run.errors()[0].find(refusal.says), std::string::npos) << run.errors()[0];
  }
  // A record that cannot be read is only no source of defaults.
  write_bytes(shop.path("model/run.json"), "{\"flags\": [");
  const Finished run = run_program("llm-fp8", eval_args({"--model", model, "--dataset_name", rows}), kOneThread);
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.count("warning: "), 1u) << run.err;
}

}  // namespace
}  // namespace llmfp8::testing
