// Embedding lookup and its gradient. Called by CpuOps.
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

constexpr int kPositionBits = 32;

// entries: u64 [n], sorted: token << 32 | position. Adds the groups that begin in [begin, end).
template <typename A, typename G>
LLMFP8_CLONES void add_groups(const EmbeddingBackwardArgs& args, const std::uint64_t* entries, std::int64_t n,
                              std::int64_t begin, std::int64_t end) {
  const std::int64_t cols = args.d_out.cols();
  constexpr int kColumns = 256;
  double total[kColumns];
  for (std::int64_t i = begin; i < end;) {
    const std::uint64_t token = entries[i] >> kPositionBits;
    const bool mine = i == 0 || (entries[i - 1] >> kPositionBits) != token;
    std::int64_t last = i + 1;
    while (last < n && (entries[last] >> kPositionBits) == token) ++last;
    if (mine) {
      G* out = row_of<G>(args.d_table.tensor, static_cast<std::int64_t>(token));
      for (std::int64_t c = 0; c < cols; c += kColumns) {
        const std::int64_t width = std::min<std::int64_t>(kColumns, cols - c);
        for (std::int64_t k = 0; k < width; ++k) {
          total[k] = args.d_table.accumulate ? static_cast<double>(as_float(out[c + k])) : 0.0;
        }
        for (std::int64_t e = i; e < last; ++e) {
          const A* from = row_of<const A>(args.d_out, static_cast<std::int64_t>(entries[e] & 0xFFFFFFFFu)) + c;
          for (std::int64_t k = 0; k < width; ++k) total[k] += static_cast<double>(as_float(from[k]));
        }
        for (std::int64_t k = 0; k < width; ++k) out[c + k] = from_float<G>(static_cast<float>(total[k]));
      }
    }
    i = last;
  }
}

}  // namespace

void embedding(const EmbeddingArgs& args) {
  const std::int64_t rows = args.out.rows(), cols = args.out.cols(), live = live_rows(args.num_tokens, rows);
  const std::size_t bytes = static_cast<std::size_t>(cols) * size_bytes(args.out.dtype);
  const std::int32_t* tokens = args.tokens.as<std::int32_t>();
  with_activation(args.out.dtype, [&](auto a) {
    using A = decltype(a);
    parallel_for(rows, row_grain(cols), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        if (row >= live) {
          zero_row<A>(args.out, row);
          continue;
        }
        CHECK(tokens[row] >= 0 && tokens[row] < args.table.rows(), "embedding: token {} at {}, the table has {} rows",
              tokens[row], row, args.table.rows());
        std::memcpy(static_cast<void*>(row_of<A>(args.out, row)), row_of<const A>(args.table, tokens[row]), bytes);
      }
    });
  });
}

std::size_t embedding_backward_scratch_bytes(const EmbeddingBackwardArgs& args) {
  return static_cast<std::size_t>(args.tokens.numel()) * sizeof(std::uint64_t);
}

void embedding_backward(const EmbeddingBackwardArgs& args, void* scratch) {
  const std::int64_t live = live_rows(args.num_tokens, args.d_out.rows());
  const Tensor& table = args.d_table.tensor;
  if (!args.d_table.accumulate) zero(table);
  std::uint64_t* entries = static_cast<std::uint64_t*>(scratch);
  const std::int32_t* tokens = args.tokens.as<std::int32_t>();
  for (std::int64_t row = 0; row < live; ++row) {
    CHECK(tokens[row] >= 0 && tokens[row] < table.rows(), "embedding_backward: token {} at {}, the table has {} rows",
          tokens[row], row, table.rows());
    entries[row] = static_cast<std::uint64_t>(tokens[row]) << kPositionBits | static_cast<std::uint64_t>(row);
  }
  std::sort(entries, entries + live);
  with_activation(args.d_out.dtype, [&](auto a) {
    with_activation(table.dtype, [&](auto g) {
      parallel_for(live, row_grain(table.cols()), [&](std::int64_t begin, std::int64_t end) {
        add_groups<decltype(a), decltype(g)>(args, entries, live, begin, end);
      });
    });
  });
}

}  // namespace llmfp8::cpu
