// What can be known about a run before its first step and would spoil it without being an error: each check finds a fact
// and says whether a user should look at it. The trainer says the warnings before every start; --dry_run prints all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/token_store.h"
#include "text/tokenizer.h"
#include "train/engine.h"

namespace llmfp8 {

struct PreflightCheck {
  std::string what;     // "beginning of text"
  std::string found;    // one line
  bool warns = false;
};

// How rows begin (one BOS where the tokenizer puts one) and end (a row that was not cut off ends in a supervised special
// token, or the model never learns to stop). max_seq_length: rows of that length count as cut off.
std::vector<PreflightCheck> check_row_ends(const TokenStore& rows, const Tokenizer& tokenizer, std::int64_t max_seq_length);

// Special tokens that the rows use and whose embedding was never trained: its norm is below 1 % of the median norm of the
// other tokens in the rows. Every id is below the model's vocab_size. Reads the engine's weights; no step is in flight.
PreflightCheck check_special_embeddings(const TokenStore& rows, const Tokenizer& tokenizer, Engine& engine);

// What saving takes, in bytes, and what lies free where the folder is or will be.
struct DiskNeed {
  std::size_t model_bytes = 0;         // of the model that the run ends with
  std::size_t snapshot_bytes = 0;      // of each checkpoint
  std::int64_t snapshots = 0;          // that lie there at once at most
};
// Throws Error where not even the final model fits: it would be lost after training. Warns where the snapshots do not.
PreflightCheck check_disk(const std::filesystem::path& folder, const DiskNeed& need);
// With free_bytes as given; for tests.
PreflightCheck judge_disk(const std::filesystem::path& folder, const DiskNeed& need, std::uint64_t free_bytes);

}  // namespace llmfp8
