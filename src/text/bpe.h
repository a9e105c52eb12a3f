// Byte pair encoding of one word: a vocabulary in the byte alphabet and ranked merges. Called by the tokenizer.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/string_table.h"

namespace llmfp8 {

constexpr std::int64_t kMaxTokenId = (std::int64_t{1} << 24) - 1;

struct BpeOptions {
  bool ignore_merges = false;  // a word that is a token as a whole is that token, whatever the merges say
  std::optional<std::string>
      unk_token;          // stands for a byte that the vocabulary lacks; without it such a byte is dropped
  bool fuse_unk = false;  // one unk_token for a run of such bytes
};

// A token and how many bytes of the word it stands for.
struct WordToken {
  std::int32_t id = 0;
  std::uint32_t bytes = 0;
};

class BpeModel {
 public:
  // vocabulary: written in the byte alphabet; ids ≤ kMaxTokenId, each once.
  BpeModel(StringTable vocabulary, BpeOptions options, const std::string& origin);

  // In order of rank. Throws Error if one of the three tokens is not in the vocabulary.
  void reserve_merges(std::size_t count);
  void add_merge(std::string_view left, std::string_view right);

  // word: raw bytes. Appends its tokens.
  void encode_word(std::string_view word, std::vector<WordToken>& out) const;

  const StringTable& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    std::uint64_t pair = 0;
    std::uint32_t rank = 0;
    std::int32_t id = 0;
  };
  struct Symbol;

  const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  void grow_merges(std::size_t slots);
  void encode_uncached(std::string_view word, std::vector<WordToken>& out) const;
  void merge_short(std::vector<WordToken>& symbols, std::size_t from) const;
  void merge_long(std::vector<WordToken>& symbols, std::size_t from) const;

  StringTable vocabulary_;
  BpeOptions options_;
  std::string origin_;
  std::int32_t unk_id_ = -1;
  std::array<std::int32_t, 256> byte_ids_{};  // -1: the vocabulary lacks it
  std::vector<Merge> merges_;                 // open addressing
  std::size_t merge_count_ = 0;
  std::uint32_t next_rank_ = 0;
  std::uint64_t instance_ = 0;  // tells the threads' word caches which model a word was cached for
};

}  // namespace llmfp8
