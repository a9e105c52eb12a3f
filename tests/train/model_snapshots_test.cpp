// What a run keeps on its way, and what becomes of an earlier run's.
#include "train/model_snapshots.h"

#include <fstream>
#include <set>
#include <stdexcept>

#include <gtest/gtest.h>

#include "support/golden.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

class Snapshots : public ::testing::Test {
 protected:
  ModelSnapshots open(ModelSnapshots::Earlier earlier, std::int64_t keep = 2) {
    return ModelSnapshots(temp_.path(), keep, earlier, write_);
  }
  void leave(const std::string& folder) {
    fs::create_directories(temp_.path() / folder);
    std::ofstream(temp_.path() / folder / "model.safetensors") << "earlier";
  }
  std::set<std::string> folders() const {
    std::set<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(temp_.path()))
      if (entry.is_directory()) found.insert(fs::relative(entry.path(), temp_.path()).string());
    return found;
  }
  std::string model_of(const std::string& folder) const {
    std::ifstream in(temp_.path() / folder / "model.safetensors");
    return {std::istreambuf_iterator<char>(in), {}};
  }

  TempDir temp_;
  std::string text_ = "new";
  WriteFolder write_ = [this](const fs::path& folder) {
    std::ofstream(folder / "model.safetensors") << text_;
    if (text_ == "fails") throw std::runtime_error("disk full");
  };
};

TEST_F(Snapshots, TheNewestStay) {
  ModelSnapshots snapshots = open(ModelSnapshots::Earlier::keep);
  for (const std::int64_t step : {10, 20, 30}) snapshots.save_step(step, write_);
  EXPECT_EQ(folders(), (std::set<std::string>{"checkpoints", "checkpoints/step-20", "checkpoints/step-30"}));
}

TEST_F(Snapshots, AnEarlierRunsAreReplacedByTheFirstSave) {
  const std::set<std::string> earlier = {"checkpoint_best", "checkpoints", "checkpoints/step-5", "checkpoints/step-70"};
  const auto leave_all = [&] {
    for (const std::string& folder : earlier) leave(folder);
    fs::remove(temp_.path() / "checkpoints" / "model.safetensors");
  };
  leave_all();
  open(ModelSnapshots::Earlier::keep).remove_earlier();
  EXPECT_EQ(folders(), earlier);

  ModelSnapshots by_step = open(ModelSnapshots::Earlier::replace);
  EXPECT_EQ(folders(), earlier);  // until this run has something of its own
  by_step.save_step(70, write_);
  EXPECT_EQ(folders(), (std::set<std::string>{"checkpoints", "checkpoints/step-70"}));
  EXPECT_EQ(model_of("checkpoints/step-70"), "new");
  by_step.offer_best(7, 1.0);
  by_step.save_step(80, write_);
  EXPECT_EQ(folders(),
            (std::set<std::string>{"checkpoint_best", "checkpoints", "checkpoints/step-70", "checkpoints/step-80"}));

  leave_all();
  open(ModelSnapshots::Earlier::replace).offer_best(7, 1.0);
  EXPECT_EQ(folders(), (std::set<std::string>{"checkpoint_best"}));
  EXPECT_EQ(model_of("checkpoint_best"), "new");

  leave_all();
  leave("checkpoints/mine");
  open(ModelSnapshots::Earlier::replace).remove_earlier();
  EXPECT_EQ(folders(), (std::set<std::string>{"checkpoints", "checkpoints/mine"}));
}

TEST_F(Snapshots, AFailedWriteLeavesTheOldOne) {
  ModelSnapshots snapshots = open(ModelSnapshots::Earlier::keep);
  snapshots.offer_best(7, 2.0);
  text_ = "fails";
  EXPECT_THROW(snapshots.offer_best(7, 1.0), std::runtime_error);
  EXPECT_EQ(model_of("checkpoint_best"), "new");
  EXPECT_EQ(folders(), (std::set<std::string>{"checkpoint_best"}));
  text_ = "better";
  snapshots.offer_best(7, 1.5);
  EXPECT_EQ(model_of("checkpoint_best"), "better");
  snapshots.offer_best(7, 1.6);
  EXPECT_EQ(folders(), (std::set<std::string>{"checkpoint_best"}));
}

TEST_F(Snapshots, AResumedRunGoesOnWithItsOwn) {
  for (const char* folder :
       {"checkpoint_best", "checkpoints/step-5", "checkpoints/step-10", "checkpoints/step-15.superseded"})
    leave(folder);
  const auto at = [&](const char* name) { return temp_.path() / "checkpoints" / name; };
  ModelSnapshots snapshots = open(ModelSnapshots::Earlier::keep);
  snapshots.resume({at("step-5"), at("step-10")}, {at("step-15.superseded")}, 2.0);
  EXPECT_EQ(snapshots.newest(), at("step-10"));
  snapshots.offer_best(7, 2.5);
  EXPECT_EQ(model_of("checkpoint_best"), "earlier");
  text_ = "fails";
  EXPECT_THROW(snapshots.save_step(12, write_), std::runtime_error);
  EXPECT_TRUE(fs::exists(at("step-15.superseded")));
  text_ = "new";
  snapshots.save_step(12, write_);
  snapshots.save_step(12, write_);  // once more on the same step: it counts once
  EXPECT_EQ(folders(),
            (std::set<std::string>{"checkpoint_best", "checkpoints", "checkpoints/step-10", "checkpoints/step-12"}));
  snapshots.offer_best(7, 1.5);
  EXPECT_EQ(model_of("checkpoint_best"), "new");
}

// Into another folder goes the best model that the checkpoint knew, and no other one.
TEST_F(Snapshots, TheBestOfAnotherRunIsTakenOver) {
  text_ = "theirs";
  ModelSnapshots theirs(temp_.path() / "theirs", 2, ModelSnapshots::Earlier::keep, write_);
  theirs.offer_best(4, 0.1 + 0.2);
  text_ = "ours";
  ModelSnapshots ours(temp_.path() / "ours", 2, ModelSnapshots::Earlier::keep, write_);
  EXPECT_FALSE(ours.take_best(temp_.path() / "nowhere", 0.1 + 0.2));
  EXPECT_FALSE(ours.take_best(temp_.path() / "theirs", 0.3));  // of an evaluation that came later, or of another run
  EXPECT_FALSE(fs::exists(temp_.path() / "ours"));
  EXPECT_TRUE(ours.take_best(temp_.path() / "theirs", 0.1 + 0.2));
  ours.offer_best(8, 0.31);
  EXPECT_EQ(model_of("ours/checkpoint_best"), "theirs");
  EXPECT_EQ(read_json(temp_.path() / "ours/checkpoint_best/evaluation.json"), nlohmann::json({{"step", 4}, {"eval_loss", 0.1 + 0.2}}));
  ours.offer_best(12, 0.29);
  EXPECT_EQ(model_of("ours/checkpoint_best"), "ours");
  EXPECT_EQ(model_of("theirs/checkpoint_best"), "theirs");
}

TEST_F(Snapshots, StepFoldersAreOrderedByNumber) {
  for (const char* folder :
       {"checkpoints/step-10", "checkpoints/step-9", "checkpoints/step-9.superseded", "checkpoints/step-",
        "checkpoints/mine", "checkpoints/step-1x", "checkpoints/.step-11.incomplete"})
    leave(folder);
  const fs::path checkpoints = temp_.path() / "checkpoints";
  EXPECT_EQ(step_folders(checkpoints), (std::vector<fs::path>{checkpoints / "step-9", checkpoints / "step-10"}));
  EXPECT_TRUE(step_folders(temp_.path() / "none").empty());
}

// What a process that was killed leaves behind, at each point where that can happen.
TEST_F(Snapshots, RemainsAreClearedAndNothingElse) {
  for (const char* folder : {".step-5.incomplete", ".step-6.removed", ".step-7.old", ".step-8.old", "step-8",
                             ".mine.old", ".step-9.incomplete.keep", ".model.incomplete"})
    leave(folder);
  clear_remains(temp_.path());
  EXPECT_EQ(folders(), (std::set<std::string>{"step-7", "step-8", ".mine.old", ".step-9.incomplete.keep"}));
  clear_remains(temp_.path() / "none");
}

TEST_F(Snapshots, NewestIsWhatThisRunHasSavedLast) {
  leave("checkpoints/step-7");
  ModelSnapshots snapshots = open(ModelSnapshots::Earlier::keep);
  EXPECT_EQ(snapshots.newest(), "");
  snapshots.offer_best(7, 2.0);
  EXPECT_EQ(snapshots.newest(), temp_.path() / "checkpoint_best");
  snapshots.save_step(1, write_);
  snapshots.save_step(2, write_);
  EXPECT_EQ(snapshots.newest(), temp_.path() / "checkpoints" / "step-2");
}

TEST(WhatIsKept, NamesMetricsAndCheckpoint) {
  EXPECT_EQ(what_is_kept("out/metrics.jsonl", 0, ""), "no step was done, no checkpoint was saved (--save_interval)");
  EXPECT_EQ(what_is_kept("out/metrics.jsonl", 1, ""),
            "the metrics of 1 step are in out/metrics.jsonl, no checkpoint was saved (--save_interval)");
  EXPECT_EQ(what_is_kept("out/metrics.jsonl", 70, "out/checkpoints/step-50"),
            "the metrics of 70 steps are in out/metrics.jsonl, the newest checkpoint is out/checkpoints/step-50");
}

}  // namespace
}  // namespace llmfp8::testing
