// Every row of a data set by its number there, in segments. Filled by table_builder, read through token_store.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <string>
#include <vector>

#include "data/token_segment.h"

namespace llmfp8 {

// What a row teaches; no ids: it is of no use.
struct RowTokens {
  std::vector<std::int32_t> ids;     // [length]
  std::vector<std::int32_t> labels;  // [length]
};

// Thread-safe: it may be read while segments come.
class TokenTable {
 public:
  // The segment that goes on where the last one ends.
  void append(std::unique_ptr<TokenSegment> segment);

  std::int64_t rows() const;  // that have come
  std::int64_t tokens() const;
  struct Place {
    const TokenSegment& segment;
    const RowRecord& record;
  };
  // Throws Error beyond rows().
  Place locate(std::int64_t row) const;
  // A copy. Throws Error that names the file where the tokens are not as they were written.
  RowTokens read(std::int64_t row) const;
  std::int32_t largest_id() const;
  std::array<std::int64_t, kRowFaults> rows_by_fault() const;  // [RowFault]
  // What locate() has shown of files no longer counts as this process's memory.
  void release_records() const;

 private:
  mutable std::shared_mutex mutex_;  // of segments_; a segment never changes
  std::vector<std::unique_ptr<TokenSegment>> segments_;
};

// "3 rows left out: 2 empty, 1 not UTF-8"; empty if there are none.
std::string fault_summary(const std::array<std::int64_t, kRowFaults>& rows_by_fault);

}  // namespace llmfp8
