#include "e2e/checkpoints.h"

#include <algorithm>
#include <array>
#include <string>

#include <gtest/gtest.h>

namespace llmfp8::testing {

Finished run_well(const char* program, const Args& args) {
  Finished run = run_program(program, args);
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_TRUE(run.errors().empty()) << run.err;
  EXPECT_EQ(run.out, "");
  return run;
}

Args saving_flags(const Args& more) {
  Args flags = {"--num_epochs", "3", "--save_interval", "4", "--keep_checkpoints", "1000", "--learning_rate", "1e-3",
                "--health_interval", "3"};
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

std::vector<std::int64_t> saved_steps(const fs::path& output) {
  std::vector<std::int64_t> steps;
  if (!fs::exists(output / "checkpoints")) return steps;
  for (const auto& entry : fs::directory_iterator(output / "checkpoints")) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step-") && name.find_first_not_of("0123456789", 5) == std::string::npos)
      steps.push_back(std::stoll(name.substr(5)));
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::size_t lines_of(const fs::path& file) {
  if (!fs::exists(file)) return 0;
  const std::string text = read_bytes(file);
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

fs::path copy_until(const fs::path& output, const fs::path& to, std::int64_t step) {
  fs::remove_all(to);
  fs::copy(output, to, fs::copy_options::recursive);
  for (const std::int64_t later : saved_steps(to))
    if (later > step) fs::remove_all(to / "checkpoints" / ("step-" + std::to_string(later)));
  for (const char* file : {"model.safetensors", "summary.json"}) fs::remove(to / file);
  return to;
}

namespace {

// Of the clock, and of the process.
constexpr std::array<const char*, 8> kTimed = {"tilisation", "time", "Time", "PerSecond", "per_second", "ETA", "eta_s", "hardware/"};

// Of metrics.jsonl, a line each without what is another at every run.
std::vector<std::string> logged(const fs::path& output) {
  std::vector<std::string> lines;
  for (const nlohmann::json& line : read_jsonl(output / "metrics.jsonl")) {
    nlohmann::json kept = nlohmann::json::object();
    for (const auto& [name, value] : line.items()) {
      const bool is_timed = std::any_of(kTimed.begin(), kTimed.end(),
                                        [&](const char* part) { return name.find(part) != std::string::npos; });
      if (!is_timed) kept[name] = value;
    }
    lines.push_back(kept.dump());
  }
  return lines;
}

void expect_same_lines(const std::vector<std::string>& wanted, const std::vector<std::string>& found) {
  EXPECT_EQ(wanted.size(), found.size());
  for (std::size_t i = 0; i < std::min(wanted.size(), found.size()); ++i)
    ASSERT_EQ(wanted[i], found[i]) << "line " << i + 1;
}

}  // namespace

void expect_same_run(const fs::path& wanted, const fs::path& found, Compare compare) {
  EXPECT_EQ(read_bytes(wanted / "model.safetensors"), read_bytes(found / "model.safetensors"));
  expect_same_lines(logged(wanted), logged(found));
  EXPECT_GT(lines_of(wanted / "health.jsonl"), 0u);
  EXPECT_EQ(read_bytes(wanted / "health.jsonl"), read_bytes(found / "health.jsonl"));
  const std::vector<std::int64_t> steps = saved_steps(wanted), others = saved_steps(found);
  ASSERT_FALSE(steps.empty());
  ASSERT_FALSE(others.empty());
  if (compare == Compare::all) {
    EXPECT_EQ(steps, others);
  }
  EXPECT_EQ(steps.back(), others.back());
  const auto state = [](const fs::path& output, std::int64_t step) {
    return output / "checkpoints" / ("step-" + std::to_string(step)) / "state";
  };
  const fs::path a = state(wanted, steps.back()), b = state(found, others.back());
  EXPECT_EQ(read_bytes(a / "training_state.safetensors"), read_bytes(b / "training_state.safetensors"));
  const nlohmann::json json_a = read_json(a / "state.json"), json_b = read_json(b / "state.json");
  for (const char* name : {"step", "learnt_steps", "cursor", "engine", "train_tokens", "train_supervised",
                           "evaluated_step", "skipped_steps", "last_eval_loss", "stability", "best_loss"}) {
    EXPECT_EQ(json_a.contains(name) ? json_a.at(name) : nlohmann::json(),
              json_b.contains(name) ? json_b.at(name) : nlohmann::json())
        << name;
  }
  const nlohmann::json summary_a = read_json(wanted / "summary.json"), summary_b = read_json(found / "summary.json");
  for (const auto& [name, value] : summary_a.items()) {
    if (name.starts_with("stability_report/") || name == "tokens" || name == "steps") {
      EXPECT_EQ(value, summary_b.at(name)) << name;
    }
  }
}

}  // namespace llmfp8::testing
