// The weight table against the golden models' files; loading, its errors, and that every parameter takes part in training.
#include "params/weight_table.h"

#include <fstream>
#include <set>

#include "core/adamw_math.h"
#include "hub/known_models.h"
#include "hub/safetensors_writer.h"
#include "params/load.h"
#include "train/engine_support.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

// A copy of a golden model whose tensors `change` has changed.
void write_changed(const std::string& model, const fs::path& folder, const std::function<void(HfTensors&)>& change) {
  const SafetensorsFile file = SafetensorsFile::open(model_dir(model) / "model.safetensors");
  HfTensors tensors;
  for (const std::string& name : file.names()) tensors[name] = {file.at(name).shape, floats(file.at(name))};
  change(tensors);
  fs::create_directories(folder);
  fs::copy_file(model_dir(model) / "config.json", folder / "config.json", fs::copy_options::overwrite_existing);
  write_hf_tensors(folder / "model.safetensors", tensors);
}

std::string load_error(const fs::path& folder) {
  const auto backend = create_cpu_backend();
  try {
    golden_engine(*backend, folder, EngineOptions(), {{128}, 1, 64});
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// The counts that the models' pages give.
TEST(WeightTable, KnownModelsHaveTheirPublishedSize) {
  const std::pair<const char*, std::int64_t> kPublished[] = {
      {"smollm2-135m", 134515008},   {"llama-3.2-1b", 1235814400}, {"qwen2.5-1.5b", 1543714304}, {"llama-3.2-3b", 3212749824},
      {"qwen2.5-7b", 7615616512},    {"llama-3.1-8b", 8030261248}, {"qwen2.5-14b", 14770033664},
  };
  EXPECT_EQ(known_model_names().size(), std::size(kPublished));
  for (const auto& [name, parameters] : kPublished) {
    const ModelConfig* config = find_known_model(name);
    ASSERT_NE(config, nullptr) << name;
    EXPECT_EQ(WeightTable(*config).num_parameters(), parameters) << name;
  }
  EXPECT_EQ(find_known_model("llama-3.2-2b"), nullptr);
}

TEST(WeightTable, CoversTheGoldenFilesExactly) {
  for (const char* model : kModels) {
    const SafetensorsFile file = SafetensorsFile::open(model_dir(model) / "model.safetensors");
    const WeightTable table(open_model(model_dir(model))->config());
    std::set<std::string> names;
    std::int64_t elements = 0;
    for (const ParamSpec& spec : table.params()) {
      EXPECT_EQ(spec.index, static_cast<int>(&spec - table.params().data()));
      EXPECT_EQ(&table.find(spec.kind, spec.layer), &spec) << spec.name;
      std::int64_t row = 0;
      for (const WeightSlice& slice : spec.slices) {
        EXPECT_TRUE(names.insert(slice.name).second) << slice.name;
        EXPECT_EQ(file.at(slice.name).shape, slice.shape) << slice.name;
        EXPECT_EQ(slice.row_begin, row) << slice.name;
        row += slice.shape[0];
        elements += slice.shape.numel();
        const bool bias_or_norm =
            slice.name.find("bias") != std::string::npos || slice.name.find("norm") != std::string::npos;
        EXPECT_EQ(spec.is_bias_or_norm, bias_or_norm) << slice.name;
      }
      EXPECT_EQ(row, spec.shape[0]) << spec.name;
    }
    EXPECT_EQ(names, std::set<std::string>(file.names().begin(), file.names().end())) << model;
    EXPECT_EQ(table.num_parameters(), elements);
  }
}

TEST(WeightTable, TiedHeadIsTheEmbedding) {
  const WeightTable tied(open_model(model_dir("llama_tied"))->config()),
      untied(open_model(model_dir("llama_untied"))->config());
  EXPECT_EQ(tied.find(ParamKind::lm_head).kind, ParamKind::embedding);
  EXPECT_FALSE(tied.has(ParamKind::lm_head));
  EXPECT_EQ(untied.find(ParamKind::lm_head).kind, ParamKind::lm_head);
  EXPECT_TRUE(untied.has(ParamKind::lm_head));
  EXPECT_FALSE(untied.has(ParamKind::qkv_bias));
  EXPECT_THROW(untied.find(ParamKind::qkv_bias, 0), Error);
  EXPECT_THROW(untied.find(ParamKind::qkv, 99), Error);
}

TEST(Loading, Fp32ValuesArriveBitForBit) {
  for (const char* model : kModels) {
    const auto backend = create_cpu_backend();
    EngineOptions options;
    options.dtype = DType::f32;
    const auto engine = golden_engine(*backend, model_dir(model), options, {{128}, 1, 64});
    const SafetensorsFile file = SafetensorsFile::open(model_dir(model) / "model.safetensors");
    for (const auto& [name, tensor] : hf_weights(*engine))
      EXPECT_TRUE(same_bits(tensor.values, floats(file.at(name)))) << name;
  }
}

// In bf16 with the exact update the low halves are kept: weight and remainder together are the file's fp32.
TEST(Loading, Bf16KeepsTheRemainder) {
  const auto backend = create_cpu_backend();
  const auto engine = golden_engine(*backend, model_dir("qwen2"), EngineOptions(), {{128}, 1, 64});
  const SafetensorsFile file = SafetensorsFile::open(model_dir("qwen2") / "model.safetensors");
  for (const ParamSpec& spec : engine->params().table().params()) {
    const std::uint16_t* high = engine->params().weight(spec.index).as<const std::uint16_t>();
    const std::uint16_t* low =
        engine->optimizer().state_tensor("optimizer.remainder." + spec.name).as<const std::uint16_t>();
    std::size_t i = 0;
    for (const WeightSlice& slice : spec.slices) {
      for (const float wanted : floats(file.at(slice.name))) {
        ASSERT_EQ(join_master({high[i], low[i]}), wanted) << slice.name;
        ++i;
      }
    }
  }
}

TEST(Loading, NamesWhatIsWrong) {
  const TempDir temp;
  write_changed("llama_untied", temp.path() / "missing",
                [](HfTensors& t) { t.erase("model.layers.1.mlp.up_proj.weight"); });
  EXPECT_NE(load_error(temp.path() / "missing").find("model.layers.1.mlp.up_proj.weight"), std::string::npos);
  write_changed("llama_untied", temp.path() / "shape", [](HfTensors& t) {
    auto& norm = t.at("model.norm.weight");
    norm.values.resize(63);
    norm.shape = Shape{63};
  });
  const std::string wrong_shape = load_error(temp.path() / "shape");
  for (const char* part : {"model.norm.weight", "[63]", "[64]"})
    EXPECT_NE(wrong_shape.find(part), std::string::npos) << wrong_shape;
  write_changed("llama_tied", temp.path() / "same_head",
                [](HfTensors& t) { t["lm_head.weight"] = t.at("model.embed_tokens.weight"); });
  EXPECT_EQ(load_error(temp.path() / "same_head"), "");
  write_changed("llama_tied", temp.path() / "other_head", [](HfTensors& t) {
    t["lm_head.weight"] = t.at("model.embed_tokens.weight");
    t["lm_head.weight"].values[5] += 1.0f;
  });
  EXPECT_NE(load_error(temp.path() / "other_head").find("lm_head.weight"), std::string::npos);
}

TEST(Training, MovesEveryParameter) {
  for (const char* model : kModels) {
    for (RecipeKind recipe : {RecipeKind::none, RecipeKind::standard, RecipeKind::mxfp8}) {
      const auto backend = create_cpu_backend();
      std::vector<ParityBatch> batches = {
          read_parity_batch(model_dir(model) / "batch.safetensors", open_model(model_dir(model))->config())};
      const BatchLimits limits = align_batches(batches);
      EngineOptions options;
      options.recipe = recipe;
      options.optimizer.weight_decay = 0.0;  // the gradient alone
      const auto engine = golden_engine(*backend, model_dir(model), options, limits);
      const HfTensors before = hf_weights(*engine);
      // AdamW's first step moves whatever has a gradient by the rate, more than half a bf16 step of any weight here.
      ASSERT_TRUE(engine->train_step(hosts(batches), 1e-2, 1.0).ok);
      const HfTensors after = hf_weights(*engine);
      for (const auto& [name, tensor] : before) {
        std::size_t moved = 0;
        for (std::size_t i = 0; i < tensor.values.size(); ++i)
          moved += tensor.values[i] != after.at(name).values[i] ? 1u : 0u;
        // Rows of tokens that do not occur stay, in an embedding that is not the head too.
        const bool sparse = name == "model.embed_tokens.weight" && !engine->config().tie_word_embeddings;
        EXPECT_GT(static_cast<double>(moved), (sparse ? 0.1 : 0.98) * static_cast<double>(tensor.values.size()))
            << model << " " << name;
      }
    }
  }
}

}  // namespace
}  // namespace llmfp8::testing
