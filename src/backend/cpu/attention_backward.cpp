// Causal attention over packed documents, backward. Called by CpuOps.
//
// P is recomputed from lse; with D = rowsum(dO * O): dV = P^T dO, dS = scale * P * (dO V^T - D), dQ = dS K, dK = dS^T Q.
// One task owns a document and kv head, and adds its query heads in ascending order: no partial sums, one fixed order.
#include "backend/cpu/attention_tasks.h"
#include "backend/cpu/kernels.h"

namespace llmfp8::cpu {
namespace {

struct Workspace {
  float *keys, *keys_t, *values_t, *d_keys, *d_values;           // of a document
  float *queries, *d_out, *out, *d_queries, *scores, *d_scores;  // of kQueryRows rows

  Workspace(ScratchCutter& scratch, std::int64_t head_dim, std::int64_t length) {
    const std::int64_t padded = pad_columns(head_dim), columns = pad_columns(length);
    keys = scratch.take(length * padded);
    keys_t = scratch.take(head_dim * columns);
    values_t = scratch.take(head_dim * columns);
    d_keys = scratch.take(length * padded);
    d_values = scratch.take(length * padded);
    for (float** rows : {&queries, &d_out, &out, &d_queries}) *rows = scratch.take(kQueryRows * padded);
    for (float** rows : {&scores, &d_scores}) *rows = scratch.take(kQueryRows * columns);
  }
};

std::int64_t worker_floats(const AttentionShape& shape, std::int64_t tokens) {
  ScratchCutter cutter(nullptr);
  Workspace(cutter, shape.head_dim, longest_document(shape, tokens));
  return cutter.used();
}

template <typename A>
LLMFP8_CLONES void pack_document(const A* keys, const A* values, std::int64_t stride, std::int64_t length,
                                 std::int64_t head_dim, const Workspace& work) {
  pack_rows(keys, stride, length, head_dim, work.keys);
  pack_transposed(keys, stride, length, head_dim, work.keys_t, pad_columns(length));
  pack_transposed(values, stride, length, head_dim, work.values_t, pad_columns(length));
  std::fill_n(work.d_keys, length * pad_columns(head_dim), 0.0f);
  std::fill_n(work.d_values, length * pad_columns(head_dim), 0.0f);
}

// Queries, dO and O of one block, and D = rowsum(dO * O) → sums [rows].
template <typename A>
LLMFP8_CLONES void pack_block(const AttentionBackwardArgs& args, std::int64_t first_row, std::int64_t head,
                              std::int64_t rows, const Workspace& work, float* sums) {
  const std::int64_t dim = args.shape.head_dim, padded = pad_columns(dim);
  pack_rows(row_of<const A>(args.qkv, first_row) + head * dim, args.qkv.row_stride, rows, dim, work.queries);
  pack_rows(row_of<const A>(args.d_out, first_row) + head * dim, args.d_out.row_stride, rows, dim, work.d_out);
  pack_rows(row_of<const A>(args.out, first_row) + head * dim, args.out.row_stride, rows, dim, work.out);
  for (std::int64_t r = 0; r < rows; ++r)
    sums[r] = static_cast<float>(dot(work.d_out + r * padded, work.out + r * padded, padded));
}

// scores → P, d_scores (dO V^T) → dS; zero behind the diagonal.
LLMFP8_CLONES void gradient_rows(float* scores, float* d_scores, std::int64_t ld, std::int64_t rows, std::int64_t first,
                                 std::int64_t columns, float scale, const float* lse, const float* sums) {
  for (std::int64_t r = 0; r < rows; ++r) {
    float* __restrict p = scores + r * ld;
    float* __restrict d = d_scores + r * ld;
    const float log_sum = lse[r], row_sum = sums[r];
    for (std::int64_t i = 0; i < columns; ++i) {
      p[i] = fast_exp(p[i] * scale - log_sum);
      d[i] = p[i] * (d[i] - row_sum) * scale;
    }
    for (std::int64_t i = first + r + 1; i < columns; ++i) p[i] = d[i] = 0.0f;
  }
}

template <typename A>
LLMFP8_CLONES void store_rows(const float* from, std::int64_t rows, std::int64_t head_dim, A* to, std::int64_t stride) {
  const std::int64_t padded = pad_columns(head_dim);
  for (std::int64_t r = 0; r < rows; ++r) store(from + r * padded, to + r * stride, head_dim);
}

template <typename A>
void run_task(const AttentionBackwardArgs& args, const AttentionTask& task, const Workspace& work) {
  const AttentionShape& shape = args.shape;
  const std::int64_t dim = shape.head_dim, padded = pad_columns(dim), group = shape.num_heads / shape.num_kv_heads;
  const std::int64_t stride = args.qkv.row_stride, ld = pad_columns(task.length);
  const std::int64_t key_column = (shape.num_heads + task.kv_head) * dim;
  const std::int64_t value_column = key_column + shape.num_kv_heads * dim;
  const A* document = row_of<const A>(args.qkv, task.begin);
  A* d_document = row_of<A>(args.d_qkv, task.begin);
  pack_document(document + key_column, document + value_column, stride, task.length, dim, work);
  float sums[kQueryRows];
  for (std::int64_t head = task.kv_head * group; head < (task.kv_head + 1) * group; ++head) {
    for (std::int64_t q = 0; q < task.length; q += kQueryRows) {
      const std::int64_t rows = std::min(kQueryRows, task.length - q), keys = q + rows, columns = pad_columns(keys);
      pack_block<A>(args, task.begin + q, head, rows, work, sums);
      mini_gemm({rows, columns, dim, work.queries, padded, 1, work.keys_t, ld, work.scores, ld, false});
      mini_gemm({rows, columns, dim, work.d_out, padded, 1, work.values_t, ld, work.d_scores, ld, false});
      gradient_rows(work.scores, work.d_scores, ld, rows, q, columns, shape.scale,
                    row_of<float>(args.lse, head) + task.begin + q, sums);
      mini_gemm({keys, padded, rows, work.scores, 1, ld, work.d_out, padded, work.d_values, padded, true});
      mini_gemm({keys, padded, rows, work.d_scores, 1, ld, work.queries, padded, work.d_keys, padded, true});
      mini_gemm({rows, padded, keys, work.d_scores, ld, 1, work.keys, padded, work.d_queries, padded, false});
      store_rows(work.d_queries, rows, dim, d_document + q * args.d_qkv.row_stride + head * dim, args.d_qkv.row_stride);
    }
  }
  store_rows(work.d_keys, task.length, dim, d_document + key_column, args.d_qkv.row_stride);
  store_rows(work.d_values, task.length, dim, d_document + value_column, args.d_qkv.row_stride);
}

}  // namespace

std::size_t attention_backward_scratch_bytes(const AttentionBackwardArgs& args, int workers) {
  return static_cast<std::size_t>(workers * worker_floats(args.shape, args.qkv.rows())) * sizeof(float);
}

void attention_backward(const AttentionBackwardArgs& args, void* scratch, int workers) {
  const AttentionShape& shape = args.shape;
  const std::int64_t rows = args.qkv.rows(), live = live_rows(args.num_tokens, rows),
                     longest = longest_document(shape, rows);
  const std::int64_t floats = worker_floats(shape, rows);
  const auto tasks = attention_tasks(shape, args.cu_seqlens, live, longest, longest);
  with_activation(args.qkv.dtype, [&](auto a) {
    using A = decltype(a);
    run_tasks(tasks, workers, [&](const AttentionTask& task, std::int64_t worker) {
      ScratchCutter cutter(static_cast<float*>(scratch) + worker * floats);
      run_task<A>(args, task, Workspace(cutter, shape.head_dim, longest));
    });
    for (std::int64_t row = live; row < rows; ++row) zero_row<A>(args.d_qkv, row);
  });
}

}  // namespace llmfp8::cpu
