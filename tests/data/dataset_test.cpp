// Splits found, columns understood, faulty rows counted, and every bad input refused by name.
#include "data/dataset.h"

#include <fstream>

#include <gtest/gtest.h>

#include "core/error.h"
#include "data/dataset_files.h"
#include "data/jsonl.h"
#include "data/parquet.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

fs::path fixture(const std::string& name) { return testing::source_dir() / "tests/data/files" / name; }

// The text of the Error that `action` throws; empty if it throws none.
template <typename Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "";
}

#define EXPECT_ERROR(action, part)                                       \
  do {                                                                   \
    const std::string found_error = error_of([&] { action; });           \
    EXPECT_NE(found_error.find(part), std::string::npos) << found_error; \
  } while (false)

std::string math_line(int i) {
  return "{\"problem\": \"p" + std::to_string(i) + "\", \"generated_solution\": \"s" + std::to_string(i) + "\"}\n";
}

TEST(Utf8, WellFormedTextOnly) {
  for (const char* good : {"", "a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(is_valid_utf8(good)) << good;
  for (const char* bad : {"\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
                          "\xf0\x80\x80\x80", "\xe2\x82", "a\xff"})
    EXPECT_FALSE(is_valid_utf8(bad)) << bad;
}

TEST(Jsonl, LinesAndColumns) {
  const std::string bytes = "\xef\xbb\xbf{\"a\": \"x\", \"n\": 3, \"z\": null}\r\n\n  \n{\"a\": [1, \"y\"]}";
  const JsonlFile file(bytes, "memory");
  ASSERT_EQ(file.rows(), 2);
  EXPECT_EQ(file.row(0), (RowColumns{{"a", "x"}, {"n", "3"}}));
  EXPECT_EQ(file.row(1).at("a"), "[1,\"y\"]");
  EXPECT_EQ(JsonlFile(std::string_view(), "memory").rows(), 0);
}

TEST(Jsonl, ABrokenLineIsNamed) {
  const std::string bytes = "{\"a\": 1}\n\n{\"a\": \n";
  const JsonlFile file(bytes, "d.jsonl");
  EXPECT_ERROR(file.row(1), "d.jsonl line 3: not valid JSON");
  EXPECT_ERROR(parse_jsonl_row("[1]", "d.jsonl", 7), "d.jsonl line 7: a JSON array; every line must be one JSON object");
  EXPECT_ERROR(parse_jsonl_row("{\"a\": 1e999}", "d.jsonl", 8), "d.jsonl line 8");
  EXPECT_ERROR(parse_jsonl_row("{\"a\": " + std::string(100000, '['), "d.jsonl", 9), "nested deeper than 64");
  EXPECT_EQ(parse_jsonl_row("{\"a\": \"[[[[{{{{\\\"[\"}", "d.jsonl", 9).at("a"), "[[[[{{{{\"[");
  const std::string long_line(static_cast<std::size_t>(kMaxJsonLineBytes) + 1, ' ');
  EXPECT_ERROR(JsonlFile("{}\n" + long_line, "d.jsonl"), "d.jsonl line 2");
}

TEST(Dataset, AFileIsTheSplitWhateverItsName) {
  TempDir dir;
  write(dir.path() / "x.jsonl", math_line(0) + math_line(1) + math_line(2));
  const Dataset data = open_dataset(dir.path() / "x.jsonl", "train_1M", {});
  ASSERT_EQ(data.rows(), 3);
  EXPECT_EQ(data.format(), RowFormat::math);
  const auto rows = data.read(1, 3);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].index, 2);
  ASSERT_EQ(rows[1].messages.size(), 3u);
  EXPECT_EQ(rows[1].messages[0].role, "system");
  EXPECT_EQ(rows[1].messages[1].content, "p2");
  EXPECT_EQ(rows[1].messages[2].content, "s2");
  DatasetOptions options;
  options.num_of_samples = 2;
  EXPECT_EQ(open_dataset(dir.path() / "x.jsonl", "train", options).rows(), 2);
}

TEST(Dataset, SplitsByFileName) {
  TempDir dir;
  write(dir.path() / "data/train_1M-00000-of-00002.jsonl", math_line(0));
  write(dir.path() / "data/train_1M-00001-of-00002.jsonl", math_line(1) + math_line(2));
  write(dir.path() / "data/train-00000-of-00001.jsonl", math_line(9));
  write(dir.path() / "test.jsonl", math_line(7));
  EXPECT_EQ(list_splits(dir.path()), (std::vector<std::string>{"test", "train", "train_1M"}));
  const Dataset data = open_dataset(dir.path(), "train_1M", {});
  ASSERT_EQ(data.rows(), 3);
  EXPECT_EQ(data.read(0, 3)[2].messages[1].content, "p2");
  EXPECT_EQ(open_dataset(dir.path(), "train", {}).rows(), 1);
  EXPECT_ERROR(open_dataset(dir.path(), "validation", {}), "no split \"validation\"; it has test, train, train_1M");
  fs::remove(dir.path() / "data/train_1M-00000-of-00002.jsonl");
  EXPECT_ERROR(open_dataset(dir.path(), "train_1M", {}), "shard 00000 of 00002 is missing");
}

TEST(Dataset, SplitsByFrontMatter) {
  TempDir dir;
  write(dir.path() / "README.md",
        "---\nconfigs:\n- config_name: main\n  default: true\n  data_files:\n  - split: train\n    path: main/a-*\n  - split: test\n"
        "    path:\n    - main/t1.jsonl\n    - main/t2.jsonl\n- config_name: other\n  data_files: other/**\n---\n# Title\n");
  write(dir.path() / "main/a-x.jsonl", math_line(0));
  write(dir.path() / "main/t1.jsonl", math_line(1));
  write(dir.path() / "main/t2.jsonl", math_line(2));
  write(dir.path() / "other/deep/b.jsonl", math_line(3) + math_line(4));
  EXPECT_EQ(list_splits(dir.path()), (std::vector<std::string>{"test", "train"}));
  EXPECT_EQ(open_dataset(dir.path(), "test", {}).rows(), 2);
  DatasetOptions options;
  options.config = "other";
  EXPECT_EQ(open_dataset(dir.path(), "train", options).rows(), 2);
  options.config = "third";
  EXPECT_ERROR(open_dataset(dir.path(), "train", options), "no configuration \"third\"; it has the configurations main, other");
  write(dir.path() / "README.md", "---\nconfigs: [\n---\n");
  EXPECT_ERROR(open_dataset(dir.path(), "train", {}), "broken front matter");
  EXPECT_EQ(front_matter("# no front matter"), "");
}

TEST(Dataset, EveryFormat) {
  TempDir dir;
  const auto open = [&](const std::string& line, const std::string& field = "text") {
    write(dir.path() / "x.jsonl", line);
    DatasetOptions options;
    options.text_field = field;
    return open_dataset(dir.path() / "x.jsonl", "train", options);
  };
  const Dataset messages = open(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "text": "t"})");
  EXPECT_EQ(messages.format(), RowFormat::messages);
  EXPECT_EQ(messages.read(0, 1)[0].messages.size(), 2u);
  const Dataset prompt = open(R"({"prompt": "a ", "completion": "b"})");
  EXPECT_EQ(prompt.format(), RowFormat::prompt_completion);
  EXPECT_EQ(prompt.read(0, 1)[0].prompt, "a ");
  EXPECT_EQ(prompt.read(0, 1)[0].text, "b");
  const Dataset lists = open(R"({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]})");
  EXPECT_EQ(lists.read(0, 1)[0].messages.size(), 2u);
  const Dataset question = open(R"({"question": "a", "answer": "b"})");
  EXPECT_EQ(question.format(), RowFormat::question_answer);
  EXPECT_EQ(question.read(0, 1)[0].messages.size(), 3u);
  const Dataset text = open(R"({"body": "hello", "id": 4})", "body");
  EXPECT_EQ(text.format(), RowFormat::text);
  EXPECT_EQ(text.read(0, 1)[0].text, "hello");
  EXPECT_ERROR(open(R"({"body": "hello", "id": 4})"), "found body, id; wanted problem + generated_solution, messages");
}

TEST(Dataset, FaultyRowsAreMarkedNotLost) {
  TempDir dir;
  write(dir.path() / "x.jsonl", math_line(0) + "{\"problem\": null, \"generated_solution\": \"s\"}\n" +
                                    "{\"problem\": \" \\n\", \"generated_solution\": \"s\"}\n" +
                                    "{\"problem\": \"\xff\", \"generated_solution\": \"s\"}\n{\"problem\": \"p\"}\n");
  const Dataset data = open_dataset(dir.path() / "x.jsonl", "train", {});
  std::vector<RowFault> faults;
  for (const auto& row : data.read(0, data.rows())) faults.push_back(row.fault);
  EXPECT_EQ(faults, (std::vector<RowFault>{RowFault::none, RowFault::null, RowFault::empty, RowFault::not_utf8, RowFault::null}));
}

TEST(Dataset, RefusesWhatIsNotThere) {
  TempDir dir;
  EXPECT_ERROR(open_dataset(dir.path() / "nothing", "train", {}), "no such file or folder");
  EXPECT_ERROR(open_dataset(dir.path(), "train", {}), "no files .parquet, .jsonl or .json (of JSON Lines; these two also as .gz or .zst) of a data set");
  write(dir.path() / "x.csv", "a,b\n");
  EXPECT_ERROR(open_dataset(dir.path(), "train", {}), "found: x.csv");
  EXPECT_ERROR(open_dataset(dir.path() / "x.csv", "train", {}), "a data set is a folder or a file .parquet, .jsonl or .json");
  write(dir.path() / "x.jsonl", "\n\n");
  EXPECT_ERROR(open_dataset(dir.path() / "x.jsonl", "train", {}), "has no rows");
  DatasetOptions options;
  options.num_of_samples = -1;
  EXPECT_ERROR(open_dataset(dir.path() / "x.jsonl", "train", options), "num_of_samples is -1");
}

class Parquet : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!parquet_support().available) GTEST_SKIP() << parquet_support().detail;
  }
};

TEST_F(Parquet, RowsOverRowGroupsInAnyOrder) {
  const Dataset data = open_dataset(fixture("math.parquet"), "train", {});
  ASSERT_EQ(data.rows(), 12);
  EXPECT_EQ(data.format(), RowFormat::math);
  for (const auto& [begin, end] : std::vector<std::pair<int, int>>{{0, 12}, {9, 12}, {4, 6}, {11, 12}, {0, 1}}) {
    const auto rows = data.read(begin, end);
    for (int i = begin; i < end; ++i) {
      const DatasetRow& row = rows[static_cast<std::size_t>(i - begin)];
      EXPECT_EQ(row.fault, i == 3 ? RowFault::null : i == 7 ? RowFault::empty : RowFault::none);
      EXPECT_EQ(row.expected_answer, std::to_string(2 * i));
      if (row.fault != RowFault::none) continue;
      const std::string n = std::to_string(i), twice = std::to_string(2 * i);
      EXPECT_EQ(row.messages[1].content, i == 9 ? "π ≈ 3 ünïcode?" : "What is " + n + " + " + n + "?");
      EXPECT_EQ(row.messages[2].content, n + " + " + n + " = " + twice + "\nThe final answer is \\boxed{" + twice + "}.");
    }
  }
}

TEST_F(Parquet, NestedMessages) {
  const Dataset data = open_dataset(fixture("messages.parquet"), "train", {});
  const auto rows = data.read(0, data.rows());
  ASSERT_EQ(rows.size(), 5u);
  EXPECT_EQ(rows[0].messages[0].content, "Hi \"there\"");
  EXPECT_EQ(rows[0].messages[1].content, "Hello,\nπ");
  EXPECT_EQ(rows[1].fault, RowFault::null);
  // Read, but no built-in template takes them.
  const ChatTemplate chat(ChatTemplateKind::llama3);
  for (const std::size_t bad : {2, 3, 4})
    EXPECT_TRUE(rows[bad].fault == RowFault::bad_messages || !chat.takes(rows[bad].messages)) << bad;
}

TEST_F(Parquet, ColumnsAndNumbers) {
  DatasetOptions options;
  options.text_field = "body";
  EXPECT_EQ(open_dataset(fixture("body.parquet"), "train", options).read(1, 2)[0].text, "b");
  EXPECT_ERROR(open_dataset(fixture("body.parquet"), "train", {}), "found id, body; wanted");
  const ParquetFile file(fixture("body.parquet"));
  EXPECT_EQ(ParquetStream(file, {"id"}).next(2)[0][1], "2");
  EXPECT_EQ(file.column_type("body"), "large_string");
  EXPECT_ERROR(ParquetStream(file, {"nothing"}), "no column \"nothing\"");
}

// Two files of several row groups each, gone through in any order: what reading forward gives.
TEST_F(Parquet, AnyOrderGivesTheSameRows) {
  const Dataset data = open_dataset(fixture("math_groups"), "train", {});
  ASSERT_GE(data.rows(), 40);
  const std::vector<DatasetRow> wanted = data.read(0, data.rows());
  std::vector<std::int64_t> order;
  for (std::int64_t i = 0; i < 3 * data.rows(); ++i) order.push_back((i * 17 + i / data.rows()) % data.rows());
  for (const std::int64_t row : order) {
    const DatasetRow read = data.read(row, row + 1).front();
    ASSERT_EQ(read.index, row);
    ASSERT_EQ(read.messages.size(), wanted[static_cast<std::size_t>(row)].messages.size());
    for (std::size_t m = 0; m < read.messages.size(); ++m)
      ASSERT_EQ(read.messages[m].content, wanted[static_cast<std::size_t>(row)].messages[m].content) << row;
  }
  for (const std::int64_t first : {0, 1, 9, 10, 11, 25, 30, 39}) {
    DatasetStream stream(data, first);
    const std::vector<RawRow> rows = stream.next(100);
    ASSERT_EQ(std::ssize(rows), data.rows() - first);
    EXPECT_EQ(rows.front().index, first);
    EXPECT_EQ(rows.front().cells->at("problem"), "problem " + std::to_string(first));
  }
}

TEST_F(Parquet, TruncatedAndCorruptFilesAreRefused) {
  TempDir dir;
  std::ifstream in(fixture("math.parquet"), std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  ASSERT_GT(bytes.size(), 1000u);
  const fs::path path = dir.path() / "t.parquet";
  for (const std::size_t size : {std::size_t{0}, std::size_t{3}, bytes.size() / 2, bytes.size() - 1}) {
    write(path, bytes.substr(0, size));
    EXPECT_ERROR(open_dataset(path, "train", {}), "t.parquet: not a readable parquet file");
  }
  // A flipped byte is refused or, where it hits a page's text, read as other text; it never crashes.
  int refused = 0;
  for (std::size_t at = 0; at < bytes.size(); at += 7) {
    std::string broken = bytes;
    broken[at] = static_cast<char>(broken[at] ^ 0x5a);
    write(path, broken);
    refused += !error_of([&] {
                  const Dataset data = open_dataset(path, "train", {});
                  (void)data.read(0, data.rows());
                }).empty();
  }
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace llmfp8
