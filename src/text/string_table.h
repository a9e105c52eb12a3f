// A hash map from strings to numbers that keeps all strings in one block of memory. Used by the BPE vocabulary, where a
// node-based map would cost a cache miss more for each look-up.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace llmfp8 {

inline std::uint64_t hash_bytes(std::string_view bytes) {
  constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
  std::uint64_t hash = bytes.size() * kMultiplier;
  const auto mix = [&](std::uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 32;
  };
  std::size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, 8);
    mix(word);
  }
  std::uint64_t rest = 0;
  if (at < bytes.size()) std::memcpy(&rest, bytes.data() + at, bytes.size() - at);
  mix(rest);
  return hash;
}

class StringTable {
 public:
  void reserve(std::size_t count, std::size_t bytes) {
    arena_.reserve(bytes);
    entries_.reserve(count);
    grow(count * 2);
  }

  // False, and nothing changes, if the string is there already.
  bool insert(std::string_view text, std::int32_t value) {
    if ((entries_.size() + 1) * 2 > slots_.size()) grow(slots_.size() * 2);
    std::size_t slot = hash_bytes(text) & (slots_.size() - 1);
    for (; slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1)) {
      if (text_of(entries_[slots_[slot] - 1]) == text) return false;
    }
    entries_.push_back({arena_.size(), static_cast<std::uint32_t>(text.size()), value});
    arena_ += text;
    slots_[slot] = static_cast<std::uint32_t>(entries_.size());
    return true;
  }

  // -1 if there is none.
  std::int32_t find(std::string_view text) const {
    if (slots_.empty()) return -1;
    for (std::size_t slot = hash_bytes(text) & (slots_.size() - 1); slots_[slot] != 0;
         slot = (slot + 1) & (slots_.size() - 1)) {
      const Entry& entry = entries_[slots_[slot] - 1];
      if (text_of(entry) == text) return entry.value;
    }
    return -1;
  }

  std::size_t size() const { return entries_.size(); }
  // In the order of insertion.
  std::string_view text(std::size_t index) const { return text_of(entries_[index]); }
  std::int32_t value(std::size_t index) const { return entries_[index].value; }

 private:
  struct Entry {
    std::size_t offset = 0;
    std::uint32_t size = 0;
    std::int32_t value = 0;
  };

  std::string_view text_of(const Entry& entry) const {
    return std::string_view(arena_).substr(entry.offset, entry.size);
  }

  void grow(std::size_t wanted) {
    std::size_t size = 64;
    while (size < wanted) size *= 2;
    slots_.assign(size, 0);
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      std::size_t slot = hash_bytes(text_of(entries_[i])) & (size - 1);
      while (slots_[slot] != 0) slot = (slot + 1) & (size - 1);
      slots_[slot] = static_cast<std::uint32_t>(i + 1);
    }
  }

  std::string arena_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> slots_;  // index into entries_ plus one; 0: empty
};

}  // namespace llmfp8
