#include "hub/checkpoint_source.h"

#include "core/bf16.h"
#include "hub/safetensors.h"
#include "hub/safetensors_writer.h"
#include "hub_test_util.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::error_of;
using testing::TempDir;
using testing::write_text;

TEST(CheckpointSource, ReadsAFolderInEveryDType) {
  const fs::path folder = testing::golden_dir() / "models" / "llama_tied";
  const auto source = open_model(folder);
  EXPECT_EQ(source->config().dtype, DType::f32);
  EXPECT_EQ(source->stored_as(), "F32");
  EXPECT_FALSE(source->has("lm_head.weight"));
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const Shape shape{96, 64};
  std::vector<float> full(96 * 64);
  std::vector<bf16> rounded(full.size());
  source->read_checked(name, shape, DType::f32, full.data());
  source->read_checked(name, shape, DType::bf16, rounded.data());
  const SafetensorsFile file = SafetensorsFile::open(folder / "model.safetensors");
  EXPECT_EQ(std::memcmp(full.data(), file.at(name).tensor.data, full.size() * 4), 0);
  for (std::size_t i = 0; i < full.size(); ++i) ASSERT_EQ(rounded[i].bits, to_bf16(full[i]).bits);

  EXPECT_TRUE(contains(error_of([&] { source->check("lm_head.weight", shape); }), "has no tensor 'lm_head.weight'"));
  EXPECT_TRUE(contains(error_of([&] { source->check(name, Shape{64, 96}); }), "has shape [96, 64], [64, 96] wanted"));
}

TEST(CheckpointSource, CompanionFilesAreCopiedByteForByte) {
  const TempDir dir;
  const fs::path golden = testing::golden_dir() / "models" / "qwen2";
  fs::copy_file(golden / "model.safetensors", dir.path() / "model.safetensors");
  fs::copy_file(golden / "config_v5.json", dir.path() / "config.json");
  write_text(dir.path() / "chat_template.jinja", "{{ x }}");
  write_text(dir.path() / "secret.txt", "no");
  const auto files = open_model(dir.path())->companion_files();
  EXPECT_EQ(files.size(), 2u);
  EXPECT_EQ(files.at("config.json"), read_text_file(golden / "config_v5.json"));
  EXPECT_EQ(files.at("chat_template.jinja"), "{{ x }}");
}

TEST(CheckpointSource, RefusesWhatIsNoModel) {
  const TempDir dir;
  EXPECT_TRUE(contains(error_of([&] { open_model(dir.path() / "none"); }), "does not exist"));
  EXPECT_TRUE(contains(error_of([&] { open_model(dir.path()); }), "model.safetensors"));
  write_text(dir.path() / "model.bin", "x");
  EXPECT_TRUE(contains(error_of([&] { open_model(dir.path() / "model.bin"); }), "neither a folder nor a .gguf file"));
  write_text(dir.path() / "model.gguf", "x");
  EXPECT_TRUE(contains(error_of([&] { open_model(dir.path() / "model.gguf"); }), "not a GGUF file"));

  fs::copy_file(testing::golden_dir() / "models" / "qwen2" / "config.json", dir.path() / "config.json");
  SafetensorsWriter writer(dir.path() / "model.safetensors", {{"model.norm.weight", DType::i8, Shape{2}}});
  writer.write("model.norm.weight", "ab", 2);
  writer.finish();
  EXPECT_TRUE(
      contains(error_of([&] { open_model(dir.path()); }), "'model.norm.weight' has dtype I8, F32, F16 or BF16 wanted"));
}

}  // namespace
}  // namespace llmfp8
