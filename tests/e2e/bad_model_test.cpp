// Models, tokenizers and data sets with something wrong in them: one line that says what, exit code 1 or 2, nothing written.
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <ostream>

#include <gtest/gtest.h>

#include "e2e/workshop.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

struct Case {
  const char* name;
  int code;
  std::vector<std::string> wanted;         // parts of the error line
  std::function<Args(Workshop&)> prepare;  // returns flags
};

void PrintTo(const Case& given, std::ostream* out) { *out << given.name; }

class BadInput : public ::testing::TestWithParam<Case> {};

TEST_P(BadInput, OneLineAndNothingWritten) {
  Workshop shop;
  const Finished run = run_program("train_fp8", shop.args(GetParam().prepare(shop)));
  EXPECT_EQ(run.code, GetParam().code) << run.err;
  ASSERT_EQ(run.errors().size(), 1u) << run.err;
  for (const std::string& part : GetParam().wanted)
    EXPECT_NE(run.errors()[0].find(part), std::string::npos) << part << " in\n" << run.err;
  EXPECT_FALSE(fs::exists(shop.output())) << files_below(shop.output()).size();
  EXPECT_EQ(files_below(shop.logs()), std::vector<std::string>{});
  EXPECT_EQ(run.out, "");
}

using Edit = std::function<void(Safetensors&)>;

// The golden model with its weights file changed.
std::function<Args(Workshop&)> weights(Edit edit) {
  return [edit](Workshop& shop) {
    Safetensors file = Safetensors::read(shop.path("model") / "model.safetensors");
    edit(file);
    file.write(shop.path("model") / "model.safetensors");
    return Args{};
  };
}

std::function<Args(Workshop&)> raw(const char* file, std::function<std::string(std::string)> edit) {
  return [file, edit](Workshop& shop) {
    write_bytes(shop.path("model") / file, edit(read_bytes(shop.path("model") / file)));
    return Args{};
  };
}

std::function<Args(Workshop&)> config(const char* key, Json value) {
  return [key, value](Workshop& shop) {
    Json json = Json::parse(read_bytes(shop.path("model") / "config.json"));
    json[key] = value;
    write_bytes(shop.path("model") / "config.json", json.dump());
    return Args{};
  };
}

std::function<Args(Workshop&)> rows(const std::string& text) {
  return [text](Workshop& shop) {
    write_bytes(shop.path("rows.jsonl"), text);
    return Args{};
  };
}

std::function<Args(Workshop&)> flags(Args given) {
  return [given](Workshop&) { return given; };
}

std::string number(std::uint64_t value) { return std::string(reinterpret_cast<const char*>(&value), sizeof value); }

constexpr const char* kQ = "model.layers.0.self_attn.q_proj.weight";

std::string all_but_tail(const std::string& bytes) { return bytes.substr(0, bytes.size() - 1000); }

// A GGUF file that ends after its counts: version 3.
std::string gguf_header(std::uint64_t tensors, std::uint64_t values) {
  const std::uint32_t version = 3;
  return "GGUF" + std::string(reinterpret_cast<const char*>(&version), sizeof version) + number(tensors) +
         number(values);
}

std::function<Args(Workshop&)> gguf(const std::string& bytes) {
  return [bytes](Workshop& shop) {
    write_bytes(shop.path("model.gguf"), bytes);
    return Args{"--model_name", shop.path("model.gguf").string()};
  };
}

std::function<Args(Workshop&)> tokenizer(std::function<void(nlohmann::json&)> edit) {
  return [edit](Workshop& shop) {
    nlohmann::json json = read_json(shop.path("model") / "tokenizer.json");
    edit(json);
    write_bytes(shop.path("model") / "tokenizer.json", json.dump());
    return Args{};
  };
}

const Case kModels[] = {
    {"no_such_folder", 2, {"--model_name", "no-such-model", "neither"}, flags({"--model_name", "no-such-model"})},
    {"hub_name_not_there",
     1,
     {"--model_name", "meta-llama/Llama-3.2-1B", "cache"},
     flags({"--model_name", "meta-llama/Llama-3.2-1B"})},
    {"gated_model_half_in_the_cache",
     1,
     {"models--org--gated", "missing"},
     [](Workshop& shop) {
       // What huggingface_hub leaves behind when the download of a gated repository is refused.
       write_bytes(shop.path("hub/models--org--gated/refs/main"), "0123abcd");
       fs::create_directories(shop.path("hub/models--org--gated/snapshots"));
       return Args{"--model_name", "org/gated", "--weights_cache_dir", shop.path("hub").string()};
     }},
    {"model_is_a_file",
     2,
     {"--model_name", "is a file"},
     [](Workshop& shop) {
       return Args{"--model_name", shop.path("rows.jsonl").string()};
     }},
    {"no_config",
     1,
     {"config.json"},
     [](Workshop& shop) {
       fs::remove(shop.path("model/config.json"));
       return Args{};
     }},
    {"config_is_no_json",
     1,
     {"config.json", "JSON"},
     raw("config.json", [](std::string) { return "{\"model_type\": "; })},
    {"other_model_type",
     1,
     {"config.json", "mistral", "Llama", "Qwen2"},
     [](Workshop& shop) {
       config("architectures", {"MistralForCausalLM"})(shop);
       return config("model_type", "mistral")(shop);
     }},
    {"no_weights",
     1,
     {"model.safetensors"},
     [](Workshop& shop) {
       fs::remove(shop.path("model/model.safetensors"));
       return Args{};
     }},
    {"missing_tensor", 1, {kQ, "missing"}, weights([](Safetensors& file) { file.remove(kQ); })},
    {"wrong_shape", 1, {kQ, "[64, 128]", "[128, 64]"}, weights([](Safetensors& file) {
       file.header[kQ]["shape"] = {64, 128};
     })},
    {"wrong_shape_by_config", 1, {"embed_tokens", "512", "500"}, config("vocab_size", 500)},
    {"wrong_dtype", 1, {kQ, "I32"}, weights([](Safetensors& file) { file.header[kQ]["dtype"] = "I32"; })},
    {"unknown_dtype", 1, {kQ, "F7"}, weights([](Safetensors& file) { file.header[kQ]["dtype"] = "F7"; })},
    {"shape_overflows", 1, {kQ}, weights([](Safetensors& file) {
       file.header[kQ]["shape"] = {std::int64_t{1} << 40, std::int64_t{1} << 40};
     })},
    {"offsets_overflow", 1, {kQ}, weights([](Safetensors& file) {
       file.header[kQ]["data_offsets"] = {0, std::numeric_limits<std::uint64_t>::max()};
     })},
    {"weights_truncated", 1, {"model.safetensors"}, raw("model.safetensors", all_but_tail)},
    {"weights_empty",
     1,
     {"model.safetensors", "empty"},
     raw("model.safetensors", [](std::string) { return std::string(); })},
    {"weights_are_not_safetensors",
     1,
     {"model.safetensors"},
     raw("model.safetensors", [](std::string) { return "version https://git-lfs.github.com/spec/v1\n"; })},
    {"weights_header_size_overflows",
     1,
     {"model.safetensors"},
     raw("model.safetensors",
         [](std::string bytes) { return number(std::numeric_limits<std::uint64_t>::max() - 4) + bytes.substr(8); })},
    {"weights_header_corrupt",
     1,
     {"model.safetensors"},
     raw("model.safetensors", [](std::string bytes) { return bytes.replace(40, 1, 1, '\x01'); })},
    {"shard_missing",
     1,
     {"model-00002-of-00002.safetensors"},
     [](Workshop& shop) {
       fs::remove(shop.path("model/model.safetensors"));
       write_bytes(shop.path("model/model.safetensors.index.json"),
                   Json{{"weight_map", {{kQ, "model-00002-of-00002.safetensors"}}}}.dump());
       return Args{};
     }},
    {"gguf_not_there", 1, {"absent.gguf"}, flags({"--model_name", "absent.gguf"})},
    {"gguf_corrupt", 1, {"model.gguf"}, gguf("GGML something else altogether")},
    {"gguf_truncated", 1, {"model.gguf"}, gguf(gguf_header(2, 3))},
    {"gguf_counts_overflow", 1, {"model.gguf"}, gguf(gguf_header(std::uint64_t{1} << 62, std::uint64_t{1} << 62))},
    {"gguf_string_overflows", 1, {"model.gguf"}, gguf(gguf_header(1, 1) + number(std::uint64_t{1} << 63) + "x")},
    {"no_tokenizer",
     1,
     {"tokenizer.json"},
     [](Workshop& shop) {
       fs::remove(shop.path("model/tokenizer.json"));
       return Args{};
     }},
    {"tokenizer_truncated", 1, {"model", "JSON"}, raw("tokenizer.json", all_but_tail)},
    {"tokenizer_unigram", 1, {"Unigram", "BPE"}, tokenizer([](nlohmann::json& json) {
       json["model"] = {{"type", "Unigram"}, {"vocab", {{"a", -1.0}}}};
     })},
    {"tokenizer_wordpiece", 1, {"WordPiece", "BPE"}, tokenizer([](nlohmann::json& json) {
       json["model"] = {{"type", "WordPiece"}, {"vocab", {{"a", 0}}}};
     })},
    {"vocabulary_larger_than_the_embedding", 1, {"700", "512", "embedding"}, tokenizer([](nlohmann::json& json) {
       json["model"]["vocab"]["+"] = 700;
     })},
};

const Case kDataSets[] = {
    {"no_such_data_set",
     1,
     {"--dataset_name", "nvidia/OpenMathInstruct-2", "cache"},
     flags({"--dataset_name", "nvidia/OpenMathInstruct-2"})},
    {"data_set_of_another_kind",
     2,
     {"--dataset_name", ".parquet", ".jsonl"},
     [](Workshop& shop) {
       write_bytes(shop.path("rows.csv"), "a,b\n");
       return Args{"--dataset_name", shop.path("rows.csv").string()};
     }},
    {"split_not_there",
     1,
     {"tets", "train, validation"},
     [](Workshop& shop) {
       shop.text_rows(4, "hub/data/train-00000-of-00001.jsonl");
       shop.text_rows(4, "hub/data/validation-00000-of-00001.jsonl");
       return Args{"--dataset_name", shop.path("hub").string(), "--split_name", "tets"};
     }},
    {"folder_without_data",
     1,
     {"hub"},
     [](Workshop& shop) {
       write_bytes(shop.path("hub/README.md"), "nothing");
       return Args{"--dataset_name", shop.path("hub").string()};
     }},
    {"column_not_there",
     1,
     {"rows.jsonl", "--dataset_text_field", "words", "text"},
     flags({"--dataset_text_field", "words"})},
    {"empty_data_set", 1, {"rows.jsonl", "no rows"}, rows("")},
    {"one_row", 1, {"--dataset_name", "1 row"}, rows("{\"text\": \"1+1=2\"}\n")},
    {"rows_without_text",
     1,
     {"rows.jsonl", "no usable row"},
     rows("{\"text\": \"\"}\n{\"text\": \" \"}\n{\"text\": null}\n")},
    {"row_is_no_json",
     1,
     {"rows.jsonl", "line 2", "JSON"},
     rows("{\"text\": \"a\"}\n{\"text\": \n{\"text\": \"b\"}\n")},
    {"row_is_no_object", 1, {"rows.jsonl", "line 2"}, rows("{\"text\": \"a\"}\n[1]\n{\"text\": \"b\"}\n")},
    {"parquet_corrupt",
     1,
     {"rows.parquet"},
     [](Workshop& shop) {
       write_bytes(shop.path("rows.parquet"), "PAR1 and then nothing that a reader could use PAR1");
       return Args{"--dataset_name", shop.path("rows.parquet").string()};
     }},
    {"parquet_truncated",
     1,
     {"rows.parquet"},
     [](Workshop& shop) {
       const std::string whole = read_bytes(source_dir() / "tests/data/files/math.parquet");
       write_bytes(shop.path("rows.parquet"), whole.substr(0, whole.size() / 2));
       return Args{"--dataset_name", shop.path("rows.parquet").string()};
     }},
    {"parquet_footer_size_overflows",
     1,
     {"rows.parquet"},
     [](Workshop& shop) {
       std::string whole = read_bytes(source_dir() / "tests/data/files/math.parquet");
       whole.replace(whole.size() - 8, 4, "\xff\xff\xff\x7f");
       write_bytes(shop.path("rows.parquet"), whole);
       return Args{"--dataset_name", shop.path("rows.parquet").string()};
     }},
};

std::string name_of(const ::testing::TestParamInfo<Case>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Model, BadInput, ::testing::ValuesIn(kModels), name_of);
INSTANTIATE_TEST_SUITE_P(DataSet, BadInput, ::testing::ValuesIn(kDataSets), name_of);

}  // namespace
}  // namespace llmfp8::testing
