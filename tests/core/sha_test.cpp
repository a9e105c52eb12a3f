// The examples of FIPS 180-4, and lengths around the edge of a block against each other.
#include "core/sha.h"

#include <gtest/gtest.h>

namespace llmfp8 {
namespace {

template <typename Sha>
std::string hash_of(std::string_view text, std::size_t piece = 1 << 20) {
  Sha sha;
  for (std::size_t i = 0; i < text.size(); i += piece) sha.update(text.substr(i, piece));
  return sha.hex();
}

TEST(Sha, PublishedExamples) {
  EXPECT_EQ(hash_of<Sha256>(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash_of<Sha256>("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash_of<Sha256>("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash_of<Sha1>("abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(hash_of<Sha1>("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
  const std::string million(1000000, 'a');
  EXPECT_EQ(hash_of<Sha256>(million), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(hash_of<Sha1>(million), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
  EXPECT_EQ(hash_of<Sha1>(std::string("blob 0\0", 7)), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");  // git's empty file
}

TEST(Sha, PiecesDoNotMatter) {
  for (std::size_t length = 50; length < 140; ++length) {
    const std::string text(length, 'x');
    for (const std::size_t piece : {1u, 7u, 63u, 64u, 65u}) {
      EXPECT_EQ(hash_of<Sha256>(text, piece), hash_of<Sha256>(text)) << length << " in pieces of " << piece;
      EXPECT_EQ(hash_of<Sha1>(text, piece), hash_of<Sha1>(text)) << length << " in pieces of " << piece;
    }
  }
}

}  // namespace
}  // namespace llmfp8
