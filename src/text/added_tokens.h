// Tokens that stand beside the BPE vocabulary ("<|eot_id|>"), found in a text before it is split. Called by the
// tokenizer.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llmfp8 {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;
  bool normalized = false;  // looked for in the normalised text
};

struct AddedTokenMatch {
  std::int32_t id = -1;  // -1: ordinary text
  std::size_t begin = 0;
  std::size_t end = 0;
};

// Finds a set of added tokens: leftmost, and the longest of those that begin there.
class AddedTokenMatcher {
 public:
  void add(const AddedToken& token, std::string_view written);

  // matches: overwritten with parts that lie end to end (but where a token strips what the one before has stripped).
  void split(std::string_view text, std::vector<AddedTokenMatch>& matches) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, std::uint32_t>> next;
    std::int32_t token = -1;  // index into tokens_
  };
  struct Found {
    std::size_t end = 0;
    std::int32_t token = -1;
  };

  Found longest_at(std::string_view text, std::size_t begin) const;

  std::vector<Node> nodes_{Node{}};
  std::vector<AddedToken> tokens_;
  std::array<bool, 256> first_{};
  int first_count_ = 0;
  char only_first_ = 0;  // the one byte that tokens begin with, where there is only one
};

}  // namespace llmfp8
