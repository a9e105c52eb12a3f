// Compressed JSON Lines: the rows, faults and tokens of the plain file, in any order; what is cut off, damaged or no JSON Lines
// refused in one line.
#include <algorithm>
#include <fstream>

#include <gtest/gtest.h>

#include "core/error.h"
#include "data/dataset.h"
#include "data/dataset_files.h"
#include "data/jsonl.h"
#include "data/packed.h"
#include "data/tokenize_dataset.h"
#include "support/golden.h"
#include "text/test_tokenizers.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using testing::golden_tokenizer;

std::string text_line(const std::string& text) { return "{\"text\": \"" + text + "\"}\n"; }

std::string text_lines(int count) {
  std::string lines;
  for (int i = 0; i < count; ++i)
    lines += text_line("row number " + std::to_string(i) + " of " + std::to_string(i * 7919 % 1000));
  return lines;
}

class Compressed : public ::testing::TestWithParam<const char*> {
 protected:
  fs::path file(const std::string& name = "x.jsonl") const { return dir_.path() / (name + GetParam()); }
  std::string pack(std::string_view text) const {
    const std::string end = GetParam();
    return end == ".gz" ? testing::gzip(text) : end == ".zst" ? testing::zstd(text) : std::string(text);
  }
  fs::path write(const std::string& bytes, const std::string& name = "x.jsonl") const {
    std::ofstream(file(name), std::ios::binary) << bytes;
    return file(name);
  }
  Dataset open(const std::string& bytes) const { return open_dataset(write(bytes), "train", {}); }
  // All texts, or the error.
  std::string outcome(const std::string& bytes) const {
    try {
      const Dataset data = open(bytes);
      std::string texts;
      for (const DatasetRow& row : data.read(0, data.rows())) texts += row.text + "\n";
      return texts;
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_EQ(what.find('\n'), std::string::npos) << what;
      EXPECT_NE(what.find(dir_.path().string()), std::string::npos) << what;
      return "error: " + what;
    }
  }
  void expect_error(const std::string& bytes, const std::string& part) const {
    const std::string found = outcome(bytes);
    EXPECT_TRUE(found.starts_with("error: ") && found.find(part) != std::string::npos)
        << found.substr(0, 300) << "\nwanted: " << part;
  }
  testing::TempDir dir_;
};

class Packed : public Compressed {};

INSTANTIATE_TEST_SUITE_P(All, Compressed, ::testing::Values("", ".gz", ".zst"));
INSTANTIATE_TEST_SUITE_P(All, Packed, ::testing::Values(".gz", ".zst"));

TEST_P(Compressed, RowsInAnyOrder) {
  const Dataset data =
      open(pack("\xef\xbb\xbf{\"text\": \"a\", \"z\": null}\r\n\n  \n" + text_lines(2000) + "{\"text\": \"last\"}"));
  ASSERT_EQ(data.rows(), 2002);
  EXPECT_EQ(data.columns(), std::vector<std::string>{"text"});
  const auto text = [&](std::int64_t row) { return data.read(row, row + 1).front().text; };
  EXPECT_EQ(text(2001), "last");
  EXPECT_EQ(text(0), "a");
  EXPECT_EQ(text(1), "row number 0 of 0");
  EXPECT_EQ(text(1), "row number 0 of 0");
  const std::vector<std::int64_t> rows = {1500, 3, 2001, 3, 0};
  const std::vector<DatasetRow> some = data.read_rows(rows);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(some[i].index, rows[i]);
    EXPECT_EQ(some[i].text, text(rows[i]));
  }
  for (const std::int64_t first : {0, 1, 1234, 2001, 2002}) {
    DatasetStream stream(data, first);
    std::int64_t row = first;
    for (auto raw = stream.next(700); !raw.empty(); raw = stream.next(700))
      for (RawRow& one : raw) {
        const DatasetRow parsed = data.parse(std::move(one));
        ASSERT_EQ(parsed.index, row);
        ASSERT_EQ(parsed.text, text(row++));
      }
    EXPECT_EQ(row, 2002);
  }
}

TEST_P(Compressed, TokensAndFaultsAreThoseOfThePlainFile) {
  std::string lines;
  for (int i = 0; i < 3000; ++i) {
    const std::string text = "row number " + std::to_string(i);
    lines += i % 100 == 3    ? "{\"text\": null}\n"
             : i % 100 == 40 ? "{\"other\": 1}\n"
             : i % 200 == 5  ? text_line(" \\n\\t ")
             : i % 300 == 7  ? text_line("\xff")
             : i % 50 == 9   ? "\n" + text_line(text)
                             : text_line(text);
  }
  std::ofstream(dir_.path() / "plain.jsonl", std::ios::binary) << lines;
  const ChatTemplate chat(ChatTemplateKind::chatml);
  const RowEncoder encoder(golden_tokenizer("qwen2.5"), chat, {64, LossOn::all});
  const auto tokenize = [&](const fs::path& path, const std::string& cache) {
    const Dataset data = open_dataset(path, "train", {});
    TokenizeOptions options;
    options.segment_tokens = 2000;  // several, each of which goes on in the middle of the file
    if (!cache.empty()) options.cache = dir_.path() / cache;
    return tokenize_dataset(data, train_test_split(data.rows(), 0.1, 42), encoder, options);
  };
  const TokenizedDataset plain = tokenize(dir_.path() / "plain.jsonl", "");
  const fs::path packed = write(pack(lines));
  for (const std::string cache : {"", "cache", "cache"}) {
    const TokenizedDataset found = tokenize(packed, cache);
    EXPECT_EQ(found.rows_by_fault, (std::array<std::int64_t, kRowFaults>{2915, 60, 15, 10, 0}));
    EXPECT_EQ(fault_summary(found.rows_by_fault), "85 rows left out: 60 without a value, 15 empty, 10 not UTF-8");
    for (const auto part : {&TokenizedDataset::train, &TokenizedDataset::held_out}) {
      const TokenStore &x = found.*part, &y = plain.*part;
      ASSERT_EQ(x.rows(), y.rows());
      for (std::int64_t row = 0; row < x.rows(); ++row) {
        ASSERT_EQ(x.source_row(row), y.source_row(row));
        ASSERT_TRUE(std::ranges::equal(x.ids(row), y.ids(row)));
        ASSERT_EQ(x.labels(row), y.labels(row));
      }
    }
  }
}

TEST_P(Compressed, ALineOfTheBoundAndOneByteMore) {
  const auto of_bytes = [](std::int64_t bytes) {
    const std::string frame = text_line("");
    return text_line(std::string(static_cast<std::size_t>(bytes) - (frame.size() - 1), 'a'));
  };
  for (const bool has_newline : {true, false}) {
    std::string longest = text_line("first") + of_bytes(kMaxJsonLineBytes),
                longer = text_line("first") + of_bytes(kMaxJsonLineBytes + 1);
    if (!has_newline) longest.pop_back(), longer.pop_back();
    const Dataset data = open(pack(longest));
    ASSERT_EQ(data.rows(), 2);
    EXPECT_EQ(std::ssize(data.read(1, 2).front().text), kMaxJsonLineBytes - 12);
    expect_error(pack(longer), file().string() + " line 2: ");
    expect_error(pack(longer), "a line may have 67108864");
  }
}

TEST_P(Compressed, NoRows) {
  expect_error(pack(""), "has no rows");
  expect_error(pack("\n \n\r\n"), "has no rows");
  std::ofstream(file("y.jsonl"), std::ios::binary) << pack("");
  write(pack(text_lines(3)));
  EXPECT_EQ(open_dataset(dir_.path(), "x", {}).rows(), 3);
}

TEST_P(Compressed, AnArrayAndABrokenLineAreNamed) {
  for (const char* array : {"[{\"text\": \"a\"}]", "\n [\n{\"text\": \"a\"},\n{\"text\": \"b\"}\n]\n"}) {
    const fs::path path = write(pack(array), "a.json");
    try {
      open_dataset(path, "train", {});
      ADD_FAILURE() << "taken";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("a JSON array; JSON Lines are wanted"), std::string::npos)
          << error.what();
    }
  }
  std::string lines = text_lines(300);
  expect_error(pack(lines + "\n{\"text\": \n"), file().string() + " line 302: not valid JSON at byte 10");
  EXPECT_EQ(open_dataset(write(pack(text_lines(4)), "a.json"), "train", {}).rows(), 4);
}

TEST_P(Packed, MembersAndFramesFollowEachOther) {
  std::string bytes, texts;
  for (int i = 0; i < 50; ++i) {
    const std::string text = text_line(std::to_string(i));
    bytes += pack(text.substr(0, 5)) + pack("") + pack(text.substr(5));  // a line in two
    texts += std::to_string(i) + "\n";
  }
  EXPECT_EQ(outcome(bytes), texts);
  if (GetParam() == std::string(".gz")) {
    EXPECT_EQ(outcome(bytes + std::string(1000, '\0')), texts);
    EXPECT_EQ(outcome(bytes + std::string(1000, '\0') + pack(text_line("x"))), texts + "x\n");
  } else {
    EXPECT_EQ(outcome(std::string("\x50\x2a\x4d\x18\x03\0\0\0abc", 11) + bytes), texts);  // a skippable frame
  }
  for (const std::string behind : {"x", "something else, as it may follow an archive"})
    EXPECT_NE(outcome(bytes + behind).find("error: "), std::string::npos);
}

TEST_P(Packed, CutOffAnywhere) {
  const std::string bytes = pack(text_lines(40));
  for (std::size_t size = 1; size < bytes.size(); ++size)
    expect_error(bytes.substr(0, size), "cut off: it ends at byte " + std::to_string(size) + " inside a ");
  expect_error("", "0 bytes");
  // Long enough for many pieces, and the line is told.
  std::string long_text;
  for (unsigned i = 0, x = 1; i < 120000; ++i) long_text += text_line(std::to_string(x = x * 1664525 + 1013904223));
  const std::string packed = pack(long_text);
  ASSERT_GT(packed.size(), 500u << 10);
  expect_error(packed.substr(0, packed.size() - 1), "(in or after line ");
  EXPECT_EQ(open(packed).rows(), 120000);
}

TEST_P(Packed, AFlippedBitGivesNoOtherRows) {
  const std::string bytes = pack(text_lines(40)), whole = outcome(bytes);
  int refused = 0;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string broken = bytes;
    broken[at] = static_cast<char>(broken[at] ^ (1 << (at % 8)));
    const std::string found = outcome(broken);
    EXPECT_TRUE(found == whole || found.starts_with("error: ")) << at;  // a gzip member's date is no part of its rows
    refused += found != whole;
  }
  EXPECT_GT(refused, static_cast<int>(bytes.size()) - 12);
  std::string checksum = bytes;
  checksum[bytes.size() - (GetParam() == std::string(".gz") ? 5 : 1)] ^= 1;
  expect_error(checksum, GetParam() == std::string(".gz") ? "incorrect data check" : "checksum");
  expect_error(text_lines(3), "no valid ");  // not compressed at all
}

TEST(Zstandard, LongLinesComeFewAtATime) {
  const testing::TempDir dir;
  const fs::path path = dir.path() / "x.jsonl.zst";
  const std::string line = testing::zstd(text_line(std::string(static_cast<std::size_t>(kMaxJsonLineBytes) - 12, 'a')));
  std::ofstream(path, std::ios::binary) << line << line << line << testing::zstd(text_line("last"));
  const Dataset data = open_dataset(path, "train", {});
  DatasetStream stream(data, 0);
  EXPECT_EQ(stream.next(100).size(), 2u);
  EXPECT_EQ(stream.next(100).size(), 2u);
  EXPECT_TRUE(stream.next(100).empty());
}

TEST(Zstandard, AWindowIsBounded) {
  const testing::TempDir dir;
  const fs::path path = dir.path() / "x.jsonl.zst";
  for (const int log : {27, 28}) {
    // A header that asks for a window, and an empty last block.
    const std::string header = {'\x28', '\xb5', '\x2f', '\xfd', 0, static_cast<char>((log - 10) << 3), 1, 0, 0};
    std::ofstream(path, std::ios::binary) << header << testing::zstd(text_lines(2));
    if (log == 27) {
      EXPECT_EQ(open_dataset(path, "train", {}).rows(), 2);
      continue;
    }
    try {
      open_dataset(path, "train", {});
      ADD_FAILURE() << "taken";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("its window is larger than 128 MB"), std::string::npos) << error.what();
    }
  }
}

TEST_P(Packed, AFileThatChangesUnderARunIsRefused) {
  const Dataset data = open(pack(text_lines(20)));
  write(pack(text_lines(10)));
  EXPECT_THROW(data.read(15, 16), Error);
}

TEST_P(Packed, ShardsAndCards) {
  const std::string end = GetParam();
  fs::create_directories(dir_.path() / "data");
  write(pack(text_lines(2)), "data/train-00000-of-00002.jsonl");
  write(pack(text_lines(3)), "data/train-00001-of-00002.jsonl");
  write(pack(text_lines(4)), "test.json");  // beside .jsonl no rows
  EXPECT_EQ(list_splits(dir_.path()), std::vector<std::string>{"train"});
  EXPECT_EQ(open_dataset(dir_.path(), "train", {}).rows(), 5);
  std::ofstream(dir_.path() / "README.md")
      << "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: one\n    path: data/*-00001-*\n"
         "  - split: test\n    path: test.json" +
             end + "\n---\n";
  EXPECT_EQ(open_dataset(dir_.path(), "test", {}).rows(), 4);
  EXPECT_THROW(open_dataset(dir_.path(), "one", {}), Error);  // shard 0 is not named
  fs::remove(dir_.path() / "README.md");
  fs::remove(file("data/train-00000-of-00002.jsonl"));
  EXPECT_THROW(open_dataset(dir_.path(), "train", {}), Error);
  EXPECT_EQ(list_splits(file("data/train-00001-of-00002.jsonl")), std::vector<std::string>{"train-00001-of-00002"});
}

}  // namespace
}  // namespace llmfp8
