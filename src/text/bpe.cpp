// Byte pair encoding of one word: a vocabulary in the byte alphabet and ranked merges. Called by the tokenizer.
#include "text/bpe.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <queue>
#include <utility>

#include "core/error.h"
#include "text/utf8.h"

namespace llmfp8 {
namespace {

constexpr std::uint64_t kNoPair = ~std::uint64_t{0};
constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();
constexpr std::size_t kShortWord = 32;  // symbols up to which looking through all of them beats a queue

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) | static_cast<std::uint32_t>(right);
}

std::uint64_t hash_pair(std::uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15u;
  return pair ^ (pair >> 32);
}

std::uint64_t new_instance() {
  static std::atomic<std::uint64_t> count{0};
  return ++count;
}

// The tokens of words met lately, a slot for each hash; a thread has its own, so nobody waits.
class WordCache {
 public:
  static constexpr std::size_t kMaxBytes = 22, kMaxTokens = 5;

  struct alignas(64) Slot {
    std::uint8_t size = 0;  // bytes of the word; 0: empty
    std::uint8_t count = 0;
    std::array<char, kMaxBytes> word{};
    std::array<WordToken, kMaxTokens> tokens{};
  };

  Slot& slot_for(std::string_view word, std::uint64_t instance) {
    if (instance != instance_) {
      slots_.assign(kSlots, Slot{});
      instance_ = instance;
    }
    return slots_[hash_bytes(word) & (kSlots - 1)];
  }

 private:
  static constexpr std::size_t kSlots = std::size_t{1} << 15;  // 2 MiB
  std::uint64_t instance_ = 0;
  std::vector<Slot> slots_;
};
static_assert(sizeof(WordCache::Slot) == 64);

WordCache& word_cache() {
  thread_local WordCache cache;
  return cache;
}

}  // namespace

struct BpeModel::Symbol {
  WordToken token;
  std::uint32_t previous = 0;
  std::uint32_t next = 0;  // the number of symbols: none
};

BpeModel::BpeModel(StringTable vocabulary, BpeOptions options, const std::string& origin)
    : vocabulary_(std::move(vocabulary)), options_(std::move(options)), origin_(origin), instance_(new_instance()) {
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char raw = static_cast<char>(byte);
    std::string written;
    append_byte_alphabet(written, std::string_view(&raw, 1));
    byte_ids_[byte] = vocabulary_.find(written);
  }
  if (options_.unk_token) {
    unk_id_ = vocabulary_.find(*options_.unk_token);
    CHECK(unk_id_ >= 0, "{}: model.unk_token \"{}\" is not in the vocabulary", origin_, *options_.unk_token);
  }
  grow_merges(64);
}

void BpeModel::grow_merges(std::size_t slots) {
  std::vector<Merge> old;
  old.swap(merges_);
  merges_.assign(slots, Merge{kNoPair, 0, 0});
  for (const Merge& merge : old) {
    if (merge.pair == kNoPair) continue;
    std::size_t slot = hash_pair(merge.pair) & (slots - 1);
    while (merges_[slot].pair != kNoPair) slot = (slot + 1) & (slots - 1);
    merges_[slot] = merge;
  }
}

void BpeModel::reserve_merges(std::size_t count) {
  std::size_t slots = merges_.size();
  while (slots < 2 * count) slots *= 2;
  if (slots != merges_.size()) grow_merges(slots);
}

void BpeModel::add_merge(std::string_view left, std::string_view right) {
  const auto id_of = [&](std::string_view token) {
    const std::int32_t id = vocabulary_.find(token);
    CHECK(id >= 0, "{}: model.merges[{}] needs the token \"{}\", which the vocabulary lacks", origin_, next_rank_,
          token.substr(0, 80));
    return id;
  };
  const std::uint64_t pair = pair_key(id_of(left), id_of(right));
  const std::int32_t id = id_of(std::string(left).append(right));
  if (2 * (merge_count_ + 1) > merges_.size()) grow_merges(2 * merges_.size());
  std::size_t slot = hash_pair(pair) & (merges_.size() - 1);
  while (merges_[slot].pair != kNoPair && merges_[slot].pair != pair) slot = (slot + 1) & (merges_.size() - 1);
  if (merges_[slot].pair == kNoPair) ++merge_count_;
  merges_[slot] = {pair, next_rank_++, id};  // of a merge listed twice, HF takes the later rank
}

const BpeModel::Merge* BpeModel::find_merge(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_key(left, right);
  std::size_t slot = hash_pair(pair) & (merges_.size() - 1);
  while (merges_[slot].pair != pair) {
    if (merges_[slot].pair == kNoPair) return nullptr;
    slot = (slot + 1) & (merges_.size() - 1);
  }
  return &merges_[slot];
}

void BpeModel::encode_word(std::string_view word, std::vector<WordToken>& out) const {
  if (word.empty() || word.size() > WordCache::kMaxBytes) return encode_uncached(word, out);
  WordCache::Slot& slot = word_cache().slot_for(word, instance_);
  if (std::string_view(slot.word.data(), slot.size) == word) {
    out.insert(out.end(), slot.tokens.begin(), slot.tokens.begin() + slot.count);
    return;
  }
  const std::size_t from = out.size();
  encode_uncached(word, out);
  const std::size_t count = out.size() - from;
  if (count > WordCache::kMaxTokens) return;
  slot.size = static_cast<std::uint8_t>(word.size());
  slot.count = static_cast<std::uint8_t>(count);
  std::copy(word.begin(), word.end(), slot.word.begin());
  std::copy(out.begin() + static_cast<std::ptrdiff_t>(from), out.end(), slot.tokens.begin());
}

void BpeModel::encode_uncached(std::string_view word, std::vector<WordToken>& out) const {
  if (options_.ignore_merges) {
    thread_local std::string written;
    written.clear();
    append_byte_alphabet(written, word);
    const std::int32_t id = vocabulary_.find(written);
    if (id >= 0) {
      out.push_back({id, static_cast<std::uint32_t>(word.size())});
      return;
    }
  }
  const std::size_t from = out.size();
  bool after_unknown = false;
  std::uint32_t dropped = 0;  // bytes at the start that no token stands for
  for (const char byte : word) {
    const std::int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
    const bool unknown = id < 0;
    if (!unknown) {
      out.push_back({id, 1 + std::exchange(dropped, 0)});
    } else if (unk_id_ >= 0 && !(options_.fuse_unk && after_unknown)) {
      out.push_back({unk_id_, 1 + std::exchange(dropped, 0)});
    } else if (out.size() > from) {
      ++out.back().bytes;  // dropped, or part of the unk_token before it: no token of its own ends there
    } else {
      ++dropped;
    }
    after_unknown = unknown;
  }
  if (out.size() - from <= kShortWord) {
    merge_short(out, from);
  } else {
    merge_long(out, from);
  }
}

void BpeModel::merge_short(std::vector<WordToken>& symbols, std::size_t from) const {
  std::size_t count = symbols.size() - from;
  WordToken* const all = symbols.data() + from;
  std::array<const Merge*, kShortWord> merges{};  // of symbol i with symbol i + 1
  for (std::size_t i = 0; i + 1 < count; ++i) merges[i] = find_merge(all[i].id, all[i + 1].id);
  while (count > 1) {
    std::size_t best = 0;
    std::uint32_t best_rank = kNoRank;
    for (std::size_t i = 0; i + 1 < count; ++i) {
      if (merges[i] != nullptr && merges[i]->rank < best_rank) {
        best = i;
        best_rank = merges[i]->rank;
      }
    }
    if (best_rank == kNoRank) break;
    all[best] = {merges[best]->id, all[best].bytes + all[best + 1].bytes};
    std::copy(all + best + 2, all + count, all + best + 1);
    if (best + 2 < count) std::copy(merges.begin() + best + 2, merges.begin() + count, merges.begin() + best + 1);
    --count;
    merges[best] = best + 1 < count ? find_merge(all[best].id, all[best + 1].id) : nullptr;
    if (best > 0) merges[best - 1] = find_merge(all[best - 1].id, all[best].id);
  }
  symbols.resize(from + count);
}

void BpeModel::merge_long(std::vector<WordToken>& out, std::size_t from) const {
  const auto count = static_cast<std::uint32_t>(out.size() - from);
  std::vector<Symbol> symbols(count);
  for (std::uint32_t i = 0; i < count; ++i) symbols[i] = {out[from + i], i - 1, i + 1};

  struct Candidate {
    std::uint32_t rank, at;
    std::int32_t left, right;  // what stood there: a candidate whose symbols have changed since is void
  };
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
  };
  std::vector<Candidate> storage;
  storage.reserve(count);
  std::priority_queue<Candidate, std::vector<Candidate>, decltype(later)> queue(later, std::move(storage));
  const auto consider = [&](std::uint32_t at) {
    if (symbols[at].next >= count) return;
    const std::int32_t left = symbols[at].token.id, right = symbols[symbols[at].next].token.id;
    if (const Merge* merge = find_merge(left, right)) queue.push({merge->rank, at, left, right});
  };
  for (std::uint32_t i = 0; i + 1 < count; ++i) consider(i);

  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[top.at];
    if (left.token.bytes == 0 || left.token.id != top.left || left.next >= count) continue;
    Symbol& right = symbols[left.next];
    if (right.token.id != top.right) continue;
    left.token = {find_merge(top.left, top.right)->id, left.token.bytes + right.token.bytes};
    right.token.bytes = 0;  // gone
    left.next = right.next;
    if (left.next < count) symbols[left.next].previous = top.at;
    consider(top.at);
    if (top.at > 0) consider(left.previous);
  }
  out.resize(from);
  for (std::uint32_t i = 0; i < count; i = symbols[i].next) out.push_back(symbols[i].token);
}

}  // namespace llmfp8
