// llm-fp8 parity: the file it writes against the golden one, its training lines, packed files, and what it refuses.
#include <fstream>

#include "cli/commands/commands.h"
#include "core/log.h"
#include "hub/safetensors_writer.h"
#include "train/engine_support.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

// Standard output of a run of the command.
std::string run(std::vector<std::string> args) {
  ::testing::internal::CaptureStdout();
  int code = -1;
  try {
    code = run_parity(args);
  } catch (...) {
    ::testing::internal::GetCapturedStdout();
    throw;
  }
  EXPECT_EQ(code, 0);
  return ::testing::internal::GetCapturedStdout();
}

std::string error_of(const std::vector<std::string>& args) {
  try {
    run(args);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::vector<std::string> golden_args(const std::string& model, std::vector<std::string> more) {
  std::vector<std::string> args = {"--model", model_dir(model).string(), "--batch",
                                   (model_dir(model) / "batch.safetensors").string()};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

TEST(ParityCommand, Fp8FlagsWithoutARecipeAreWarnedOf) {
  std::vector<std::string> warnings;
  log::set_writer([&](const std::string& message) {
    if (message.starts_with("warning:")) warnings.push_back(message);
  });
  run(golden_args("qwen2", {"--steps", "1", "--fp8_start", "te", "--fp8_lm_head"}));
  run(golden_args("qwen2", {"--steps", "1", "--fp8_start", "te", "--recipe", "hybrid"}));
  log::set_writer(nullptr);
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_NE(warnings[0].find("--fp8_lm_head has no effect without --recipe"), std::string::npos) << warnings[0];
  EXPECT_NE(warnings[1].find("--fp8_start has no effect without --recipe"), std::string::npos) << warnings[1];
}

TEST(ParityCommand, PlainRunIsTheGoldenFile) {
  for (const char* model : kModels) {
    const TempDir temp;
    const fs::path out = temp.path() / "out.safetensors";
    const nlohmann::json line = nlohmann::json::parse(run(golden_args(model, {"--out", out.string()})));
    const SafetensorsFile found = SafetensorsFile::open(out),
                          wanted = SafetensorsFile::open(model_dir(model) / "expected_fp32.safetensors");
    const SafetensorsFile batch = SafetensorsFile::open(model_dir(model) / "batch.safetensors");
    std::vector<std::int64_t> mask(static_cast<std::size_t>(batch.at("attention_mask").shape.numel()));
    std::memcpy(mask.data(), batch.at("attention_mask").tensor.data, mask.size() * sizeof(std::int64_t));
    EXPECT_EQ(found.names().size(), wanted.names().size());
    for (const std::string& name : wanted.names()) {
      ASSERT_NE(found.find(name), nullptr) << name;
      EXPECT_EQ(found.at(name).shape, wanted.at(name).shape) << name;
      std::vector<float> a = floats(found.at(name)), b = floats(wanted.at(name));
      if (name == "logits" || name.starts_with("hidden.")) {
        // The golden file holds values at padding too, this one zeros.
        const std::size_t width = static_cast<std::size_t>(wanted.at(name).tensor.cols());
        for (std::size_t i = 0; i < b.size(); ++i) {
          if (mask[i / width] == 1) continue;
          EXPECT_EQ(a[i], 0.0f);
          b[i] = 0.0f;
        }
      }
      if (name.starts_with("model.") || name == "lm_head.weight") {
        EXPECT_LT(rel_l2(a, b), 1e-5) << name;
      } else {
        EXPECT_LT(max_abs(a, b), name == "loss" ? 2e-6 : 1e-5) << name;
      }
    }
    EXPECT_NEAR(line["loss"].get<double>(), static_cast<double>(floats(wanted.at("loss"))[0]), 2e-6);
  }
}

TEST(ParityCommand, StepsFollowTheGoldenTrace) {
  const TempDir temp;
  const fs::path weights = temp.path() / "weights.safetensors";
  const std::string batch2 = (model_dir("qwen2") / "batch2.safetensors").string();
  std::istringstream lines(
      run(golden_args("qwen2", {"--steps", "10", "--batch2", batch2, "--out_weights", weights.string()})));
  const nlohmann::json expected = read_json(model_dir("qwen2") / "expected_train_ga2.json");
  std::string line;
  for (const nlohmann::json& wanted : expected["steps"]) {
    ASSERT_TRUE(std::getline(lines, line));
    const nlohmann::json found = nlohmann::json::parse(line);
    EXPECT_EQ(found["step"], wanted["step"]);
    EXPECT_NEAR(found["lr"].get<double>(), wanted["lr"].get<double>(), 1e-12);
    EXPECT_NEAR(found["loss"].get<double>(), wanted["loss"].get<double>(), 1e-5);
    EXPECT_NEAR(found["grad_norm"].get<double>() / wanted["grad_norm"].get<double>(), 1.0, 5e-6);
  }
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_NEAR(nlohmann::json::parse(line)["loss_after"].get<double>(), expected["loss_after"].get<double>(), 1e-5);
  EXPECT_FALSE(std::getline(lines, line));
  const SafetensorsFile final_weights =
      SafetensorsFile::open(model_dir("qwen2") / "expected_weights_ga2_step10.safetensors");
  const SafetensorsFile found = SafetensorsFile::open(weights);
  EXPECT_EQ(found.names().size(), final_weights.names().size());
  for (const std::string& name : final_weights.names()) {
    EXPECT_LT(rel_l2(floats(found.at(name)), floats(final_weights.at(name))),
              name.ends_with("k_proj.bias") ? 1e-3 : 4e-5)
        << name;
  }
}

TEST(ParityCommand, TakesPackedDocumentsAndEveryRecipe) {
  const TempDir temp;
  const std::string batch = (golden_dir() / "packing" / "qwen2" / "packed.safetensors").string();
  const SafetensorsFile expected =
      SafetensorsFile::open(golden_dir() / "packing" / "qwen2" / "expected_fp32.safetensors");
  const double wanted = static_cast<double>(floats(expected.at("loss"))[0]);
  for (const char* recipe : {"none", "default", "hybrid", "mxfp8", "current"}) {
    const std::string out = (temp.path() / recipe).string();
    const std::string line = run({"--model", model_dir("qwen2").string(), "--batch", batch, "--out", out, "--recipe",
                                  recipe, "--fp8_lm_head", "--recompute", "block"});
    EXPECT_NEAR(nlohmann::json::parse(line)["loss"].get<double>(), wanted,
                std::string(recipe) == "none" ? 2e-6 : 0.01 * wanted)
        << recipe;
    const SafetensorsFile written = SafetensorsFile::open(out);
    EXPECT_EQ(written.at("logits").shape[0], 1);
    EXPECT_EQ(written.at("logits").shape[1], SafetensorsFile::open(batch).at("input_ids").shape[0]);
  }
}

// ---- what it refuses

struct BadBatch {
  std::map<std::string, std::vector<std::int64_t>> tensors;
  std::map<std::string, Shape> shapes;

  // Two rows of four tokens, the second one with a token of padding.
  BadBatch() {
    set("input_ids", {5, 6, 7, 8, 9, 10, 11, 0}, Shape{2, 4});
    set("labels", {-100, 6, 7, 8, -100, 10, 11, -100}, Shape{2, 4});
    set("attention_mask", {1, 1, 1, 1, 1, 1, 1, 0}, Shape{2, 4});
  }
  void set(const std::string& name, std::vector<std::int64_t> values, Shape shape) {
    tensors[name] = std::move(values);
    shapes[name] = shape;
  }
  std::string error() const {
    const TempDir temp;
    const fs::path file = temp.path() / "bad.safetensors";
    std::vector<TensorDeclaration> declarations;
    for (const auto& [name, values] : tensors) declarations.push_back({name, DType::i64, shapes.at(name)});
    {
      SafetensorsWriter writer(file, declarations);
      for (const auto& [name, values] : tensors)
        writer.write(name, values.data(), values.size() * sizeof(std::int64_t));
      writer.finish();
    }
    try {
      read_parity_batch(file, open_model(model_dir("qwen2"))->config());
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find(file.string()), std::string::npos) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
      return text;
    }
    return "";
  }
};

void expect_parts(const std::string& error, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(error.find(part), std::string::npos) << "\"" << error << "\" lacks " << part;
}

TEST(ParityBatchFile, GoodOnesAreLaidEndToEnd) {
  EXPECT_EQ(BadBatch().error(), "");
  const ModelConfig config = open_model(model_dir("qwen2"))->config();
  const ParityBatch batch = read_parity_batch(model_dir("qwen2") / "batch.safetensors", config);
  EXPECT_EQ(batch.rows, 4);
  EXPECT_EQ(batch.columns, 48);
  EXPECT_EQ(batch.host.counts.num_docs, 4);
  EXPECT_EQ(batch.host.counts.num_supervised,
            read_json(model_dir("qwen2") / "expected_train.json")["supervised_tokens"].get<int>());
  EXPECT_EQ(batch.host.capacity % 128, 0);
  const ParityBatch packed = read_parity_batch(golden_dir() / "packing" / "qwen2" / "packed.safetensors", config);
  std::int64_t supervised = 0;
  const SafetensorsFile file = SafetensorsFile::open(golden_dir() / "packing" / "qwen2" / "packed.safetensors");
  std::memcpy(&supervised, file.at("supervised_tokens").tensor.data, sizeof supervised);
  EXPECT_EQ(packed.host.counts.num_supervised, supervised);
  EXPECT_EQ(packed.host.counts.num_docs, 3);
}

TEST(ParityBatchFile, BadOnesAreRefusedByName) {
  BadBatch bad;
  bad.tensors.erase("labels");
  expect_parts(bad.error(), {"labels"});
  bad = {};
  bad.set("labels", {1, 2, 3, 4}, Shape{1, 4});
  expect_parts(bad.error(), {"labels", "[1, 4]", "[2, 4]"});
  bad = {};
  bad.set("input_ids", {5, 6, 7, 8, 9, 10, 11, 0}, Shape{8});
  expect_parts(bad.error(), {"input_ids", "[8]", "[B, S]"});
  bad = {};
  bad.tensors["input_ids"][2] = 320;
  expect_parts(bad.error(), {"input_ids[2]", "320"});
  bad = {};
  bad.tensors["input_ids"][0] = -1;
  expect_parts(bad.error(), {"input_ids[0]", "-1"});
  bad = {};
  bad.tensors["labels"][1] = 4294967297;
  expect_parts(bad.error(), {"labels[1]", "4294967297"});
  bad = {};
  bad.tensors["attention_mask"] = {0, 1, 1, 1, 1, 1, 1, 0};
  expect_parts(bad.error(), {"attention_mask", "row 0", "on the right"});
  bad = {};
  bad.tensors["attention_mask"] = {1, 0, 1, 1, 1, 1, 1, 0};
  expect_parts(bad.error(), {"attention_mask", "row 0"});
  bad = {};
  bad.tensors["labels"] = std::vector<std::int64_t>(8, -100);
  expect_parts(bad.error(), {"labels", "no token"});
  bad = {};
  bad.set("input_ids", {}, Shape{0, 4});
  EXPECT_NE(bad.error(), "");
}

TEST(ParityBatchFile, BadPackedOnesAreRefusedByName) {
  BadBatch good;
  good.tensors.clear();
  good.set("input_ids", {5, 6, 7, 8, 9}, Shape{5});
  good.set("labels", {-100, 6, 7, -100, 9}, Shape{5});
  good.set("position_ids", {0, 1, 2, 0, 1}, Shape{5});
  good.set("cu_seqlens", {0, 3, 5}, Shape{3});
  EXPECT_EQ(good.error(), "");
  BadBatch bad = good;
  bad.tensors["cu_seqlens"][2] = 6;
  expect_parts(bad.error(), {"cu_seqlens", "6", "5"});
  bad = good;
  bad.set("cu_seqlens", {0, 3, 3, 5}, Shape{4});
  expect_parts(bad.error(), {"cu_seqlens[1]", "3"});
  bad = good;
  bad.tensors["position_ids"][3] = 3;
  expect_parts(bad.error(), {"position_ids[3]", "3", "0"});
}

TEST(ParityCommand, RefusesFlagsThatMakeNoSense) {
  const auto kind = [](const std::vector<std::string>& args) {
    try {
      run(args);
    } catch (const Error& error) {
      return error.kind();
    }
    return ErrorKind::run;
  };
  EXPECT_EQ(kind(golden_args("qwen2", {})), ErrorKind::usage);
  expect_parts(error_of(golden_args("qwen2", {})), {"--out", "--steps"});
  expect_parts(error_of(golden_args("qwen2", {"--out", "x", "--learning_rate", "1"})), {"--learning_rate", "--steps"});
  expect_parts(error_of(golden_args("qwen2", {"--out", "x", "--recipe", "fp4"})), {"recipe", "fp4", "mxfp8"});
  expect_parts(error_of(golden_args("qwen2", {"--out", "/no/such/folder/x"})), {"/no/such/folder/x"});
  expect_parts(error_of({"--model", model_dir("qwen2").string(), "--batch", "/no/such/batch", "--out", "x"}),
               {"/no/such/batch"});
}

}  // namespace
}  // namespace llmfp8::testing
