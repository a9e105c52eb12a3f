// What may happen to a run that saves checkpoints: it is killed in the middle of a save, the disk is full, bits flip.
#include <csignal>
#include <cstdio>
#include <fstream>
#include <random>

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include "e2e/checkpoints.h"

namespace llmfp8::testing {
namespace {

std::int64_t resumed_step(const Finished& run) {
  const std::string text = "resumed from step ";
  const std::size_t at = run.err.find(text);
  return at == std::string::npos ? 0 : std::stoll(run.err.substr(at + text.size()));
}

std::int64_t logged_step(const fs::path& output) {
  std::int64_t step = 0;
  std::ifstream file(output / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);  // the last line may be half a line
    if (json.is_object() && json.contains("Train/Progress")) step = json.at("step");
  }
  return step;
}

// The step whose save is under way; -1: none.
std::int64_t step_in_saving(const fs::path& output) {
  std::error_code ignored;
  const std::string before = ".step-", behind = ".incomplete";
  for (const fs::directory_entry& entry : fs::directory_iterator(output / "checkpoints", ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(before) && name.ends_with(behind)) return std::stoll(name.substr(before.size()));
  }
  return -1;
}

struct Killed {
  std::int64_t last = 0;     // the step that was done last
  std::int64_t saving = -1;  // the step whose save was cut off; -1: none
  std::int64_t ahead = 0;    // steps that were allowed beside a save
};

// Kills the program so many polls (of some 2 ms) after its start, or after it begins a save.
Killed kill_after(const Workshop& shop, const Args& args, bool in_a_save, int polls, Finished& run) {
  bool began = !in_a_save;
  run = run_program("train_fp8", args,
                    {.interrupt_when =
                         [&] {
                           began = began || step_in_saving(shop.output()) >= 0;
                           return began && polls-- <= 0;
                         },
                     .signal = SIGKILL});
  const std::vector<std::int64_t> saved = saved_steps(shop.output());
  return {std::max(logged_step(shop.output()), saved.empty() ? 0 : saved.back()), step_in_saving(shop.output()), 0};
}

// By the flags' defaults a kill costs one interval at most on a CPU; with --save_ahead N so many steps more. Half of the runs
// are of each kind.
TEST(CheckpointFaults, KilledAHundredTimesWhileSaving) {
  constexpr int kKillsInSaves = 100, kMostKills = 1000;
  constexpr std::int64_t kInterval = 2;
  Workshop shop;
  // A constant rate does not depend on where the run ends, which is decided below.
  const Args flags = {"--mixed_precision", "fp8",      "--learning_rate", "1e-4",
                      "--lr_scheduler",    "constant", "--eval_interval", "0"};
  Args saving = flags;
  saving.insert(saving.end(), {"--num_epochs", "100000", "--save_interval", std::to_string(kInterval),
                               "--keep_checkpoints", "2", "--resume"});
  std::mt19937 random(20261125);
  int kills = 0, in_saves = 0;
  std::int64_t most_lost[2] = {};  // by what is allowed beside a save
  Killed before;
  for (; in_saves < kKillsInSaves && kills < kMostKills; ++kills) {
    const bool wants_save = kills % 8 != 7;  // the others: anywhere, the start of the program too
    Finished run;
    const int polls = std::uniform_int_distribution<int>(0, wants_save ? 40 : 100)(random);
    Args args = saving;
    const std::int64_t ahead = kills / 4 % 2;
    const bool is_default = ahead == 0 && test_device() == "cpu";
    if (!is_default) args.insert(args.end(), {"--save_ahead", std::to_string(ahead)});
    Killed killed = kill_after(shop, shop.args(args), wants_save, polls, run);
    killed.ahead = ahead;
    ASSERT_EQ(run.code, 128 + SIGKILL) << run.err;
    EXPECT_TRUE(run.errors().empty()) << run.err;
    EXPECT_EQ(run.count("damaged"), 0u) << run.err;
    in_saves += killed.saving >= 0 ? 1 : 0;
    EXPECT_LE(saved_steps(shop.output()).size(), 3u);
    if (run.says("--resume auto: no checkpoint") || run.says("resumed from step ")) {
      const std::int64_t resumed = resumed_step(run);  // 0: from the beginning
      const std::int64_t lost = before.last - resumed;
      EXPECT_LE(lost, kInterval + before.ahead)
          << before.last << " steps were done, a save of " << before.saving << " was cut off";
      most_lost[before.ahead] = std::max(most_lost[before.ahead], lost);
    }
    // One that was killed before its first step has added nothing, but cleared away what was left.
    if (run.says("what ran in step ")) before = killed;
  }
  EXPECT_EQ(in_saves, kKillsInSaves);
  const std::int64_t last = before.last;
  std::printf("%d kills, %d of them in a save; step %lld reached; interval %lld: at most %lld steps lost at once by default, with --save_ahead 1 %lld\n",
              kills, in_saves, static_cast<long long>(last), static_cast<long long>(kInterval),
              static_cast<long long>(most_lost[0]), static_cast<long long>(most_lost[1]));
  if (test_device() == "cpu") {
    const Args defaults = {"--max_steps", "1", "--output_dir", shop.path("defaults").string()};
    run_well("train_fp8", shop.args(defaults));
    EXPECT_EQ(read_json(shop.path("defaults") / "run.json").at("flags").at("save_ahead"),
              nlohmann::json({{"value", 0}, {"from", "default"}}));
  }
  // The kills were hard enough to cost what they may.
  EXPECT_EQ(most_lost[0], kInterval);

  // What came of it are the bits of a run that was never killed.
  const std::string end = std::to_string(last + 10);
  Args once = flags;
  once.insert(once.end(), {"--num_epochs", "100000", "--max_steps", end, "--save_interval", "0", "--output_dir",
                           shop.path("once").string()});
  run_well("train_fp8", shop.args(once));
  saving.insert(saving.end(), {"--max_steps", end});
  run_well("train_fp8", shop.args(saving));
  EXPECT_EQ(read_bytes(shop.path("once") / "model.safetensors"), read_bytes(shop.output() / "model.safetensors"));
  EXPECT_EQ(metric(shop.path("once"), "Train/Loss"), metric(shop.output(), "Train/Loss"));
  EXPECT_EQ(saved_steps(shop.output()).size(), 2u);
  for (const std::string& file : files_below(shop.output()))
    EXPECT_EQ(file.find(".incomplete"), std::string::npos) << file;
}

enum class Damage { bit, cut, emptied, removed };
constexpr Damage kDamages[] = {Damage::bit, Damage::cut, Damage::emptied, Damage::removed};

void damage(const fs::path& file, Damage how, std::mt19937& random) {
  if (how == Damage::removed) {
    fs::remove(file);
    return;
  }
  std::string bytes = read_bytes(file);
  const std::size_t at = std::uniform_int_distribution<std::size_t>(0, bytes.size() - 1)(random);
  if (how == Damage::bit) bytes[at] = static_cast<char>(bytes[at] ^ (1 << (at % 8)));
  write_bytes(file, how == Damage::bit ? bytes : how == Damage::cut ? bytes.substr(0, at) : std::string());
}

TEST(CheckpointFaults, DamagedOneIsNamedAndTheOneBeforeIsUsed) {
  Workshop shop;
  const Args flags = saving_flags({"--mixed_precision", "fp8", "--num_epochs", "1"});
  run_well("train_fp8", shop.args(flags));
  ASSERT_EQ(saved_steps(shop.output()), (std::vector<std::int64_t>{4, 8, 9}));
  std::mt19937 random(7);
  for (const std::string& file : files_below(shop.output() / "checkpoints/step-9")) {
    for (const Damage how : kDamages) {
      SCOPED_TRACE(file + " " + std::to_string(static_cast<int>(how)));
      const fs::path cut = copy_until(shop.output(), shop.path("cut"), 9);
      damage(cut / "checkpoints/step-9" / file, how, random);
      Args again = flags;
      again.insert(again.end(), {"--resume", "--output_dir", cut.string()});
      const Finished run = run_well("train_fp8", shop.args(again));
      EXPECT_EQ(run.count("warning:"), 1u) << run.err;
      EXPECT_TRUE(run.says("step-9: this checkpoint is damaged and is left out")) << run.err;
      EXPECT_EQ(run.count("resumed from step 8"), 1u) << run.err;
      expect_same_run(shop.output(), cut);
      EXPECT_FALSE(fs::exists(cut / "checkpoints/step-9.superseded"));
    }
  }
  // Asked for by name it is refused; so is a folder where nothing is whole.
  const fs::path cut = copy_until(shop.output(), shop.path("cut"), 9);
  for (const char* step : {"step-4", "step-8", "step-9"})
    damage(cut / "checkpoints" / step / "state/training_state.safetensors", Damage::bit, random);
  const std::vector<std::string> before = files_below(cut);
  for (const std::string& resume : {(cut / "checkpoints/step-9").string(), std::string("auto")}) {
    Args again = flags;
    again.insert(again.end(), {"--resume", resume, "--output_dir", cut.string()});
    const Finished run = run_program("train_fp8", shop.args(again));
    EXPECT_EQ(run.code, 1) << run.err;
    ASSERT_EQ(run.errors().size(), 1u) << run.err;
    EXPECT_NE(
        run.errors()[0].find(resume == "auto" ? "no undamaged checkpoint" : "training_state.safetensors': checksum"),
        std::string::npos)
        << run.errors()[0];
    EXPECT_EQ(files_below(cut), before);
  }
}

// A file that grows too large: the model fits, the optimizer's state does not.
TEST(CheckpointFaults, ASaveThatFailsIsAWarning) {
  Workshop shop;
  run_well("train_fp8", shop.args({"--max_steps", "2", "--output_dir", shop.path("sizes").string()}));
  const fs::path sizes = shop.path("sizes") / "checkpoints/step-2";
  const auto model = fs::file_size(sizes / "model.safetensors"),
             state = fs::file_size(sizes / "state/training_state.safetensors");
  ASSERT_LT(model + 4096, state);
  const Finished run =
      run_program("train_fp8", shop.args({"--save_interval", "3"}), {.max_file_bytes = (model + state) / 2});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.count("warning: the checkpoint of step 3 was not saved: "), 1u) << run.err;
  EXPECT_EQ(run.count("warning: the checkpoint of step 9 was not saved: "), 1u) << run.err;
  EXPECT_TRUE(run.says("File too large; there is no earlier one")) << run.err;
  EXPECT_EQ(read_json(shop.output() / "run.json").at("checkpoints").at("failed_steps"), nlohmann::json({3, 6, 9}));
  EXPECT_TRUE(fs::exists(shop.output() / "model.safetensors"));
  EXPECT_TRUE(saved_steps(shop.output()).empty());
  EXPECT_EQ(run.count("damaged"), 0u);
}

// A file system of our own with little room; unmounted at the end.
class SmallDisk {
 public:
  SmallDisk(const fs::path& folder, const std::string& options) : folder_(folder) {
    fs::create_directories(folder);
    mounted_ = ::geteuid() == 0 && ::mount("tmpfs", folder.c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(folder_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  bool resize(const std::string& options) const {
    return ::mount("tmpfs", folder_.c_str(), "tmpfs", MS_REMOUNT, options.c_str()) == 0;
  }

 private:
  fs::path folder_;
  bool mounted_ = false;
};

TEST(CheckpointFaults, FullDisk) {
  Workshop shop;
  const Args flags = saving_flags({"--mixed_precision", "fp8", "--num_epochs", "1"});
  run_well("train_fp8", shop.args(flags));
  int failed_saves = 0, whole_runs = 0;
  // Room for so many files: every number ends a save, or the model's export, at another place.
  for (int files = 14; files <= 64; files += 3) {
    SCOPED_TRACE(files);
    const SmallDisk disk(shop.path("disk"), "size=100m,nr_inodes=" + std::to_string(files));
    if (!disk.mounted()) GTEST_SKIP() << "only root can mount a small tmpfs";
    const fs::path output = shop.path("disk/out");
    Args small = flags;
    small.insert(small.end(), {"--output_dir", output.string()});
    const Finished run = run_program("train_fp8", shop.args(small));
    EXPECT_LE(run.code, 1) << run.err;
    EXPECT_EQ(run.errors().size(), run.code == 0 ? 0u : 1u) << run.err;
    whole_runs += run.code == 0 ? 1 : 0;
    failed_saves += static_cast<int>(run.count("was not saved: "));
    for (const char* folder : {"checkpoints/.step-4.incomplete", "checkpoints/.step-8.incomplete", ".model.incomplete"})
      EXPECT_FALSE(fs::exists(output / folder)) << folder;
    // With room, what was saved leads to the bits of the run that had room from the start.
    ASSERT_TRUE(disk.resize("size=100m,nr_inodes=1000"));
    if (saved_steps(output).empty()) continue;
    small.push_back("--resume");
    const Finished again = run_well("train_fp8", shop.args(small));
    EXPECT_EQ(again.count("damaged"), 0u) << again.err;
    EXPECT_EQ(read_bytes(shop.output() / "model.safetensors"), read_bytes(output / "model.safetensors"));
    EXPECT_EQ(metric(shop.output(), "Train/Loss"), metric(output, "Train/Loss"));
  }
  EXPECT_GE(failed_saves, 5);
  EXPECT_GE(whole_runs, 2);
  // Too few bytes are seen before anything is written.
  const SmallDisk disk(shop.path("disk"), "size=60m");
  Args small = flags;
  small.insert(small.end(), {"--output_dir", shop.path("disk/out").string()});
  const Finished run = run_program("train_fp8", shop.args(small));
  EXPECT_TRUE(run.says("the checkpoint of step 4 was not saved: ") &&
              run.says("0.06 GB free on the disk, the checkpoint needs 0.07 GB"))
      << run.err;
}

}  // namespace
}  // namespace llmfp8::testing
