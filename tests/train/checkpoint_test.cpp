// A checkpoint of an engine and back: every byte that a step may change, in every recipe, from copies and straight from
// the device, in shards, and beside a model that does not hold the weights exactly. And what does not fit is named.
#include "train/checkpoint.h"

#include <algorithm>
#include <limits>

#include "core/log.h"
#include "train/checkpoint_saver.h"
#include "train/engine_support.h"
#include "train/host_copy.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

// A golden model whose weights are stored as `dtype`.
void write_model(const fs::path& folder, DType dtype) {
  write_golden_weights("llama_tied", folder, [&](const std::string&) { return dtype; });
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) write_file_atomically(folder / name, "{}");
}

struct Side {
  std::unique_ptr<WeightSource> source;
  std::unique_ptr<Engine> engine;
  ExportSpec spec;
};

const auto kManyBytes = [] { return std::numeric_limits<std::size_t>::max(); };

class CheckpointTest : public ::testing::Test {
 protected:
  Side open(const EngineOptions& options, DType stored = DType::bf16) {
    const fs::path folder = temp_.path() / ("model-" + std::string(name(stored)));
    if (!fs::exists(folder)) write_model(folder, stored);
    Side side;
    side.source = open_model(folder);
    side.engine = golden_engine(*backend_, folder, options, {{128}, 1, 128});
    side.spec = ExportSpec::of(*side.source, side.engine->params().table());
    return side;
  }
  void train(Side& side, int steps, std::uint64_t seed) {
    for (int i = 0; i < steps; ++i) {
      const ParityBatch batch = random_batch(side.engine->config(), {90}, seed + static_cast<std::uint64_t>(i));
      EXPECT_TRUE(side.engine->train_step({&batch.host, 1}, 1e-2, 1.0).ok);
    }
  }
  CheckpointContent content(const Side& side) const {
    const EngineCounters counters = side.engine->counters();
    nlohmann::ordered_json state = {
        {"step", counters.steps_done},
        {"engine", {{"steps_done", counters.steps_done}, {"calibrated", counters.calibrated}}}};
    return {&side.spec, &side.engine->params(), tensors_beside_model(*side.engine, side.spec), state};
  }
  void save(const Side& side, const fs::path& folder, std::size_t max_shard_bytes = std::size_t{5} << 30) {
    fs::create_directories(folder);
    CheckpointContent what = content(side);
    what.max_shard_bytes = max_shard_bytes;
    DeviceBytes values(*backend_, side.engine->stream());
    write_checkpoint(what, values, folder);
  }
  std::string error_of(const fs::path& folder, Side& side) {
    try {
      Checkpoint::open(folder).load(*side.engine, side.spec);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  TempDir temp_;
  std::unique_ptr<Backend> backend_ = create_cpu_backend();
  fs::path folder_ = temp_.path() / "step-3";
};

std::vector<EngineOptions> all_options() {
  std::vector<EngineOptions> list;
  for (const RecipeKind recipe : kFp8Recipes) {
    list.emplace_back().recipe = recipe;
    list.back().fp8_lm_head = recipe == RecipeKind::standard;
  }
  list.emplace_back().dtype = DType::f32;
  for (const OptimState state : {OptimState::bf16, OptimState::eight_bit}) {
    list.emplace_back().optimizer.state = state;
    list.back().optimizer.weight_update = WeightUpdate::stochastic;
  }
  return list;
}

TEST_F(CheckpointTest, GivesEveryByteBack) {
  for (const EngineOptions& options : all_options()) {
    for (const DType stored : {DType::bf16, DType::f16, DType::f32}) {
      SCOPED_TRACE(std::string(Recipe(options.recipe).name()) + ", stored as " + std::string(name(stored)));
      fs::remove_all(folder_);
      Side a = open(options, stored), b = open(options, stored);
      train(a, 3, 100);
      save(a, folder_);
      EXPECT_NE(state_bytes(*a.engine), state_bytes(*b.engine));
      const Checkpoint checkpoint = Checkpoint::open(folder_);
      EXPECT_EQ(checkpoint.step(), 3);
      checkpoint.load(*b.engine, b.spec);
      EXPECT_EQ(state_bytes(*a.engine), state_bytes(*b.engine));
      train(a, 2, 200);
      train(b, 2, 200);
      EXPECT_EQ(state_bytes(*a.engine), state_bytes(*b.engine));
      EXPECT_EQ(a.engine->steps_done(), b.engine->steps_done());
    }
  }
}

TEST_F(CheckpointTest, WeightsAreInTheModelUnlessItsFilesRoundThem) {
  const auto has_weights = [&](DType dtype, DType stored) {
    EngineOptions options;
    options.dtype = dtype;
    const Side side = open(options, stored);
    const std::vector<NamedTensor> tensors = tensors_beside_model(*side.engine, side.spec);
    const auto weights = std::count_if(tensors.begin(), tensors.end(),
                                       [](const NamedTensor& t) { return t.name.starts_with("weight."); });
    EXPECT_TRUE(weights == 0 || weights == static_cast<std::int64_t>(side.engine->params().table().params().size()));
    return weights > 0;
  };
  EXPECT_FALSE(has_weights(DType::bf16, DType::bf16));
  EXPECT_FALSE(has_weights(DType::bf16, DType::f32));
  EXPECT_TRUE(has_weights(DType::bf16, DType::f16));
  EXPECT_FALSE(has_weights(DType::f32, DType::f32));
  EXPECT_TRUE(has_weights(DType::f32, DType::bf16));
}

TEST_F(CheckpointTest, ShardsGiveTheSame) {
  Side a = open({}), b = open({});
  train(a, 2, 1);
  save(a, folder_, 100'000);
  const nlohmann::ordered_json shards = Checkpoint::open(folder_).state().at("shards");
  ASSERT_GE(shards.size(), 3u);
  EXPECT_EQ(shards[0], fmt::format("state/training_state-00001-of-{:05}.safetensors", shards.size()));
  Checkpoint::open(folder_).load(*b.engine, b.spec);
  EXPECT_EQ(state_bytes(*a.engine), state_bytes(*b.engine));
}

std::string all_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::string text;
  for (const fs::path& file : files) text += fs::relative(file, folder).string() + "\n" + read_text_file(file);
  return text;
}

// Training goes on while the files are written: they hold the moment of save(). Without memory for copies it waits,
// says so once, and writes the same.
TEST_F(CheckpointTest, SaverWritesTheMomentItWasAskedFor) {
  Side side = open(all_options()[0]);
  std::vector<std::string> said;
  log::set_writer([&](const std::string& message) { said.push_back(message); });
  std::string files[2];
  train(side, 2, 1);
  const nlohmann::ordered_json state = content(side).state;
  for (const std::size_t memory : {std::size_t{0}, std::numeric_limits<std::size_t>::max()}) {
    ModelSnapshots snapshots(temp_.path() / "run", 2, ModelSnapshots::Earlier::keep, {});
    CheckpointSaver saver(*side.engine, side.spec, snapshots, {.host_bytes = [memory] { return memory; }});
    saver.save(2, state);
    if (memory > 0) train(side, 3, 50);  // after the save without copies, which has ended by now
    saver.wait();
    EXPECT_EQ(saver.waited_for_files(), memory == 0);
    EXPECT_TRUE(saver.failed().empty());
    files[memory > 0 ? 1 : 0] = all_files(snapshots.newest());
  }
  log::set_writer(nullptr);
  EXPECT_TRUE(files[0] == files[1]);
  EXPECT_FALSE(files[0].empty());
  EXPECT_EQ(std::count_if(said.begin(), said.end(),
                          [](const std::string& s) { return s.find("while training waits") != std::string::npos; }),
            1);
}

// A run that goes on behind step 4, with an interval of 4: 7 and 8 may be done while 6 is written, but 11 not while 10 is,
// for then 6 is the newest whole one. With --save_ahead 1, 11 may and 12 waits.
TEST_F(CheckpointTest, NoStepIsDoneThatAKillWouldCostTooMuch) {
  Side side = open(all_options()[0]);
  train(side, 2, 1);
  const nlohmann::ordered_json state = content(side).state;
  for (const std::int64_t ahead : {0, 1}) {
    SCOPED_TRACE(ahead);
    ModelSnapshots snapshots(temp_.path() / ("ahead" + std::to_string(ahead)), 2, ModelSnapshots::Earlier::keep, {});
    CheckpointSaver saver(*side.engine, side.spec, snapshots, {.host_bytes = kManyBytes, .first_step = 4, .most_lost = 4 + ahead});
    EXPECT_FALSE(saver.must_wait(100));  // nothing is being written: waiting would not help
    saver.save(6, state);  // as SIGUSR1 asks for: 7 and 8 may be done
    EXPECT_FALSE(saver.waited_for_files());
    EXPECT_FALSE(saver.must_wait(8));
    saver.wait();
    saver.save(10, state);
    // 6 is whole, so 11 is one too many.
    EXPECT_EQ(saver.waited_for_files(), ahead == 0);
    if (ahead == 0) {
      EXPECT_EQ(snapshots.newest().filename(), "step-10");
    }
    EXPECT_FALSE(saver.must_wait(11));
    // By then 10 may have become whole by itself, but never later than this.
    if (saver.must_wait(12)) saver.wait();
    EXPECT_FALSE(saver.must_wait(12));
    saver.wait();
    EXPECT_EQ(snapshots.newest().filename(), "step-10");
    EXPECT_FALSE(saver.must_wait(14));
  }
}

TEST_F(CheckpointTest, AFailedSaveIsCountedAndTheNextOneIsTried) {
  Side side = open({});
  ModelSnapshots snapshots(temp_.path() / "run", 2, ModelSnapshots::Earlier::keep, {});
  CheckpointSaver saver(*side.engine, side.spec, snapshots, {.host_bytes = kManyBytes});
  write_file_atomically(temp_.path() / "run", "a file where the folder should be");
  std::vector<std::string> said;
  log::set_writer([&](const std::string& message) { said.push_back(message); });
  saver.save(4, content(side).state);
  saver.wait();
  fs::remove(temp_.path() / "run");
  saver.save(8, content(side).state);
  saver.wait();
  log::set_writer(nullptr);
  EXPECT_EQ(saver.failed(), (std::vector<std::int64_t>{4}));
  ASSERT_EQ(said.size(), 2u);
  EXPECT_TRUE(said[0].starts_with("warning: the checkpoint of step 4 was not saved: ")) << said[0];
  EXPECT_EQ(snapshots.newest().filename(), "step-8");
}

TEST_F(CheckpointTest, WhatDoesNotFitIsNamed) {
  Side side = open({});
  train(side, 1, 1);
  save(side, folder_);
  EngineOptions other;
  other.optimizer.state = OptimState::bf16;
  Side narrow = open(other);
  EXPECT_NE(
      error_of(folder_, narrow).find("tensor optimizer.m.model.embed_tokens: f32 [32768] found, bf16 [32768] wanted"),
      std::string::npos)
      << error_of(folder_, narrow);
  Side fp8 = open(all_options()[0]);
  EXPECT_NE(error_of(folder_, fp8).find("tensor fp8.amax is missing"), std::string::npos) << error_of(folder_, fp8);
  fs::remove_all(folder_);
  save(fp8, folder_);
  EXPECT_NE(error_of(folder_, side).find("tensor fp8.amax is none of this run's"), std::string::npos)
      << error_of(folder_, side);

  // Another format, with checksums that agree.
  const fs::path file = folder_ / "state/state.json";
  nlohmann::ordered_json state = nlohmann::ordered_json::parse(read_text_file(file));
  state["format"] = 2;
  write_file_atomically(file, state.dump());
  EXPECT_NE(error_of(folder_, fp8).find("state.json': "), std::string::npos);
  write_checksums(folder_);
  EXPECT_NE(error_of(folder_, fp8).find("format 2 found, 1 wanted"), std::string::npos) << error_of(folder_, fp8);
  fs::remove(file);
  EXPECT_NE(error_of(folder_, fp8).find("holds no training state"), std::string::npos) << error_of(folder_, fp8);
}

TEST_F(CheckpointTest, ChecksumsThatAreNoneAreNamed) {
  Side side = open({});
  save(side, folder_);
  for (const char* text :
       {"", "{", "[]", "{}", R"({"files": []})", R"({"files": {"config.json": 1}})",
        R"({"files": {"config.json": {"bytes": -1, "crc32c": "0"}}})", R"({"files": {"config.json": {"bytes": 1}}})",
        R"({"files": {"nothing": {"bytes": 1, "crc32c": "00000000"}}})"}) {
    write_file_atomically(folder_ / "checksums.json", text);
    EXPECT_NE(error_of(folder_, side), "") << text;
  }
}

TEST_F(CheckpointTest, CopiesRefuseWhatTheyDoNotHold) {
  Side side = open({});
  const Tensor copied = side.engine->params().weight(0), other = side.engine->params().weight(1);
  HostCopy copy({copied}, *backend_, side.engine->stream());
  EXPECT_EQ(std::memcmp(copy.read(copied, 2, 8).data(), static_cast<const std::byte*>(copied.data) + 2, 8), 0);
  EXPECT_THROW(copy.read(other, 0, 1), Error);
  EXPECT_THROW(copy.read(copied, copied.bytes(), 1), Error);
}

}  // namespace
}  // namespace llmfp8::testing
