// The exported folder: same keys, dtypes and files as the source; shards; replaced as a whole; clear errors.
#include "params/export.h"

#include <fstream>
#include <set>
#include <sstream>

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>

#include "hub/file_io.h"
#include "train/engine_support.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

struct Exporter {
  std::unique_ptr<Backend> backend = create_cpu_backend();
  std::unique_ptr<WeightSource> source;
  std::unique_ptr<Engine> engine;
  ExportSpec spec;

  explicit Exporter(const fs::path& folder, DType dtype = DType::bf16) : source(open_model(folder)) {
    EngineOptions options;
    options.dtype = dtype;
    engine = golden_engine(*backend, folder, options, {{128}, 1, 64});
    spec = ExportSpec::of(*source, engine->params().table());
  }
  void write(const fs::path& folder) { export_model(spec, engine->params(), *backend, engine->stream(), folder); }
};

// A golden model in other dtypes, with the files that go with one.
void write_source(const std::string& model, const fs::path& folder, DType dtype) {
  // Norms stay fp32, as some published checkpoints have it.
  write_golden_weights(model, folder, [&](const std::string& name) { return name.find("norm") != std::string::npos ? DType::f32 : dtype; });
  write_file_atomically(folder / "tokenizer.json", "{\"a\": \"\xC3\xA9\\u00e9\"}\n\n");
  write_file_atomically(folder / "tokenizer_config.json", "{ \"chat_template\" : \"x\"}");
  write_file_atomically(folder / "generation_config.json", "{\"eos_token_id\": [2, 3]}");
}

std::set<std::string> files_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
  return names;
}

TEST(Export, HasTheKeysDtypesAndFilesOfItsSource) {
  for (const char* model : kModels) {
    for (DType dtype : {DType::bf16, DType::f16}) {
      const TempDir temp;
      const fs::path from = temp.path() / "from", to = temp.path() / "to";
      write_source(model, from, dtype);
      fs::create_directories(to);
      Exporter exporter(from);
      exporter.write(to);
      EXPECT_EQ(files_in(to), files_in(from)) << model;
      for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
        EXPECT_EQ(read_text_file(to / file), read_text_file(from / file)) << file;
      }
      const SafetensorsFile a = SafetensorsFile::open(from / "model.safetensors"),
                            b = SafetensorsFile::open(to / "model.safetensors");
      EXPECT_EQ(std::set<std::string>(a.names().begin(), a.names().end()),
                std::set<std::string>(b.names().begin(), b.names().end()));
      EXPECT_EQ(b.metadata().at("format"), "pt");
      for (const std::string& name : a.names()) {
        EXPECT_EQ(a.at(name).dtype, b.at(name).dtype) << name;
        EXPECT_EQ(a.at(name).shape, b.at(name).shape) << name;
        // Untrained bf16 weights come back as they went in.
        if (a.at(name).dtype == DType::bf16) {
          EXPECT_EQ(std::memcmp(a.at(name).tensor.data, b.at(name).tensor.data, a.at(name).tensor.bytes()), 0) << name;
        }
      }
      // And the folder is a model again, with the values that the engine computes with.
      Exporter again(to);
      EXPECT_TRUE(same_bits(hf_weights(*again.engine), hf_weights(*exporter.engine))) << model << " " << name(dtype);
    }
  }
}

TEST(Export, WritesAnExplicitHeadOfATiedModelBack) {
  const TempDir temp;
  const SafetensorsFile file = SafetensorsFile::open(model_dir("llama_tied") / "model.safetensors");
  HfTensors tensors;
  for (const std::string& name : file.names()) tensors[name] = {file.at(name).shape, floats(file.at(name))};
  tensors["lm_head.weight"] = tensors.at("model.embed_tokens.weight");
  const fs::path from = temp.path() / "from", to = temp.path() / "to";
  fs::create_directories(from);
  fs::create_directories(to);
  fs::copy_file(model_dir("llama_tied") / "config.json", from / "config.json");
  write_hf_tensors(from / "model.safetensors", tensors);
  Exporter exporter(from, DType::f32);
  exporter.write(to);
  const SafetensorsFile written = SafetensorsFile::open(to / "model.safetensors");
  EXPECT_TRUE(same_bits(floats(written.at("lm_head.weight")), floats(written.at("model.embed_tokens.weight"))));
}

TEST(Export, ShardsHaveAnIndexThatIsRemovedWithThem) {
  const TempDir temp;
  Exporter exporter(model_dir("qwen2"), DType::f32);
  exporter.spec.max_shard_bytes = 100000;
  exporter.write(temp.path());
  const nlohmann::json index = read_json(temp.path() / "model.safetensors.index.json");
  std::set<std::string> shards;
  for (const auto& [name, shard] : index["weight_map"].items()) shards.insert(shard.get<std::string>());
  EXPECT_GT(shards.size(), 2u);
  EXPECT_EQ(index["weight_map"].size(), exporter.spec.tensors.size());
  std::size_t bytes = 0;
  for (const std::string& shard : shards) {
    const SafetensorsFile file = SafetensorsFile::open(temp.path() / shard);
    for (const std::string& name : file.names()) {
      EXPECT_EQ(index["weight_map"][name], shard) << name;
      bytes += file.at(name).tensor.bytes();
    }
  }
  EXPECT_EQ(index["metadata"]["total_size"], bytes);
  Exporter again(temp.path(), DType::f32);
  EXPECT_TRUE(same_bits(hf_weights(*again.engine), hf_weights(*exporter.engine)));

  // One file now: neither the index nor the shards may stay.
  exporter.spec.max_shard_bytes = std::size_t{5} << 30;
  exporter.write(temp.path());
  for (const std::string& name : files_in(temp.path())) {
    EXPECT_FALSE(name.starts_with("model-")) << name;
    EXPECT_NE(name, "model.safetensors.index.json");
  }
  EXPECT_TRUE(same_bits(hf_weights(*Exporter(temp.path(), DType::f32).engine), hf_weights(*exporter.engine)));

  // And the other way: the single file must not stay beside the shards.
  exporter.spec.max_shard_bytes = 100000;
  exporter.write(temp.path());
  EXPECT_FALSE(fs::exists(temp.path() / "model.safetensors"));
}

// A vocabulary or template of the model before would be read with the new one.
TEST(Export, FilesThatTheNewModelLacksGo) {
  const TempDir temp;
  const fs::path rich = temp.path() / "rich", plain = temp.path() / "plain", to = temp.path() / "to";
  for (const fs::path& folder : {rich, plain}) write_source("qwen2", folder, DType::bf16);
  const std::vector<std::string> extra = {"merges.txt",           "vocab.json",        "chat_template.jinja",
                                          "special_tokens_map.json", "added_tokens.json", "chat_template.json"};
  for (const std::string& file : extra) write_file_atomically(rich / file, "{}");
  fs::remove(plain / "generation_config.json");
  fs::create_directories(to);
  write_file_atomically(to / "merges.txt", "kept: no model was here before");
  Exporter(plain).write(to);
  EXPECT_TRUE(fs::exists(to / "merges.txt"));

  Exporter(rich).write(to);
  for (const std::string& file : extra) EXPECT_TRUE(fs::exists(to / file)) << file;
  for (const char* file : {"LICENSE", "run.json", "notes.txt"}) write_file_atomically(to / file, "kept");
  Exporter(plain).write(to);
  std::set<std::string> wanted = files_in(plain);
  wanted.insert({"LICENSE", "run.json", "notes.txt"});
  EXPECT_EQ(files_in(to), wanted);
}

TEST(Export, UnwritableFolderIsOneClearError) {
  const TempDir temp;
  Exporter exporter(model_dir("qwen2"));
  write_file_atomically(temp.path() / "file", "x");
  for (const fs::path& to : {temp.path() / "file" / "model", temp.path() / "file"}) {
    try {
      exporter.write(to);
      FAIL() << to;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find((temp.path() / "file").string()), std::string::npos) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
}

TEST(Export, ReadOnlyFolderIsAnError) {
  if (geteuid() == 0) GTEST_SKIP() << "root may write to a read-only folder";
  const TempDir temp;
  Exporter exporter(model_dir("qwen2"));
  fs::create_directories(temp.path() / "locked");
  fs::permissions(temp.path() / "locked", fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_THROW(exporter.write(temp.path() / "locked"), Error);
  fs::permissions(temp.path() / "locked", fs::perms::owner_all);
}

// A disk that is full in the middle (here: a limit on the size of a file): an error, nothing left, the old model stays.
TEST(Export, FullDiskLeavesTheOldModel) {
  const TempDir temp;
  Exporter exporter(model_dir("qwen2"), DType::f32);
  exporter.write(temp.path());
  const std::set<std::string> before = files_in(temp.path());
  const std::string old = read_text_file(temp.path() / "model.safetensors");
  float* weight = exporter.engine->params().weight(0).as<float>();
  weight[0] += 1.0f;

  rlimit unlimited{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  rlimit small = unlimited;
  small.rlim_cur = 50000;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THROW(exporter.write(temp.path()), Error);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
  std::signal(SIGXFSZ, handler);

  EXPECT_EQ(files_in(temp.path()), before);
  EXPECT_EQ(read_text_file(temp.path() / "model.safetensors"), old);
  exporter.write(temp.path());
  EXPECT_NE(read_text_file(temp.path() / "model.safetensors"), old);
}

}  // namespace
}  // namespace llmfp8::testing
