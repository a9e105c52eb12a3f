#include "hub/safetensors.h"

#include <nlohmann/json.hpp>

#include "hub/safetensors_writer.h"
#include "hub_test_util.h"

namespace llmfp8 {
namespace {

using testing::as_bytes;
using testing::contains;
using testing::error_of;
using testing::raw;
using testing::safetensors_bytes;
using testing::TempDir;
using testing::write_text;

std::string refusal(const std::string& bytes) {
  return error_of([&] { SafetensorsFile::from_bytes(as_bytes(bytes), "x.safetensors"); });
}

std::string one(const std::string& tensor) { return "{\"a\":" + tensor + "}"; }

const std::string kGood = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";

TEST(Safetensors, ReadsEveryGoldenFile) {
  int files = 0;
  for (const auto& item : std::filesystem::recursive_directory_iterator(testing::golden_dir())) {
    if (item.path().extension() != ".safetensors") continue;
    const SafetensorsFile file = SafetensorsFile::open(item.path());
    EXPECT_FALSE(file.names().empty()) << item.path();
    for (const std::string& name : file.names()) {
      const SafetensorsEntry& entry = file.at(name);
      EXPECT_TRUE(entry.aligned);
      EXPECT_EQ(entry.tensor.shape, entry.shape);
    }
    ++files;
  }
  EXPECT_GE(files, 20);
}

TEST(Safetensors, ReadsScalarsEmptyTensorsAndMetadata) {
  const std::string bytes = safetensors_bytes(
      R"({"__metadata__":{"format":"pt"},"s":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
      R"("e":{"dtype":"F32","shape":[0,3],"data_offsets":[8,8]},"b":{"dtype":"BF16","shape":[1,1,1,2],"data_offsets":[8,12]}}  )",
      raw<std::int64_t>(-7) + raw<std::uint32_t>(0x40003F80));
  const SafetensorsFile file = SafetensorsFile::from_bytes(as_bytes(bytes), "x");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.at("s").shape, (Shape{1}));
  std::int64_t scalar = 0;
  std::memcpy(&scalar, file.at("s").tensor.data, 8);
  EXPECT_EQ(scalar, -7);
  EXPECT_EQ(file.at("e").tensor.bytes(), 0u);
  EXPECT_EQ(file.at("b").shape, (Shape{1, 1, 1, 2}));
  EXPECT_EQ(file.find("nothing"), nullptr);
  EXPECT_TRUE(contains(error_of([&] { file.at("nothing"); }), "'x' has no tensor 'nothing'"));
}

TEST(Safetensors, RefusesCorruptFiles) {
  const std::string data(8, '\0');
  EXPECT_EQ(refusal(safetensors_bytes(one(kGood), data)), "no error");
  EXPECT_TRUE(contains(refusal("abc"), "too few"));
  EXPECT_TRUE(contains(refusal(raw<std::uint64_t>(~0ull) + "{}"), "at most 100000000"));
  EXPECT_TRUE(contains(refusal(raw<std::uint64_t>(50) + "{}"), "truncated"));
  EXPECT_TRUE(contains(refusal(safetensors_bytes("[1]", "")), "not a JSON object"));
  EXPECT_TRUE(contains(refusal(safetensors_bytes(one(kGood), data.substr(1))), "truncated"));
  EXPECT_TRUE(contains(refusal(safetensors_bytes(one(kGood), data + "x")), "9 bytes of data, the header describes 8"));
  EXPECT_TRUE(contains(refusal(safetensors_bytes(one(kGood) + "{}", data)), "bad safetensors header"));
  EXPECT_TRUE(contains(refusal(safetensors_bytes(std::string(3000000, '{'), data)), "bad safetensors header"));
  EXPECT_TRUE(contains(refusal(safetensors_bytes("{\"a\":" + std::string(3000000, '['), data)), "unexpected an array"));
}

TEST(Safetensors, RefusesBadTensors) {
  const std::string data(8, '\0');
  const auto with = [&](const std::string& tensor) { return refusal(safetensors_bytes(one(tensor), data)); };
  EXPECT_TRUE(contains(with(R"({"dtype":"Q9","shape":[2],"data_offsets":[0,8]})"), "dtype Q9"));
  EXPECT_TRUE(contains(with(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
                       "has 8 bytes, its shape and dtype want 12"));
  EXPECT_TRUE(contains(with(R"({"dtype":"F32","shape":[2],"data_offsets":[0,16]})"), "0..16 of 8"));
  EXPECT_TRUE(contains(with(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), "8..0"));
  EXPECT_TRUE(contains(with(R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]})"), "overflows"));
  EXPECT_TRUE(contains(with(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})"), "overflows"));
  EXPECT_TRUE(contains(with(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"), "negative"));
  EXPECT_TRUE(contains(with(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), "fraction"));
  EXPECT_TRUE(contains(with(R"({"dtype":"F32","shape":[1,1,1,1,2],"data_offsets":[0,8]})"), "5 dimensions, at most 4"));
  EXPECT_TRUE(contains(with(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]})"), "more than 8"));
  EXPECT_TRUE(contains(with(R"({"dtype":"F32","shape":[2]})"), "lacks"));
  EXPECT_TRUE(contains(with(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"), "'dtype' twice"));
  EXPECT_TRUE(contains(with("3"), "unexpected a number"));
}

TEST(Safetensors, RefusesDuplicatesGapsAndOverlaps) {
  const std::string data(16, '\0');
  const auto two = [&](const std::string& names, int begin) {
    return refusal(safetensors_bytes("{\"a\":" + kGood + ",\"" + names +
                                         "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[" +
                                         std::to_string(begin) + "," + std::to_string(begin + 8) + "]}}",
                                     data));
  };
  EXPECT_EQ(two("b", 8), "no error");
  EXPECT_TRUE(contains(two("a", 8), "appears twice"));
  EXPECT_TRUE(contains(two("b", 4), "overlap"));
  EXPECT_TRUE(contains(two("b", 0), "overlap"));
  EXPECT_TRUE(
      contains(refusal(safetensors_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})", data)), "gap"));
}

TEST(SafetensorsWriter, RoundTripInPiecesAndAnyOrder) {
  const TempDir dir;
  const std::filesystem::path path = dir.path() / "out.safetensors";
  const std::vector<float> wide = {1, 2, 3, 4, 5, 6};
  const std::vector<std::uint16_t> narrow = {7, 8, 9};
  SafetensorsWriter writer(
      path, {{"narrow", DType::bf16, Shape{3}}, {"wide", DType::f32, Shape{2, 3}}, {"none", DType::u8, Shape{0}}});
  writer.write("narrow", narrow.data(), 2);
  writer.write("wide", Tensor(const_cast<float*>(wide.data()), DType::f32, Shape{2, 3}));
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_TRUE(contains(error_of([&] { writer.finish(); }), "2 of 6 bytes of tensor 'narrow'"));
  writer.write("narrow", narrow.data() + 1, 4);
  EXPECT_TRUE(contains(error_of([&] { writer.write("narrow", narrow.data(), 2); }), "2 bytes too many"));
  EXPECT_TRUE(contains(error_of([&] { writer.write("other", narrow.data(), 2); }), "was not declared"));
  writer.finish();

  const SafetensorsFile file = SafetensorsFile::open(path);
  EXPECT_EQ(file.names(), (std::vector<std::string>{"wide", "narrow", "none"}));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_TRUE(file.at("wide").aligned);
  EXPECT_EQ(std::memcmp(file.at("wide").tensor.data, wide.data(), 24), 0);
  EXPECT_EQ(std::memcmp(file.at("narrow").tensor.data, narrow.data(), 6), 0);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

// The golden model was written by HF's library: the same tensors must give the same bytes.
TEST(SafetensorsWriter, WritesTheBytesOfTheReferenceLibrary) {
  const TempDir dir;
  for (const char* model : {"llama_tied", "qwen2"}) {
    const std::filesystem::path golden = testing::golden_dir() / "models" / model / "model.safetensors";
    const SafetensorsFile file = SafetensorsFile::open(golden);
    std::vector<TensorDeclaration> declarations;
    for (auto name = file.names().rbegin(); name != file.names().rend(); ++name) {
      declarations.push_back({*name, file.at(*name).dtype, file.at(*name).shape});
    }
    SafetensorsWriter writer(dir.path() / "copy", declarations, file.metadata());
    for (const TensorDeclaration& item : declarations) writer.write(item.name, file.at(item.name).tensor);
    writer.finish();
    EXPECT_TRUE(read_text_file(dir.path() / "copy") == read_text_file(golden)) << model;
  }
}

TEST(SafetensorsWriter, LeavesNothingWithoutFinish) {
  const TempDir dir;
  { SafetensorsWriter writer(dir.path() / "out", {{"a", DType::f32, Shape{4}}}); }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  EXPECT_TRUE(contains(error_of([&] { SafetensorsWriter(dir.path() / "no" / "out", {}); }), "cannot write"));
  EXPECT_TRUE(
      contains(error_of([&] {
                 SafetensorsWriter(dir.path() / "out", {{"a", DType::f32, Shape{4}}, {"a", DType::f32, Shape{4}}});
               }),
               "declared twice"));
}

void write_shard(const std::filesystem::path& path, const std::string& tensor) {
  SafetensorsWriter writer(path, {{tensor, DType::f32, Shape{1}}});
  const float value = static_cast<float>(tensor.size());
  writer.write(tensor, &value, 4);
  writer.finish();
}

TEST(SafetensorsModel, ReadsShardsAndNamesWhatIsMissing) {
  const TempDir dir;
  const auto index = [&](const std::string& map) {
    write_text(dir.path() / "model.safetensors.index.json", "{\"weight_map\":" + map + "}");
  };
  const auto open = [&] { return SafetensorsModel::open(dir.path()); };
  EXPECT_TRUE(contains(error_of(open), "holds neither model.safetensors nor"));
  write_shard(dir.path() / "one.safetensors", "a");
  index(R"({"a":"one.safetensors","bb":"two.safetensors"})");
  EXPECT_TRUE(contains(error_of(open), "two.safetensors' is missing"));
  write_shard(dir.path() / "two.safetensors", "bb");
  const SafetensorsModel model = open();
  EXPECT_EQ(model.names(), (std::vector<std::string>{"a", "bb"}));
  EXPECT_EQ(*model.at("bb").tensor.as<float>(), 2.0f);
  EXPECT_TRUE(contains(error_of([&] { model.at("c"); }), "has no tensor 'c'"));
  index(R"({"c":"one.safetensors"})");
  EXPECT_TRUE(contains(error_of(open), "has no tensor 'c'"));
  for (const char* shard : {"../one.safetensors", "/etc/passwd", "..", "", "x/y"}) {
    index(std::string(R"({"a":")") + shard + "\"}");
    EXPECT_TRUE(contains(error_of(open), "is not a file name inside the folder")) << shard;
  }
  index("[1]");
  EXPECT_TRUE(contains(error_of(open), "no weight_map"));
  index("{");
  EXPECT_TRUE(contains(error_of(open), "not valid JSON"));
}

}  // namespace
}  // namespace llmfp8
