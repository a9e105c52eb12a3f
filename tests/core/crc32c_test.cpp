// The checksum of a checkpoint's files: published values, pieces against the whole, the instruction against the tables.
#include "core/crc32c.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/rng.h"

namespace llmfp8::testing {
namespace {

// RFC 3720, appendix B.4, and the check value of the CRC catalogues.
TEST(Crc32c, KnownVectors) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  std::string up;
  for (int i = 0; i < 32; ++i) up += static_cast<char>(i);
  EXPECT_EQ(crc32c(up), 0x46DD794Eu);
  EXPECT_EQ(crc32c_by_table("123456789", 9), 0xE3069283u);
}

TEST(Crc32c, PiecesGiveTheWholeAndBothWaysAgree) {
  std::vector<unsigned char> data(1000);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<unsigned char>(philox4x32(7, i, 0).x[0]);
  for (std::size_t begin = 0; begin < 9; ++begin) {
    for (std::size_t bytes : {0, 1, 7, 8, 9, 63, 64, 991}) {
      const std::uint32_t whole = crc32c(data.data() + begin, bytes);
      EXPECT_EQ(whole, crc32c_by_table(data.data() + begin, bytes)) << begin << " " << bytes;
      const std::size_t cut = bytes / 3;
      EXPECT_EQ(whole, crc32c(data.data() + begin + cut, bytes - cut, crc32c(data.data() + begin, cut)));
      EXPECT_EQ(whole,
                crc32c_by_table(data.data() + begin + cut, bytes - cut, crc32c_by_table(data.data() + begin, cut)));
    }
  }
}

TEST(Crc32c, EveryFlippedBitIsSeen) {
  std::string data(300, 'x');
  const std::uint32_t whole = crc32c(data);
  for (std::size_t bit = 0; bit < data.size() * 8; ++bit) {
    data[bit / 8] = static_cast<char>(data[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_NE(crc32c(data), whole) << bit;
    data[bit / 8] = static_cast<char>(data[bit / 8] ^ (1 << (bit % 8)));
  }
}

}  // namespace
}  // namespace llmfp8::testing
