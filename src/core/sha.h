// SHA-256 and SHA-1 of bytes that come in pieces: the names that the hub gives to files. Called by hub/.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace llmfp8 {

// Both cut their input into blocks of 64 bytes; what differs is the state and how a block changes it.
class ShaBlocks {
 public:
  virtual ~ShaBlocks() = default;
  void update(std::string_view bytes);
  // Lower-case hexadecimal. Nothing may be added afterwards.
  std::string hex();

 protected:
  ShaBlocks() = default;
  virtual void compress(const unsigned char* block) = 0;  // block: 64 bytes
  std::array<std::uint32_t, 8> state_ = {};
  std::size_t words_ = 0;  // of the state, that make the result

 private:
  std::array<unsigned char, 64> pending_ = {};
  std::size_t filled_ = 0;
  std::uint64_t total_bytes_ = 0;
};

class Sha256 final : public ShaBlocks {
 public:
  Sha256();

 private:
  void compress(const unsigned char* block) override;
};

// Of no use against somebody who wants a collision; git names files by it.
class Sha1 final : public ShaBlocks {
 public:
  Sha1();

 private:
  void compress(const unsigned char* block) override;
};

}  // namespace llmfp8
