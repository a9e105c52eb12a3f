// The command line: the commands of the contract, defaults, ranges, refusals, --help, run.json.
#include "cli/run_config.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "cli/did_you_mean.h"
#include "cli/options.h"
#include "core/error.h"
#include "report/text_table.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

std::vector<std::string> words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> out;
  for (std::string word; in >> word;) out.push_back(word);
  return out;
}

RunConfig parse(Program program, const std::string& command) {
  return parse_command_line(program, words(command)).config;
}

// With the two flags that every run needs.
RunConfig parse_with(const std::string& flags, Program program = Program::train_fp8) {
  return parse(program, "--model_name m --dataset_name d " + flags);
}

// What a user reads; "" when nothing was wrong.
std::string error_of(const std::vector<std::string>& args, Program program = Program::train_fp8) {
  try {
    parse_command_line(program, args);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "";
}

std::string error_with(const std::string& flags, Program program = Program::train_fp8) {
  return error_of(words("--model_name m --dataset_name d " + flags), program);
}

TEST(Commands, TrainFp8) {
  const std::string base = "--dataset_name nvidia/OpenMathInstruct-2 --max_seq_length 1024 --split_name train_1M ";
  const std::string wandb = " --use_wandb --wandb_project llm-fp8 --wandb_run_name llama32-1b-fp8";
  const RunConfig first =
      parse(Program::train_fp8,
            base + "--model_name meta-llama/Llama-3.2-1B --batch_size 12 --mixed_precision fp8 --use_te" + wandb);
  EXPECT_EQ(first.model_name, "meta-llama/Llama-3.2-1B");
  EXPECT_EQ(first.dataset_name, "nvidia/OpenMathInstruct-2");
  EXPECT_EQ(first.batch_size, 12);
  EXPECT_EQ(first.eval_batch_size, 12);
  EXPECT_EQ(first.mixed_precision, MixedPrecision::fp8);
  EXPECT_EQ(first.max_seq_length, 1024);
  EXPECT_EQ(first.split_name, "train_1M");
  EXPECT_TRUE(first.use_te);
  EXPECT_TRUE(first.use_wandb);
  EXPECT_EQ(first.wandb_run_name, "llama32-1b-fp8");
  EXPECT_EQ(first.wandb_project, "llm-fp8");

  EXPECT_EQ(parse(Program::train_fp8,
                  base + "--model_name meta-llama/Llama-3.2-3B --batch_size 12 --mixed_precision fp8 --use_te")
                .batch_size,
            12);
  EXPECT_EQ(parse(Program::train_fp8,
                  base + "--model_name meta-llama/Meta-Llama-3.1-8B --batch_size 8 --mixed_precision fp8 --use_te")
                .batch_size,
            8);
  const RunConfig qwen =
      parse(Program::train_fp8, base + "--model_name Qwen/Qwen2.5-14B --batch_size 4 --mixed_precision fp8");
  EXPECT_EQ(qwen.batch_size, 4);
  EXPECT_FALSE(qwen.use_te);
  EXPECT_EQ(parse(Program::train_fp8, base + "--model_name m --mixed_precision fp8 --fp8_scenario mxfp8").fp8_scenario,
            Fp8Scenario::mxfp8);
  EXPECT_EQ(parse(Program::train_fp8, base + "--model_name m --mixed_precision bf16").mixed_precision,
            MixedPrecision::bf16);

  const RunConfig last =
      parse(Program::train_fp8,
            "--model_name meta-llama/Llama-3.2-1B --dataset_name nvidia/OpenMathInstruct-2 --batch_size 8 "
            "--mixed_precision fp8 --max_seq_length 512 --split_name train_1M --num_epochs 1 --use_te");
  EXPECT_EQ(last.num_epochs, 1);
  EXPECT_EQ(last.max_seq_length, 512);
}

TEST(Commands, TrainMultiGpu) {
  const std::string command =
      "--model_name meta-llama/Llama-3.2-3B --dataset_name nvidia/OpenMathInstruct-2 --batch_size 1 --mixed_precision "
      "fp8 --use_te "
      "--gradient_checkpointing --max_seq_length 512 --learning_rate 1e-5 --gradient_accumulation_steps 4 "
      "--empty_cache_freq 25 ";
  const RunConfig config = parse(Program::train_multi_gpu, command + "--sharding_mode ddp");
  EXPECT_EQ(config.batch_size, 1);
  EXPECT_EQ(config.sharding_mode, ShardingMode::ddp);
  EXPECT_TRUE(config.gradient_checkpointing);
  EXPECT_EQ(config.recompute, Recompute::block);
  EXPECT_EQ(config.learning_rate, 1e-5);
  EXPECT_EQ(config.gradient_accumulation_steps, 4);
  EXPECT_EQ(config.empty_cache_freq, 25);

  // The command of the contract itself: every flag is known, and what is missing is said.
  EXPECT_EQ(error_of(words(command + "--sharding_mode fsdp_full"), Program::train_multi_gpu),
            "--sharding_mode fsdp_full: sharding over several devices is not built yet, use auto or ddp on one device");
}

// The contract's table, written out again on purpose: "flag train_fp8 train_multi_gpu".
TEST(Defaults, EqualTheContract) {
  const std::vector<std::array<const char*, 3>> table = {
      {"dataset_text_field", "text", "text"},
      {"use_te", "false", "false"},
      {"mixed_precision", "bf16", "bf16"},
      {"fp8_scenario", "default", "default"},
      {"batch_size", "8", "8"},
      {"eval_batch_size", "8", "8"},
      {"max_seq_length", "256", "1024"},
      {"gradient_accumulation_steps", "1", "1"},
      {"num_epochs", "3", "3"},
      {"num_warmup_steps", "100", "100"},
      {"learning_rate", "1.41e-05", "5e-05"},
      {"split_name", "train_1M", "train_1M"},
      {"num_of_samples", "0", "0"},
      {"log_dir", "./runs", "./runs"},
      {"output_dir", "./saved_model", "./checkpoints"},
      {"use_wandb", "false", "false"},
      {"wandb_project", "llm-fp8", "llm-fp8-advanced"},
      {"wandb_run_name", "", ""},
      {"weights_cache_dir", "", "./model_cache"},
      {"sharding_mode", "auto", "auto"},
      {"cpu_offload", "false", "false"},
      {"gradient_checkpointing", "false", "false"},
      {"memory_efficient_attention", "false", "false"},
      {"compile_model", "false", "false"},
      {"empty_cache_freq", "50", "50"},
      {"log_interval", "50", "10"},
      {"save_interval", "1000", "1000"},
      {"save_ahead", "auto", "auto"},
      {"eval_interval", "1", "1"},
      {"num_proc", "8", "8"},
      {"num_workers", "4", "4"},
      {"debug_mode", "false", "false"},
      {"profile_memory", "false", "false"},
      {"adam_beta1", "0.9", "0.9"},
      {"adam_beta2", "0.999", "0.95"},
      {"adam_eps", "1e-08", "1e-08"},
      {"weight_decay", "0.01", "0.01"},
      {"max_grad_norm", "1.0", "1.0"},
      {"lr_scheduler", "linear", "cosine"},
      {"seed", "42", "42"},
      {"device", "auto", "auto"},
      {"resume", "", ""},
      {"config", "", ""},
      {"packing", "false", "false"},
      {"loss_on", "all", "all"},
      {"chat_template", "auto", "auto"},
      {"fp8_strict", "false", "false"},
      {"fp8_emulate", "false", "false"},
      {"fp8_lm_head", "false", "false"},
      {"fp8_start", "calibrate", "calibrate"},
      {"optim_state", "fp32", "fp32"},
      {"weight_update", "exact", "exact"},
      {"grad_dtype", "auto", "auto"},
      {"recompute", "none", "none"},
      {"eval_interval_steps", "0", "0"},
      {"health_interval", "100", "100"},
      {"eval_answers", "0", "0"},
      {"eval_answer_tokens", "256", "256"},
      {"eval_max_rows", "0", "0"},
      {"max_steps", "0", "0"},
  };
  const RunConfig fp8 = parse_with("");
  const RunConfig multi = parse_with("", Program::train_multi_gpu);
  for (const auto& [flag, fp8_default, multi_default] : table) {
    EXPECT_EQ(flag_text(fp8, flag), fp8_default) << flag;
    EXPECT_EQ(flag_text(multi, flag), multi_default) << flag;
  }
  EXPECT_TRUE(program_rules(Program::train_fp8).decay_bias_and_norm);
  EXPECT_FALSE(program_rules(Program::train_fp8).drop_last);
  EXPECT_FALSE(program_rules(Program::train_multi_gpu).decay_bias_and_norm);
  EXPECT_TRUE(program_rules(Program::train_multi_gpu).drop_last);
}

TEST(Table, BothProgramsHaveTheSameFlags) {
  std::vector<std::string> fp8, multi;
  for (const Option& option : option_table(Program::train_fp8)) fp8.push_back(option.name);
  for (const Option& option : option_table(Program::train_multi_gpu)) multi.push_back(option.name);
  EXPECT_EQ(fp8, multi);
  std::sort(fp8.begin(), fp8.end());
  EXPECT_EQ(std::adjacent_find(fp8.begin(), fp8.end()), fp8.end());
}

// A flag bound to another flag's member would pass every test of defaults alone.
TEST(Table, EachFlagChangesItselfOnly) {
  for (const Program program : {Program::train_fp8, Program::train_multi_gpu}) {
    for (const Option& option : option_table(program)) {
      RunConfig config = default_config(program);
      const std::string before = option_text(option, config);
      std::string other = "5";
      if (option.is_switch()) other = "true";
      if (option.value_name == "X") other = "0.25";
      for (const Choice& choice : option.choices) {
        if (choice.name != before) other = choice.name;
      }
      ASSERT_TRUE(option.assign(config, other)) << option.name;
      EXPECT_EQ(option_text(option, config), other) << option.name;
      EXPECT_NE(option_text(option, config), before) << option.name;
      int changed = 0;
      for (const Option& each : option_table(program)) {
        changed += option_text(each, config) != option_text(each, default_config(program)) ? 1 : 0;
      }
      EXPECT_EQ(changed, 1) << option.name;
    }
  }
}

TEST(Syntax, ValuesAndSwitches) {
  EXPECT_EQ(parse_with("--batch_size=12").batch_size, 12);
  EXPECT_EQ(parse_with("--batch_size 3 --batch_size 4").batch_size, 4);
  EXPECT_TRUE(parse_with("--use_te --packing").use_te);
  EXPECT_TRUE(parse_with("--use_te true --packing").packing);
  EXPECT_FALSE(parse_with("--use_te False").use_te);
  EXPECT_FALSE(parse_with("--use_te=false").use_te);
  EXPECT_FALSE(parse_with("--use_te --no-use_te").use_te);
  EXPECT_FALSE(parse_with("--use_te --no_use_te").use_te);
  EXPECT_EQ(parse_with("--num_of_samples all").num_of_samples, 0);
  EXPECT_EQ(parse_with("--wandb_run_name=a=b").wandb_run_name, "a=b");
  EXPECT_EQ(parse_with("--batch_size 3 --eval_batch_size 5").eval_batch_size, 5);
  EXPECT_EQ(parse_with("--optim_state 8bit").optim_state, OptimState::eight_bit);
  EXPECT_EQ(parse_with("--grad_dtype bf16").grad_dtype, GradPrecision::bf16);
  EXPECT_TRUE(parse_with("--recompute block").gradient_checkpointing);
  const char* argv[] = {"train_fp8", "--model_name", "m", "--dataset_name", "d"};
  EXPECT_EQ(parse_command_line(Program::train_fp8, 5, argv).config.model_name, "m");
}

TEST(Errors, OneLineThatNamesFlagFoundAndWanted) {
  EXPECT_EQ(error_with("--batchsize 3"), "unknown flag --batchsize, did you mean --batch_size?");
  EXPECT_EQ(error_with("--batch-size 3"), "unknown flag --batch-size, did you mean --batch_size?");
  EXPECT_EQ(error_with("--epochs=3"), "unknown flag --epochs, did you mean --num_epochs?");
  EXPECT_EQ(error_with("--usete"), "unknown flag --usete, did you mean --use_te?");
  EXPECT_EQ(error_with("--hepl"), "unknown flag --hepl, did you mean --help?");
  EXPECT_EQ(error_with("--qqqqq 3"), "unknown flag --qqqqq (--help lists all flags)");
  EXPECT_EQ(error_with("--"), "unknown flag -- (--help lists all flags)");
  EXPECT_EQ(error_with("--help=3"), "--help takes no value");
  EXPECT_EQ(error_with("--no-packing=true"), "--no-packing takes no value, found true");
  EXPECT_EQ(error_with("stray"), "unexpected argument stray (a flag begins with --)");
  EXPECT_EQ(error_with("--learning_rate --use_te"),
            "--learning_rate: the value is missing, wanted a number at least 0");
  EXPECT_EQ(error_with("--batch_size 0"), "--batch_size 0: wanted a whole number from 1 to 1048576");
  EXPECT_EQ(error_with("--mixed_precision fp9"), "--mixed_precision fp9: wanted one of bf16, fp8, fp32");
  EXPECT_EQ(error_with("--use_te=maybe"), "--use_te maybe: wanted true or false");
  EXPECT_EQ(error_of({"--model_name", "m", "--dataset_name", "d", "--output_dir", ""}),
            "--output_dir \"\": wanted a value that is not empty");
  EXPECT_EQ(error_of({"--dataset_name", "d"}),
            "--model_name is missing: a hub name, a folder or a .gguf file");
  EXPECT_EQ(error_of({"--batch_size", "1\n\x1b[2J"}), "--batch_size 1??[2J: wanted a whole number from 1 to 1048576");
  EXPECT_NE(error_of({"--model_name", "m"}).find("--dataset_name is missing"), std::string::npos);
  EXPECT_EQ(error_with("--gradient_checkpointing --recompute mlp"),
            "--gradient_checkpointing means --recompute block, found --recompute mlp");
}

TEST(Errors, Ranges) {
  for (const char* flags : {"--batch_size -1",
                            "--batch_size 1.5",
                            "--batch_size 1e3",
                            "--batch_size 99999999999999999999",
                            "--batch_size 0x10",
                            "--max_seq_length 0",
                            "--max_seq_length 2000000",
                            "--num_epochs 0",
                            "--gradient_accumulation_steps 0",
                            "--log_interval 0",
                            "--seed -1",
                            "--num_warmup_steps -1",
                            "--learning_rate -1",
                            "--learning_rate nan",
                            "--learning_rate inf",
                            "--learning_rate 1e999",
                            "--adam_beta1 1",
                            "--adam_beta2 1.0",
                            "--adam_beta2 -0.1",
                            "--adam_eps 0",
                            "--max_grad_norm -1",
                            "--threads 100000",
                            "--num_of_samples -5",
                            "--num_workers=",
                            "--keep_checkpoints 0",
                            "--save_ahead -1"}) {
    EXPECT_NE(error_with(flags).find(": wanted a"), std::string::npos) << flags << " → " << error_with(flags);
  }
  for (const char* flags : {"--batch_size 1", "--max_seq_length 1", "--max_seq_length 1048576", "--num_warmup_steps 0",
                            "--adam_beta1 0", "--max_grad_norm 0", "--learning_rate 0", "--save_interval 0", "--save_ahead 0",
                            "--save_ahead auto"}) {
    EXPECT_EQ(error_with(flags), "") << flags;
  }
}

TEST(Errors, NotBuiltYetIsRefusedInOneSentence) {
  for (const char* flag : {"repair_embeddings", "cpu_offload", "profile_memory"}) {
    EXPECT_EQ(error_with(std::string("--") + flag), std::string("--") + flag + " is not built yet");
    EXPECT_EQ(error_with(std::string("--no-") + flag), "");
  }
  EXPECT_EQ(error_with("--template_date 2026-02-30"), "--template_date 2026-02-30: there is no such day");
  EXPECT_EQ(error_with("--template_date 2026-11-23"), "");
  EXPECT_EQ(error_with("--mixed_precision fp16", Program::train_multi_gpu),
            "--mixed_precision fp16 is not supported, use bf16");
  EXPECT_EQ(error_with("--debug_mode"), "");
  EXPECT_EQ(error_with("--device cuda"), "");  // whether there is one, the backend says
  for (const char* mode : {"fsdp_grad", "fsdp_full", "fsdp_offload"}) {
    EXPECT_NE(error_with(std::string("--sharding_mode ") + mode).find("is not built yet"), std::string::npos) << mode;
  }
  EXPECT_EQ(error_with("--use_wandb --compile_model --memory_efficient_attention --deterministic --num_workers 2"), "");
}

TEST(Warnings, Fp8FlagsWithoutFp8) {
  const auto warnings = [](const std::string& flags) {
    return parse_command_line(Program::train_fp8, words("--model_name m --dataset_name d " + flags)).warnings;
  };
  EXPECT_EQ(warnings("--fp8_scenario mxfp8"),
            std::vector<std::string>{"--fp8_scenario mxfp8 has no effect with --mixed_precision bf16"});
  EXPECT_TRUE(warnings("--fp8_scenario mxfp8 --mixed_precision fp8").empty());
  EXPECT_TRUE(warnings("--fp8_scenario default").empty());
  EXPECT_EQ(warnings("--shadow_check_interval 5"),
            std::vector<std::string>{"--shadow_check_interval 5 has no effect with --mixed_precision bf16"});
  EXPECT_TRUE(warnings("--shadow_check_interval 5 --mixed_precision fp8").empty());
  EXPECT_TRUE(warnings("--shadow_check_interval 0").empty());
  EXPECT_TRUE(warnings("--on_nonfinite skip").empty());
}

TEST(Warnings, WhatHasNoEffect) {
  const auto warnings = [](const std::string& flags) {
    return parse_command_line(Program::train_fp8, words("--model_name m --dataset_name d " + flags)).warnings;
  };
  for (const std::string update : {"stochastic", "python"}) {
    EXPECT_EQ(warnings("--mixed_precision fp32 --weight_update " + update),
              std::vector<std::string>{"--weight_update " + update +
                                       " has no effect with --mixed_precision fp32: the weights have all bits"});
    EXPECT_TRUE(warnings("--weight_update " + update).empty());
  }
  EXPECT_TRUE(warnings("--mixed_precision fp32 --weight_update exact").empty());
  EXPECT_EQ(warnings("--mixed_precision fp32 --grad_dtype bf16").size(), 1u);
  EXPECT_TRUE(warnings("--mixed_precision fp32 --grad_dtype fp32").empty());

  const testing::TempDir temp;
  const std::string file = (temp.path() / "rows.jsonl").string();
  std::ofstream(file) << "{}\n";
  EXPECT_EQ(warnings("--dataset_name " + file + " --split_name train"),
            std::vector<std::string>{"--split_name train has no effect: --dataset_name " + file +
                                     " is a single file, all its rows are taken"});
  EXPECT_TRUE(warnings("--dataset_name " + file).empty());
  EXPECT_TRUE(warnings("--dataset_name " + temp.path().string() + " --split_name train").empty());
}

TEST(Help, NamesEveryFlagWithin100Columns) {
  for (const Program program : {Program::train_fp8, Program::train_multi_gpu}) {
    const CommandLine result = parse_command_line(program, words("--batch_size 0 --help"));
    ASSERT_TRUE(result.print);
    std::istringstream in(*result.print);
    for (std::string line; std::getline(in, line);) EXPECT_LE(display_width(line), 100u) << line;
    for (const Option& option : option_table(program)) {
      EXPECT_NE(result.print->find("  --" + option.name + (option.is_switch() ? " " : "")), std::string::npos)
          << option.name;
      EXPECT_FALSE(option.help.empty()) << option.name;
    }
    for (const char* mapping : {"graph capture", "fused attention", "arena trim", "--threads cores tokenise"}) {
      EXPECT_NE(result.print->find(mapping), std::string::npos) << mapping;
    }
  }
  EXPECT_NE(help_text(Program::train_fp8).find("(default 256;"), std::string::npos);
  EXPECT_NE(help_text(Program::train_multi_gpu).find("(default 1024;"), std::string::npos);
  EXPECT_EQ(parse_command_line(Program::train_fp8, words("--version")).print->rfind("train_fp8 ", 0), 0u);
  EXPECT_TRUE(parse_command_line(Program::train_fp8, words("-h")).print);
}

// "default 1: never" would say that the default is never.
TEST(Help, WhatZeroMeansStandsBesideZero) {
  const auto remarks = [](std::string_view name) {
    const Option* option = find_option(Program::train_fp8, name);
    return option == nullptr ? std::string("no flag") : fmt::format("default {}; {}", option->default_text, option->range);
  };
  EXPECT_EQ(remarks("max_steps"), "default 0: no limit; at least 0");
  EXPECT_EQ(remarks("eval_interval"), "default 1; at least 0; 0: never");
  EXPECT_EQ(remarks("health_interval"), "default 100; at least 0; 0: off");
  EXPECT_EQ(remarks("save_ahead"), "default auto: 0 on a CPU, 1000 on a GPU; at least 0; 0: training waits for the files");
}

TEST(RunJson, EveryFlagWithValueAndSource) {
  const auto json = flags_to_json(parse_with("--batch_size 8 --use_te --learning_rate 2e-5 --fp8_scenario hybrid"));
  EXPECT_EQ(json.size(), option_table(Program::train_fp8).size());
  EXPECT_EQ(json["batch_size"]["value"], 8);
  EXPECT_EQ(json["batch_size"]["from"], "command line");
  EXPECT_EQ(json["use_te"]["value"], true);
  EXPECT_EQ(json["learning_rate"]["value"], 2e-5);
  EXPECT_EQ(json["fp8_scenario"]["value"], "hybrid");
  EXPECT_EQ(json["seed"]["value"], 42);
  EXPECT_EQ(json["seed"]["from"], "default");
}

TEST(DidYouMean, Nearest) {
  const std::vector<std::string> names = {"train", "train_1M", "train_2M", "test", "validation"};
  EXPECT_EQ(nearest_name("trian", names), "train");
  EXPECT_EQ(nearest_name("TEST", names), "test");
  EXPECT_EQ(nearest_name("train_1m", names), "train_1M");
  EXPECT_EQ(nearest_name("valid", names), "validation");
  EXPECT_EQ(nearest_name("zzz", names), "");
  EXPECT_EQ(nearest_name("", names), "");
  EXPECT_EQ(nearest_name(std::string(1 << 20, 'a'), names), "");
}

}  // namespace
}  // namespace llmfp8
