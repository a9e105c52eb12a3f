#include "train/utilisation.h"

#include <algorithm>

#include "train/time_alone.h"

namespace llmfp8 {
namespace {

double square_product_ms(Backend& backend, Stream& stream, std::int64_t n) {
  const Shape shape{n, n};
  const RandomMatrix a(backend, stream, DType::bf16, shape), b(backend, stream, DType::bf16, shape);
  const Buffer out = backend.allocate(static_cast<std::size_t>(shape.numel()) * size_bytes(DType::bf16), "a product");
  GemmArgs args;
  args.a = QTensor::high_precision(a.tensor());
  args.b = QTensor::high_precision(b.tensor());
  args.out = out.tensor(DType::bf16, shape);
  return planned_least_ms(backend, stream, [&](Ops& ops) { ops.gemm(args); }, 3);
}

}  // namespace

ModelFlops::ModelFlops(const WeightTable& table) {
  const ModelConfig& c = table.config();
  double weights = 0;
  for (const ParamSpec& param : table.params()) {
    const bool is_product = param.shape.rank() == 2 && (param.kind != ParamKind::embedding || c.tie_word_embeddings);
    if (is_product) weights += static_cast<double>(param.shape.numel());
  }
  per_token_ = 6 * weights;
  // Scores and their use, 2 operations each forward and twice that backward.
  per_pair_ = 12 * static_cast<double>(c.num_hidden_layers * c.q_size());
}

double measured_matrix_rate(Backend& backend) {
  constexpr std::int64_t kSmallest = 512, kLargest = 4096;
  constexpr double kMostMs = 40;
  const std::unique_ptr<Stream> stream = backend.create_stream();
  double best = 0;
  for (std::int64_t n = kSmallest;; n *= 2) {
    const double ms = square_product_ms(backend, *stream, n), flops = 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
    best = std::max(best, flops / (ms / 1e3));
    // The next one takes eight times as long.
    if (n >= kLargest || 8 * ms > kMostMs) return best;
  }
}

}  // namespace llmfp8
