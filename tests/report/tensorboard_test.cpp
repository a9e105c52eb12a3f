// The event file, parsed back by a small protobuf reader of its own, and CRC-32C against known values.
#include "report/tensorboard.h"

#include <bit>
#include <fstream>
#include <map>
#include <sstream>

#include <gtest/gtest.h>

#include "core/error.h"
#include "support/golden.h"

namespace llmfp8 {
namespace {

std::uint64_t read_fixed(std::string_view bytes, int size) {
  std::uint64_t value = 0;
  for (int i = 0; i < size; ++i)
    value |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes.at(i))) << (8 * i);
  return value;
}

std::uint64_t read_varint(std::string_view& bytes) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.at(0));
    bytes.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
}

struct Field {
  std::uint64_t number = 0;  // a varint or fixed value
  std::string bytes;
};

std::multimap<int, Field> parse_message(std::string_view data) {
  std::multimap<int, Field> fields;
  while (!data.empty()) {
    const std::uint64_t tag = read_varint(data);
    Field field;
    std::size_t size = 0;
    switch (tag & 7) {
      case 0: field.number = read_varint(data); break;
      case 1:
        size = 8;
        field.number = read_fixed(data, 8);
        break;
      case 2:
        size = read_varint(data);
        field.bytes = std::string(data.substr(0, size));
        break;
      case 5:
        size = 4;
        field.number = read_fixed(data, 4);
        break;
      default: ADD_FAILURE() << "wire type " << (tag & 7); return fields;
    }
    EXPECT_LE(size, data.size());
    data.remove_prefix(size);
    fields.emplace(static_cast<int>(tag >> 3), field);
  }
  return fields;
}

const Field& only(const std::multimap<int, Field>& fields, int number) {
  EXPECT_EQ(fields.count(number), 1u) << "field " << number;
  return fields.find(number)->second;
}

std::vector<std::string> read_records(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  const std::string file = text.str();
  std::string_view rest = file;
  std::vector<std::string> records;
  while (!rest.empty()) {
    const std::uint64_t size = read_fixed(rest, 8);
    EXPECT_EQ(read_fixed(rest.substr(8), 4), masked_crc32c(rest.substr(0, 8)));
    const std::string_view data = rest.substr(12, size);
    EXPECT_EQ(read_fixed(rest.substr(12 + size), 4), masked_crc32c(data));
    records.emplace_back(data);
    rest.remove_prefix(16 + size);
  }
  return records;
}

TEST(Crc32c, MaskedAsTfrecordDoes) {
  // The first record of every file: length 24 as a little-endian u64.
  EXPECT_EQ(masked_crc32c(std::string_view("\x18\0\0\0\0\0\0\0", 8)), 0x224B7FA3u);
}

// Whatever the clock says: the second file is read behind the first.
TEST(TensorboardSink, AFileComesBehindThoseOfItsFolder) {
  const testing::TempDir folder;
  const std::filesystem::path later = folder.path() / "events.out.tfevents.9000000000.host.1.0";
  std::ofstream(later) << "";
  std::ofstream(folder.path() / "events.out.tfevents.of-someone") << "";
  const TensorboardSink first(folder.path()), second(folder.path());
  EXPECT_EQ(first.path().filename().string().rfind("events.out.tfevents.9000000001.", 0), 0u) << first.path();
  EXPECT_EQ(second.path().filename().string().rfind("events.out.tfevents.9000000002.", 0), 0u) << second.path();
}

TEST(TensorboardSink, ForgetsByTwoSessionStarts) {
  const testing::TempDir folder;
  TensorboardSink sink(folder.path());
  sink.forget_from(7);
  sink.summary("Eval/Loss", 1.0);
  const auto records = read_records(sink.path());
  ASSERT_EQ(records.size(), 4u);
  for (const std::size_t i : {1, 2}) {
    const auto event = parse_message(records[i]);
    EXPECT_EQ(only(event, 2).number, 7u);
    EXPECT_EQ(only(parse_message(only(event, 7).bytes), 1).number, 1u);
  }
  EXPECT_EQ(only(parse_message(records[3]), 2).number, 7u);
}

TEST(TensorboardSink, ScalarsAndTextsReadBack) {
  const testing::TempDir folder;
  TensorboardSink sink(folder.path() / "runs" / "a");
  EXPECT_EQ(sink.path().filename().string().rfind("events.out.tfevents.", 0), 0u);
  sink.log({.step = 300, .time = 1234.5, .values = {{"Train/Loss", 1.25}, {"Train/Progress", 0.5}}});
  sink.text("recipe", "default");
  sink.summary("Eval/Loss", -2.0);
  sink.summary("Train/Loss", 1.25);  // its curve ends there already

  const auto records = read_records(sink.path());  // without closing: each record is flushed
  ASSERT_EQ(records.size(), 4u);
  EXPECT_EQ(only(parse_message(records[0]), 3).bytes, "brain.Event:2");

  const auto event = parse_message(records[1]);
  EXPECT_EQ(std::bit_cast<double>(only(event, 1).number), 1234.5);
  EXPECT_EQ(only(event, 2).number, 300u);
  const auto summary = parse_message(only(event, 5).bytes);
  ASSERT_EQ(summary.count(1), 2u);
  const auto first = parse_message(summary.begin()->second.bytes);
  EXPECT_EQ(only(first, 1).bytes, "Train/Loss");
  EXPECT_EQ(std::bit_cast<float>(static_cast<std::uint32_t>(only(first, 2).number)), 1.25f);
  const auto second = parse_message(std::next(summary.begin())->second.bytes);
  EXPECT_EQ(only(second, 1).bytes, "Train/Progress");

  const auto text = parse_message(only(parse_message(only(parse_message(records[2]), 5).bytes), 1).bytes);
  EXPECT_EQ(only(text, 1).bytes, "recipe");
  EXPECT_EQ(only(parse_message(only(text, 8).bytes), 8).bytes, "default");
  EXPECT_EQ(only(parse_message(only(parse_message(only(text, 9).bytes), 1).bytes), 1).bytes, "text");

  const auto last = parse_message(records[3]);
  EXPECT_EQ(only(last, 2).number, 300u);
}

TEST(TensorboardSink, CannotBeWritten) {
  const testing::TempDir folder;
  std::ofstream(folder.path() / "file") << "x";
  EXPECT_THROW(TensorboardSink(folder.path() / "file" / "runs"), Error);
}

}  // namespace
}  // namespace llmfp8
