#include "model/loss.h"

#include <algorithm>

#include "model/linear.h"

namespace llmfp8 {
namespace {

constexpr Site kHead{0, Product::lm_head};

// Quantised copy of x where the recipe quantises the head's input; storage keeps it alive.
QTensor head_input(const PassContext& pass, const Tensor& x, const Tensor& count, std::vector<ArenaTensor>& storage) {
  const Quantizer quantizer = pass.quantizer(kHead, Role::input);
  if (!quantizer.quantizes()) return QTensor::high_precision(x);
  const QTensor q = quantizer.create(Shape{x.rows(), x.cols()}, x.dtype, pass.ops.usages(quantizer.spec().scaling()),
                                     [&](std::string_view what, DType dtype, Shape shape) {
                                       storage.push_back(pass.ops.arena().take(what, dtype, shape));
                                       return storage.back().get();
                                     });
  pass.ops.quantize(x, count, q);
  return q;
}

}  // namespace

std::int64_t loss_chunk_rows(std::int64_t vocab_size, DType dtype, std::int64_t capacity, std::size_t logits_bytes) {
  const std::int64_t row_bytes = vocab_size * static_cast<std::int64_t>(size_bytes(dtype));
  const std::int64_t most = std::max<std::int64_t>(1, static_cast<std::int64_t>(logits_bytes) / row_bytes / 128);
  const std::int64_t blocks = (capacity + 127) / 128, chunks = (blocks + most - 1) / most;
  return std::min((blocks + chunks - 1) / chunks * 128, capacity);
}

void head_loss(const PassContext& pass, const Tensor& hidden, StepScalars* scalars, GradTarget* grads, const Tensor& d_hidden) {
  const ModelConfig& config = pass.params.table().config();
  const ParamSpec& head = pass.params.table().find(ParamKind::lm_head);
  Ops& ops = pass.ops;
  const Scope scope(ops, {"lm_head"});
  Arena& arena = ops.arena();
  const std::int64_t capacity = pass.tokens();
  const std::int64_t chunk = loss_chunk_rows(config.vocab_size, pass.dtype(), capacity, pass.logits_bytes);
  const QTensor weight = pass.params.lm_head(pass.numerics);
  const Tensor count = pass.batch.num_supervised();

  const ArenaTensor rows_in = arena.take("head rows", pass.dtype(), Shape{chunk, config.hidden_size});
  const ArenaTensor labels = arena.take("head labels", DType::i32, Shape{chunk});
  const ArenaTensor token_loss = arena.take("token loss", DType::f32, Shape{chunk});
  const ArenaTensor logits = arena.take("logits", pass.dtype(), Shape{chunk, config.vocab_size});
  ArenaTensor d_rows;
  if (grads != nullptr) {
    d_rows = arena.take("d_head rows", pass.dtype(), Shape{chunk, config.hidden_size});
    ops.zero(d_hidden);
  }
  for (std::int64_t begin = 0; begin < capacity; begin += chunk) {
    // The last chunk may reach over the end: its extra rows are beyond the count.
    const RowCount rows{count, begin, std::clamp<std::int64_t>(pass.batch.host_counts.num_supervised - begin, 0, chunk)};
    const Tensor& index = pass.batch.supervised_rows;
    ops.gather_rows({hidden, index, count, begin, rows_in});
    ops.gather_rows({pass.batch.labels, index, count, begin, labels});
    std::vector<ArenaTensor> storage;
    const QTensor input = head_input(pass, rows_in, count, storage);
    linear_forward(pass, {kHead, input, weight, Tensor(), Tensor(), logits}, rows);
    const CrossEntropyArgs loss{logits, labels, count, begin, grads != nullptr, token_loss};
    if (grads == nullptr) {
      ops.cross_entropy(loss);
      ops.accumulate_loss(token_loss, count, begin, scalars);
      continue;
    }
    const OutputGradient d_logits(pass, kHead, logits);
    ops.cross_entropy_quantize({loss, d_logits.get()});
    ops.accumulate_loss(token_loss, count, begin, scalars);
    linear_backward(pass, {kHead, d_logits.get(), input, weight, d_rows, grads->destination(head)}, rows);
    ops.scatter_rows({d_rows, index, count, begin, d_hidden});
  }
  // A tied head shares its gradient with the embedding, which contributes last.
  if (grads != nullptr && head.kind == ParamKind::lm_head) grads->ready(head);
}

void head_logits(const PassContext& pass, const Tensor& hidden, const Tensor& logits) {
  const Scope scope(pass.ops, {"lm_head"});
  std::vector<ArenaTensor> storage;
  const QTensor input = head_input(pass, hidden, pass.num_tokens(), storage);
  linear_forward(pass, {kHead, input, pass.params.lm_head(pass.numerics), Tensor(), Tensor(), logits}, token_rows(pass));
}

}  // namespace llmfp8
