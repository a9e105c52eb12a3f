// --resume: bit for bit the run that went through, from any checkpoint, twice in a row, over the end of an epoch, after
// Ctrl-C, SIGTERM and SIGUSR1; and what is refused.
#include <algorithm>
#include <csignal>
#include <map>

#include <gtest/gtest.h>

#include "e2e/checkpoints.h"

namespace llmfp8::testing {
namespace {

struct Kind {
  const char* name;
  const char* program;
  Args flags;
};

const Kind kKinds[] = {
    {"fp8", "train_fp8", {"--mixed_precision", "fp8", "--shadow_check_interval", "2"}},
    {"fp8 from scale 1, with its head", "train_fp8", {"--mixed_precision", "fp8", "--use_te", "--fp8_lm_head"}},
    {"mxfp8, 8-bit moments",
     "train_fp8",
     {"--mixed_precision", "fp8", "--fp8_scenario", "mxfp8", "--fp8_emulate", "--optim_state", "8bit"}},
    {"current, packed",
     "train_fp8",
     {"--mixed_precision", "fp8", "--fp8_scenario", "current", "--packing", "--batch_size", "2"}},
    {"bf16, stochastic", "train_fp8", {"--weight_update", "stochastic", "--optim_state", "bf16"}},
    {"fp32", "train_fp8", {"--mixed_precision", "fp32"}},
    {"multi, accumulated",
     "train_multi_gpu",
     {"--mixed_precision", "fp8", "--batch_size", "2", "--gradient_accumulation_steps", "2"}},
};

// A run cut off behind the checkpoint of `step` and resumed, in the folder "cut", becomes the one that went through.
void expect_same_from(Workshop& shop, const Args& flags, std::int64_t step) {
  const fs::path cut = copy_until(shop.output(), shop.path("cut"), step);
  Args again = flags;
  again.insert(again.end(), {"--resume", "auto", "--output_dir", cut.string()});
  run_well("train_fp8", shop.args(again));
  expect_same_run(shop.output(), cut);
}

TEST(Resume, AnyCheckpointLeadsToTheSameBits) {
  for (const Kind& kind : kKinds) {
    SCOPED_TRACE(kind.name);
    Workshop shop;
    const Args flags = saving_flags(kind.flags);
    run_well(kind.program, shop.args(flags));
    const std::vector<std::int64_t> steps = saved_steps(shop.output());
    ASSERT_GE(steps.size(), 3u);
    // The first; one inside an epoch; the last one, from which only the end is left.
    for (const std::int64_t step : {steps[0], steps[steps.size() / 2], steps.back()}) {
      SCOPED_TRACE(step);
      const fs::path cut = copy_until(shop.output(), shop.path("cut"), step);
      Args again = flags;
      again.insert(again.end(), {"--resume", "--output_dir", cut.string()});
      const Finished run = run_well(kind.program, shop.args(again));
      EXPECT_EQ(run.count("resumed from step " + std::to_string(step)), 1u) << run.err;
      EXPECT_EQ(run.count("warning:"), 0u) << run.err;
      expect_same_run(shop.output(), cut);
      EXPECT_EQ(read_json(cut / "run.json").at("resumed_from_steps"), nlohmann::json({step}));
    }
  }
}

// From before a skipped step, from behind it, and from it.
TEST(Resume, OverASkippedStep) {
  Workshop shop;
  shop.poison_row(11);
  const Args flags = saving_flags({"--mixed_precision", "fp8", "--on_nonfinite", "skip", "--save_interval", "1", "--num_epochs", "2"});
  run_well("train_fp8", shop.args(flags));
  const std::vector<std::int64_t> skipped = read_json(shop.output() / "run.json").at("skipped_steps");
  ASSERT_EQ(skipped.size(), 2u);
  for (const std::int64_t step : {skipped[0] - 1, skipped[0], skipped[0] + 1, skipped[1]}) {
    SCOPED_TRACE(step);
    expect_same_from(shop, flags, step);
    EXPECT_EQ(read_json(shop.path("cut") / "run.json").at("skipped_steps").get<std::vector<std::int64_t>>(), skipped);
  }
}

TEST(Resume, EveryStepOfTwoEpochs) {
  Workshop shop;
  const Args flags = saving_flags({"--mixed_precision", "fp8", "--save_interval", "1", "--num_epochs", "2"});
  run_well("train_fp8", shop.args(flags));
  const std::vector<std::int64_t> steps = saved_steps(shop.output());
  ASSERT_EQ(steps.size(), 18u);
  for (const std::int64_t step : steps) {
    SCOPED_TRACE(step);
    expect_same_from(shop, flags, step);
  }
}

// Ctrl-C, SIGTERM, Ctrl-C, and through to the end: each at another place.
TEST(Resume, SeveralTimesInARow) {
  Workshop shop;
  const Args flags = saving_flags({"--mixed_precision", "fp8", "--num_epochs", "30", "--eval_interval", "2"});
  run_well("train_fp8", shop.args(flags));
  const fs::path cut = shop.path("cut");
  Args again = flags;
  again.insert(again.end(), {"--resume", "auto", "--output_dir", cut.string()});
  const int signals[] = {SIGINT, SIGTERM, SIGINT};
  std::vector<std::int64_t> stops;
  for (const int signal : signals) {
    const std::size_t before = lines_of(cut / "metrics.jsonl");
    const Finished run = run_program(
        "train_fp8", shop.args(again),
        {.interrupt_when = [&] { return lines_of(cut / "metrics.jsonl") > before + 17; }, .signal = signal});
    ASSERT_EQ(run.code, 128 + signal) << run.err;
    EXPECT_TRUE(run.errors().empty()) << run.err;
    stops.push_back(read_json(cut / "run.json").at("steps").at("done"));
    EXPECT_EQ(saved_steps(cut).back(), stops.back());  // not one step is lost
  }
  EXPECT_LT(stops[0], stops[1]);
  EXPECT_LT(stops[2], 270);
  run_well("train_fp8", shop.args(again));
  EXPECT_EQ(read_json(cut / "run.json").at("resumed_from_steps"), nlohmann::json(stops));
  expect_same_run(shop.output(), cut, Compare::without_checkpoint_names);
}

// A checkpoint at each epoch's end, before its evaluation: what is logged of that step after it is logged again. TensorBoard
// then shows what metrics.jsonl holds, and no step twice.
TEST(Resume, TensorboardShowsOneHistory) {
  if (const std::string why = why_python_lacks("tensorboard.backend.event_processing.event_accumulator"); !why.empty())
    GTEST_SKIP() << why;
  Workshop shop;
  const Args flags = saving_flags({"--save_interval", "9", "--max_steps", "27", "--num_epochs", "4"});
  run_well("train_fp8", shop.args(flags));
  fs::path last = shop.output();
  for (const std::int64_t step : {9, 18, 9, 27}) {
    SCOPED_TRACE(step);
    const fs::path cut = copy_until(last, shop.path("cut" + last.filename().string()), step);
    Args again = flags;
    again.insert(again.end(), {"--resume", "--output_dir", cut.string()});
    if (step == 27) again.insert(again.end(), {"--max_steps", "30"});
    run_program("train_fp8", shop.args(again));
    last = cut;
  }
  std::map<std::string, std::vector<std::pair<std::int64_t, float>>> logged;
  for (const nlohmann::json& line : read_jsonl(last / "metrics.jsonl"))
    for (const auto& [name, value] : line.items())
      if (name.find('/') != std::string::npos && value.is_number()) logged[name].emplace_back(line.at("step"), value.get<float>());
  ASSERT_EQ(logged.at("Train/Loss").size(), 30u);
  ASSERT_EQ(logged.at("Eval/Loss").size(), 4u);
  const fs::path folder = fs::directory_iterator(shop.logs())->path();
  EXPECT_EQ(files_below(folder).size(), 5u);
  const nlohmann::json shown = read_with_python("read_events.py", folder, shop.path("shown.json"));
  for (const char* reader : {"scalars", "server"}) {
    SCOPED_TRACE(reader);
    for (const auto& [name, points] : logged) {
      std::vector<std::pair<std::int64_t, float>> found;
      for (const nlohmann::json& point : shown.at(reader).at(name)) found.emplace_back(point.at(0), point.at(1).get<float>());
      EXPECT_EQ(found, points) << name;
    }
  }
}

TEST(Resume, Sigusr1SavesAndTheRunGoesOn) {
  Workshop shop;
  const Args flags = {"--save_interval", "0", "--num_epochs", "30"};
  run_well("train_fp8", shop.args(flags));
  EXPECT_FALSE(fs::exists(shop.output() / "checkpoints"));
  Args saving = flags;
  const fs::path other = shop.path("other");
  saving.insert(saving.end(), {"--output_dir", other.string()});
  const Finished run =
      run_program("train_fp8", shop.args(saving),
                  {.interrupt_when = [&] { return lines_of(other / "metrics.jsonl") > 5; }, .signal = SIGUSR1});
  EXPECT_EQ(run.code, 0) << run.err;
  const std::vector<std::int64_t> steps = saved_steps(other);
  ASSERT_EQ(steps.size(), 1u) << run.err;
  EXPECT_LT(steps[0], 270);
  EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), read_bytes(other / "model.safetensors"));
  Args again = saving;
  again.insert(again.end(), {"--resume"});
  run_well("train_fp8", shop.args(again));
  EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), read_bytes(other / "model.safetensors"));
  EXPECT_EQ(metric(shop.output(), "Train/Loss"), metric(other, "Train/Loss"));
}

// A handler that runs on a thread inside a kernel which has the stack pointer in a buffer of the heap destroys the heap
// (oneDNN's f32 kernels for AVX2): 15 to 60 signals were enough.
TEST(Resume, SignalsNeverMeetAComputingThread) {
  Workshop shop;
  const Args flags = {"--mixed_precision", "fp8", "--save_interval", "0", "--num_epochs", "20"};
  run_well("train_fp8", shop.args(flags));
  Args saving = flags;
  const fs::path other = shop.path("other");
  saving.insert(saving.end(), {"--output_dir", other.string()});
  const Finished run = run_program(
      "train_fp8", shop.args(saving),
      {.interrupt_when = [&] { return lines_of(other / "metrics.jsonl") > 5; }, .signal = SIGUSR1, .times = 400});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_GE(run.count("checkpoint of step "), 3u) << run.err;
  EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), read_bytes(other / "model.safetensors"));
}

// A rate that grows beyond reason: of the evaluations the first one is the best.
const Args kWorseFromStep6 = {"--learning_rate", "1", "--lr_scheduler", "constant", "--num_warmup_steps", "20", "--eval_interval_steps", "3"};

TEST(Resume, BestModelIsNotReplacedByAWorseOne) {
  Workshop shop;
  const Args flags = saving_flags(kWorseFromStep6);
  run_well("train_multi_gpu", shop.args(flags));
  ASSERT_EQ(read_json(shop.output() / "checkpoint_best/evaluation.json").at("step"), 3);
  const std::vector<std::int64_t> steps = saved_steps(shop.output());
  const fs::path cut = copy_until(shop.output(), shop.path("cut"), steps[steps.size() - 2]);
  Args again = flags;
  again.insert(again.end(), {"--resume", "--output_dir", cut.string()});
  run_well("train_multi_gpu", shop.args(again));
  expect_same_run(shop.output(), cut);
  EXPECT_EQ(read_bytes(shop.output() / "checkpoint_best/model.safetensors"),
            read_bytes(cut / "checkpoint_best/model.safetensors"));
}

// Into another folder goes the best model with the run; where it is gone, that is said and the best from there on is kept.
TEST(Resume, TheBestModelGoesIntoAnotherFolder) {
  Workshop shop;
  const Args flags = saving_flags(kWorseFromStep6);
  run_well("train_multi_gpu", shop.args(flags));
  const fs::path best = shop.output() / "checkpoint_best/model.safetensors";
  const std::string model = read_bytes(best);
  ASSERT_EQ(read_json(shop.output() / "checkpoint_best/evaluation.json").at("step"), 3);
  const auto resumed = [&](const fs::path& from, const fs::path& to) {
    Args again = flags;
    again.insert(again.end(), {"--resume", (from / "checkpoints/step-12").string(), "--output_dir", to.string()});
    return run_well("train_multi_gpu", shop.args(again));
  };
  const Finished run = resumed(shop.output(), shop.path("other"));
  EXPECT_EQ(run.count("checkpoint_best is so far that of " + shop.output().string()), 1u) << run.err;
  EXPECT_EQ(run.count("warning:"), 0u) << run.err;
  EXPECT_EQ(read_bytes(shop.path("other/checkpoint_best/model.safetensors")), model);
  EXPECT_EQ(read_bytes(best), model);
  const auto best_loss = [](const fs::path& output) { return read_json(output / "checkpoints/step-27/state/state.json").at("best_loss"); };
  EXPECT_EQ(best_loss(shop.path("other")), best_loss(shop.output()));

  const fs::path gone = copy_until(shop.output(), shop.path("gone"), 12);
  fs::remove_all(gone / "checkpoint_best");
  const Finished without = resumed(gone, shop.path("without"));
  EXPECT_EQ(without.count("warning: the best model so far (evaluation loss "), 1u) << without.err;
  EXPECT_TRUE(without.says("checkpoint_best will be the best from step 13 on")) << without.err;
  EXPECT_GT(read_json(shop.path("without/checkpoint_best/evaluation.json")).at("step"), 12);
}

// A template that is told today's day, by a clock that shows another day when the run is resumed: it has the checkpoint's
// rows, and so its bits.
TEST(Resume, TheDayOfTheTemplateIsTheCheckpoints) {
  // At every moment these two are 26 hours apart.
  const RunOptions first_day{.environment = {{"TZ", "EAST-14"}}}, other_day{.environment = {{"TZ", "WEST+12"}}};
  Workshop shop;
  shop.math_rows(40);
  write_bytes(shop.path("day.jinja"),
              "{{ bos_token }}{{ strftime_now('%d.%m.%y') }}{% if date_string is defined %} given{% endif %}"
              "{% for message in messages %} {{ message['content'][:20] }}{% endfor %}");
  const Args flags = saving_flags({"--dataset_name", shop.path("math.jsonl").string(), "--chat_template", shop.path("day.jinja").string()});
  const auto train = [&](const Args& more, const RunOptions& options) {
    Args all = flags;
    all.insert(all.end(), more.begin(), more.end());
    return run_program("train_fp8", shop.args(all), options);
  };
  const auto day_of = [](const fs::path& output) { return read_json(output / "run.json").at("flags").at("template_date"); };
  ASSERT_EQ(train({}, first_day).code, 0);
  const nlohmann::json day = day_of(shop.output());
  EXPECT_EQ(day.at("from"), "default");
  const fs::path cut = copy_until(shop.output(), shop.path("cut"), 12);
  const Finished run = train({"--resume", "--output_dir", cut.string()}, other_day);
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.count("--resume: the chat template is told the day of the checkpoint's rows, " + day.at("value").get<std::string>()), 1u) << run.err;
  EXPECT_EQ(run.count("warning: --resume"), 0u) << run.err;
  expect_same_run(shop.output(), cut);
  EXPECT_EQ(day_of(cut), day);
  // Without a checkpoint that day is another one, and so are the losses.
  ASSERT_EQ(train({"--output_dir", shop.path("new").string()}, other_day).code, 0);
  EXPECT_NE(day_of(shop.path("new")), day);
  EXPECT_NE(metric(shop.path("new"), "Train/Loss"), metric(shop.output(), "Train/Loss"));
  // A day that is asked for counts, and belongs to other rows.
  const fs::path again = copy_until(shop.output(), shop.path("again"), 12);
  const Finished other = train({"--resume", "--output_dir", again.string(), "--template_date", "2024-07-26"}, first_day);
  EXPECT_EQ(other.code, 1) << other.err;
  EXPECT_TRUE(other.says("training rows is ")) << other.err;
}

// The same for a day that was given: the template is told that it was, several times in a row.
TEST(Resume, AGivenDayOfTheTemplateIsTheCheckpoints) {
  Workshop shop;
  shop.math_rows(40);
  write_bytes(shop.path("day.jinja"), "{{ bos_token }}{{ date_string if date_string is defined else 'none' }}"
                                      "{% for message in messages %} {{ message['content'][:20] }}{% endfor %}");
  const Args flags = saving_flags({"--dataset_name", shop.path("math.jsonl").string(), "--chat_template", shop.path("day.jinja").string()});
  Args given = flags;
  given.insert(given.end(), {"--template_date", "2024-07-26"});
  run_well("train_fp8", shop.args(given));
  fs::path last = shop.output();
  for (const std::int64_t step : {12, 20}) {
    const fs::path cut = copy_until(last, shop.path("cut" + std::to_string(step)), step);
    Args again = flags;
    again.insert(again.end(), {"--resume", "--output_dir", cut.string()});
    run_well("train_fp8", shop.args(again));
    expect_same_run(shop.output(), cut);
    EXPECT_EQ(read_json(cut / "run.json").at("flags").at("template_date"), nlohmann::json({{"value", "2024-07-26"}, {"from", "checkpoint"}}));
    last = cut;
  }
}

TEST(Resume, AutoStartsAnewWhereThereIsNothing) {
  Workshop shop;
  const Finished run = run_well("train_fp8", shop.args({"--resume", "auto", "--max_steps", "2"}));
  EXPECT_EQ(run.count("--resume auto: no checkpoint in "), 1u) << run.err;
  EXPECT_EQ(metric(shop.output(), "Train/Loss").size(), 2u);
}

TEST(Resume, AFinishedRunHasNothingLeft) {
  Workshop shop;
  run_well("train_fp8", shop.args({"--max_steps", "4"}));
  const std::vector<double> losses = metric(shop.output(), "Train/Loss");
  const std::string model = read_bytes(shop.output() / "model.safetensors");
  const Finished run = run_well("train_fp8", shop.args({"--max_steps", "4", "--resume"}));
  EXPECT_EQ(run.count("nothing is left to train"), 1u) << run.err;
  EXPECT_EQ(metric(shop.output(), "Train/Loss"), losses);
  EXPECT_EQ(metric(shop.output(), "Eval/Loss").size(), 1u);
  EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), model);
}

TEST(Resume, FromAnotherFolderIntoANewOne) {
  Workshop shop;
  const Args flags = saving_flags({});
  run_well("train_fp8", shop.args(flags));
  const std::vector<std::string> before = files_below(shop.output());
  const std::vector<std::int64_t> steps = saved_steps(shop.output());
  const fs::path from = shop.output() / "checkpoints" / ("step-" + std::to_string(steps[1]));
  Args again = flags;
  again.insert(again.end(), {"--resume", from.string(), "--output_dir", shop.path("other").string()});
  run_well("train_fp8", shop.args(again));
  EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), read_bytes(shop.path("other") / "model.safetensors"));
  EXPECT_EQ(files_below(shop.output()), before);
  EXPECT_EQ(metric(shop.path("other"), "Train/Progress").size(), 27u - static_cast<std::size_t>(steps[1]));
}

TEST(Resume, AnOlderCheckpointLeavesTheLaterOnesBehind) {
  Workshop shop;
  const Args flags = saving_flags({});
  run_well("train_fp8", shop.args(flags));
  const fs::path cut = shop.path("cut");
  fs::copy(shop.output(), cut, fs::copy_options::recursive);
  Args again = flags;
  again.insert(again.end(), {"--output_dir", cut.string(), "--resume", (cut / "checkpoints/step-8").string(),
                             "--save_interval", "0"});
  // It leaves no checkpoint of its own; those beyond step 8 must not be taken for its own by the next one.
  run_well("train_fp8", shop.args(again));
  EXPECT_EQ(saved_steps(cut), (std::vector<std::int64_t>{4, 8}));
  EXPECT_TRUE(fs::exists(cut / "checkpoints/step-12.superseded"));
  EXPECT_EQ(metric(cut, "Train/Loss"), metric(shop.output(), "Train/Loss"));
  Args last = flags;
  last.insert(last.end(), {"--output_dir", cut.string(), "--resume"});
  run_well("train_fp8", shop.args(last));
  EXPECT_FALSE(fs::exists(cut / "checkpoints/step-12.superseded"));
  expect_same_run(shop.output(), cut);
}

struct Change {
  Args flags;
  std::vector<std::string> says;
};

TEST(Resume, WhatIsRefusedAndWhy) {
  Workshop shop;
  run_well("train_fp8", shop.args({"--mixed_precision", "fp8", "--max_steps", "6", "--save_interval", "4"}));
  shop.text_rows(50, "more.jsonl");
  const Change kChanges[] = {
      {{"--batch_size", "8"},
       {"--batch_size x --gradient_accumulation_steps is 8 x 1, the checkpoint has 4 x 1", "place in the epoch"}},
      {{"--fp8_scenario", "mxfp8", "--fp8_emulate"}, {"recipe is mxfp8, the checkpoint has default", "scaling state"}},
      {{"--mixed_precision", "bf16"}, {"recipe is none, the checkpoint has default"}},
      {{"--mixed_precision", "fp32"}, {"weights is f32, the checkpoint has bf16"}},
      {{"--fp8_lm_head"}, {"recipe is default with the head, the checkpoint has default"}},
      {{"--seed", "7"}, {"--seed is 7, the checkpoint has 42", "order"}},
      {{"--max_seq_length", "32"}, {"--max_seq_length is 32, the checkpoint has 64"}},
      {{"--packing"}, {"--packing is true, the checkpoint has false"}},
      {{"--optim_state", "bf16"}, {"--optim_state is bf16, the checkpoint has fp32"}},
      {{"--weight_update", "stochastic"}, {"--weight_update is stochastic, the checkpoint has exact"}},
      {{"--dataset_name", shop.path("more.jsonl").string()},
       {"training rows is 45 rows", "the checkpoint has 36 rows"}},
      {{"--model_name", shop.model("qwen2", "other").string()}, {"model is qwen2", "the checkpoint has llama"}},
      {{"--max_steps", "3"}, {"it is at step 6", "end this run at step 3"}},
  };
  const std::vector<std::string> before = files_below(shop.output());
  for (const Change& change : kChanges) {
    Args flags = {"--mixed_precision", "fp8", "--max_steps", "6", "--save_interval", "4", "--resume"};
    for (std::size_t i = 0; i < change.flags.size(); ++i) flags.push_back(change.flags[i]);
    const Finished run = run_program("train_fp8", shop.args(flags));
    EXPECT_EQ(run.code, 1) << change.flags[0] << "\n" << run.err;
    ASSERT_EQ(run.errors().size(), 1u) << run.err;
    for (const std::string& part : change.says)
      EXPECT_NE(run.errors()[0].find(part), std::string::npos) << part << " in\n" << run.errors()[0];
    EXPECT_EQ(files_below(shop.output()), before);
  }
  const Finished other =
      run_program("train_multi_gpu", shop.args({"--mixed_precision", "fp8", "--max_steps", "6", "--resume"}));
  EXPECT_EQ(other.code, 1) << other.err;
  EXPECT_TRUE(other.says("program is train_multi_gpu, the checkpoint has train_fp8")) << other.err;
}

TEST(Resume, WhatIsAllowedAndSaid) {
  Workshop shop;
  // On a GPU the gradients' dtype follows the accumulation.
  const Args short_run = {"--max_steps", "6", "--save_interval", "4", "--grad_dtype", "fp32"};
  run_well("train_fp8", shop.args(short_run));
  const Change kChanges[] = {
      {{"--learning_rate", "0.5"}, {"--learning_rate is 0.5, the checkpoint has 1.41e-05"}},
      {{"--num_epochs", "3", "--max_steps", "0"}, {"steps in all is 27, the checkpoint has 6"}},
      {{"--batch_size", "2", "--gradient_accumulation_steps", "2"}, {"is 2 x 2, the checkpoint has 4 x 1"}},
      {{"--log_interval", "3"}, {}},
  };
  for (const Change& change : kChanges) {
    const fs::path cut = copy_until(shop.output(), shop.path("cut"), 4);
    Args flags = short_run;
    flags.insert(flags.end(), change.flags.begin(), change.flags.end());
    flags.insert(flags.end(), {"--resume", "auto", "--output_dir", cut.string()});
    const Finished run = run_well("train_fp8", shop.args(flags));
    EXPECT_EQ(run.count("warning: --resume: "), change.says.size()) << run.err;
    for (const std::string& part : change.says) EXPECT_TRUE(run.says(part)) << part << " in\n" << run.err;
    EXPECT_EQ(read_json(cut / "run.json").at("resumed_with_differences").size(), change.says.size());
  }
}

TEST(Resume, FolderThatIsNone) {
  Workshop shop;
  const auto error = [&](const fs::path& folder) {
    const Finished run = run_program("train_fp8", shop.args({"--resume", folder.string()}));
    EXPECT_EQ(run.code, 1) << run.err;
    EXPECT_EQ(run.errors().size(), 1u) << run.err;
    EXPECT_FALSE(fs::exists(shop.output()));
    return run.err;
  };
  EXPECT_NE(error(shop.path("nowhere")).find("nowhere: no such folder"), std::string::npos);
  EXPECT_NE(error(shop.path("model")).find("neither a checkpoint"), std::string::npos);
  fs::create_directories(shop.path("run/checkpoints"));
  EXPECT_NE(error(shop.path("run")).find("no undamaged checkpoint"), std::string::npos);
}

// A run that replaces another and is killed before it has saved anything: the other one's checkpoints are not taken for
// its.
TEST(Resume, AReplacedRunIsNotResumed) {
  Workshop shop;
  run_well("train_fp8", shop.args(saving_flags({})));
  const Finished killed =
      run_program("train_fp8", shop.args(saving_flags({"--overwrite", "--num_epochs", "1000"})),
                  {.interrupt_when = [&] { return fs::exists(shop.output() / "checkpoints/step-4.superseded"); },
                   .signal = SIGKILL});
  EXPECT_EQ(killed.code, 128 + SIGKILL);
  if (saved_steps(shop.output()).empty()) {
    const Finished run = run_program("train_fp8", shop.args(saving_flags({"--resume"})));
    EXPECT_EQ(run.code, 1) << run.err;
    EXPECT_TRUE(run.says("no checkpoint in ") && run.says("it holds a finished run")) << run.err;
  }
  run_well("train_fp8", shop.args(saving_flags({"--overwrite"})));
  EXPECT_FALSE(fs::exists(shop.output() / "checkpoints/step-8.superseded"));
}

// The checkpoints of a run that did not finish and those of another one would be taken for each other's.
TEST(Resume, ANewRunDoesNotMixWithAnothersCheckpoints) {
  Workshop shop;
  run_well("train_fp8", shop.args({"--max_steps", "4"}));
  for (const char* file : {"model.safetensors", "summary.json"}) fs::remove(shop.output() / file);
  const Finished run = run_program("train_fp8", shop.args({"--max_steps", "4"}));
  EXPECT_EQ(run.code, 1) << run.err;
  EXPECT_TRUE(run.says("it holds checkpoints of a run; give --resume to go on")) << run.err;
}

}  // namespace
}  // namespace llmfp8::testing
