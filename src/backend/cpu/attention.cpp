// Causal attention over packed documents, forward. Called by CpuOps.
//
// A task packs the keys (transposed) and values of one document and kv head to fp32, then takes 32 query rows at a time:
// scores of the whole row, softmax in fp32, product with the values.
#include "backend/cpu/attention_tasks.h"
#include "backend/cpu/kernels.h"

namespace llmfp8::cpu {
namespace {

constexpr std::int64_t kChunkQueries = 256;  // of one task: long documents are cut

struct Workspace {
  float *keys, *values, *queries, *scores, *out;

  Workspace(ScratchCutter& scratch, std::int64_t head_dim, std::int64_t length) {
    const std::int64_t padded = pad_columns(head_dim), columns = pad_columns(length);
    keys = scratch.take(head_dim * columns);
    values = scratch.take(length * padded);
    queries = scratch.take(kQueryRows * padded);
    scores = scratch.take(kQueryRows * columns);
    out = scratch.take(kQueryRows * padded);
  }
};

std::int64_t worker_floats(const AttentionShape& shape, std::int64_t tokens) {
  ScratchCutter cutter(nullptr);
  Workspace(cutter, shape.head_dim, longest_document(shape, tokens));
  return cutter.used();
}

// scores: [rows, ld], row r belongs to query first + r and sees keys 0..first + r; becomes exp(scale * s - max), zero
// behind the diagonal up to `columns`. sums, maxima: [rows]
LLMFP8_CLONES void softmax_rows(float* scores, std::int64_t ld, std::int64_t rows, std::int64_t first,
                                std::int64_t columns, float scale, float* sums, float* maxima) {
  for (std::int64_t r = 0; r < rows; ++r) {
    float* s = scores + r * ld;
    const std::int64_t n = first + r + 1;
    for (std::int64_t i = 0; i < n; ++i) s[i] *= scale;
    const float largest = max_of(s, n);
    for (std::int64_t i = 0; i < n; ++i) s[i] = fast_exp(s[i] - largest);
    for (std::int64_t i = n; i < columns; ++i) s[i] = 0.0f;
    sums[r] = static_cast<float>(sum(s, n));
    maxima[r] = largest;
  }
}

template <typename A>
LLMFP8_CLONES void pack_document(const A* keys, const A* values, std::int64_t stride, std::int64_t length,
                                 std::int64_t head_dim, const Workspace& work) {
  pack_transposed(keys, stride, length, head_dim, work.keys, pad_columns(length));
  pack_rows(values, stride, length, head_dim, work.values);
}

template <typename A>
LLMFP8_CLONES void pack_queries(const A* queries, std::int64_t stride, std::int64_t rows, std::int64_t head_dim,
                                float* to) {
  pack_rows(queries, stride, rows, head_dim, to);
}

template <typename A>
LLMFP8_CLONES void store_rows(const float* from, const float* sums, std::int64_t rows, std::int64_t head_dim, A* to,
                              std::int64_t stride) {
  const std::int64_t padded = pad_columns(head_dim);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float inverse = 1.0f / sums[r];
    for (std::int64_t i = 0; i < head_dim; ++i) to[r * stride + i] = from_float<A>(from[r * padded + i] * inverse);
  }
}

template <typename A>
void run_task(const AttentionArgs& args, const AttentionTask& task, const Workspace& work) {
  const AttentionShape& shape = args.shape;
  const std::int64_t dim = shape.head_dim, padded = pad_columns(dim), group = shape.num_heads / shape.num_kv_heads;
  const std::int64_t stride = args.qkv.row_stride, keys_of_task = task.last_query, ld = pad_columns(keys_of_task);
  const A* document = row_of<const A>(args.qkv, task.begin);
  pack_document(document + (shape.num_heads + task.kv_head) * dim,
                document + (shape.num_heads + shape.num_kv_heads + task.kv_head) * dim, stride, keys_of_task, dim,
                work);
  float sums[kQueryRows], maxima[kQueryRows];
  for (std::int64_t head = task.kv_head * group; head < (task.kv_head + 1) * group; ++head) {
    for (std::int64_t q = task.first_query; q < task.last_query; q += kQueryRows) {
      const std::int64_t rows = std::min(kQueryRows, task.last_query - q), columns = pad_columns(q + rows);
      pack_queries(document + q * stride + head * dim, stride, rows, dim, work.queries);
      mini_gemm({rows, columns, dim, work.queries, padded, 1, work.keys, ld, work.scores, ld, false});
      softmax_rows(work.scores, ld, rows, q, columns, shape.scale, sums, maxima);
      mini_gemm({rows, padded, q + rows, work.scores, ld, 1, work.values, padded, work.out, padded, false});
      store_rows(work.out, sums, rows, dim, row_of<A>(args.out, task.begin + q) + head * dim, args.out.row_stride);
      float* lse = row_of<float>(args.lse, head) + task.begin + q;
      for (std::int64_t r = 0; r < rows; ++r) lse[r] = maxima[r] + std::log(sums[r]);
    }
  }
}

}  // namespace

std::size_t attention_scratch_bytes(const AttentionArgs& args, int workers) {
  return static_cast<std::size_t>(workers * worker_floats(args.shape, args.qkv.rows())) * sizeof(float);
}

void attention(const AttentionArgs& args, void* scratch, int workers) {
  const AttentionShape& shape = args.shape;
  const std::int64_t rows = args.qkv.rows(), live = live_rows(args.num_tokens, rows),
                     longest = longest_document(shape, rows);
  const std::int64_t floats = worker_floats(shape, rows);
  const auto tasks = attention_tasks(shape, args.cu_seqlens, live, longest, kChunkQueries);
  with_activation(args.qkv.dtype, [&](auto a) {
    using A = decltype(a);
    run_tasks(tasks, workers, [&](const AttentionTask& task, std::int64_t worker) {
      ScratchCutter cutter(static_cast<float*>(scratch) + worker * floats);
      run_task<A>(args, task, Workspace(cutter, shape.head_dim, longest));
    });
    for (std::int64_t row = live; row < rows; ++row) zero_row<A>(args.out, row);
  });
  for (std::int64_t head = 0; head < shape.num_heads; ++head) {
    std::fill(row_of<float>(args.lse, head) + live, row_of<float>(args.lse, head) + rows, 0.0f);
  }
}

}  // namespace llmfp8::cpu
