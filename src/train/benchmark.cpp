#include "train/benchmark.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "core/clock.h"
#include "core/rng.h"
#include "data/token_store.h"
#include "model/attention.h"
#include "train/benchmark_steps.h"
#include "train/time_alone.h"

namespace llmfp8 {
namespace {

constexpr std::uint64_t kSeed = 42;
constexpr std::int64_t kMostStepsOfTokens = 64;

double now_ms() { return 1e3 * now_seconds(); }

// Rows of random tokens, every one learnt but the last of a row, which has nothing behind it.
TokenStore random_rows(const BenchmarkOptions& o) {
  std::vector<TokenizedRow> store;
  const std::int64_t steps = std::min(o.steps + kBenchmarkWarmUp, kMostStepsOfTokens);
  const std::int64_t rows = std::max(steps * o.batch_size * o.accumulation, static_cast<std::int64_t>(o.lengths.size()));
  for (std::int64_t r = 0; r < rows; ++r) {
    TokenizedRow row;
    row.untruncated_length = o.lengths[static_cast<std::size_t>(r) % o.lengths.size()];
    for (std::int64_t t = 0; t < row.untruncated_length; ++t) {
      const Philox4 random = philox4x32(kSeed, static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(r));
      row.ids.push_back(static_cast<std::int32_t>(random.x[0] % static_cast<std::uint64_t>(o.model.vocab_size)));
    }
    row.labels.assign(row.ids.begin() + 1, row.ids.end());
    row.labels.push_back(kIgnoreLabel);
    store.push_back(std::move(row));
  }
  return store_in_memory(store);
}

BatchLoaderOptions loader_options(const BenchmarkOptions& o) {
  BatchLoaderOptions options;
  options.batch_size = o.batch_size;
  options.accumulation = o.accumulation;
  options.max_seq_length = *std::max_element(o.lengths.begin(), o.lengths.end());
  options.packing = o.packing ? Packing::fill : Packing::off;
  options.last_batch = LastBatch::drop;
  return options;
}

WorkKind kind_of(const OpInfo& info, std::int64_t vocab_size) {
  const std::string_view op = info.name;
  if (op == "adamw" || op == "quantize_weight" || op == "accumulate_sum_of_squares" || op == "finish_gradient" || op == "update_scales")
    return WorkKind::optimizer;
  const bool vocabulary = info.rows == vocab_size || info.cols == vocab_size || info.contraction == vocab_size;
  if (vocabulary || op.starts_with("cross_entropy") || op == "gather_rows" || op == "scatter_rows" || op == "accumulate_loss") return WorkKind::head;
  if (op == "gemm") return WorkKind::gemm;
  if (op.starts_with("attention")) return WorkKind::attention;
  return WorkKind::elementwise;
}

// ---- the products alone

using ProductKey = std::tuple<std::int64_t, std::int64_t, std::int64_t, GemmPass, bool>;
ProductKey key_of(const OpInfo& i) { return {i.rows, i.cols, i.contraction, i.pass, i.fp8}; }

double product_alone_ms(Backend& backend, Stream& stream, const OpInfo& info, const EngineOptions& options) {
  // The stored shapes of a and b (op_args.h, GemmPass).
  const bool wgrad = info.pass == GemmPass::wgrad;
  const Shape a_shape = wgrad ? Shape{info.contraction, info.rows} : Shape{info.rows, info.contraction};
  const Shape b_shape = info.pass == GemmPass::fprop ? Shape{info.cols, info.contraction} : Shape{info.contraction, info.cols};
  const DType dtype = info.fp8 ? DType::e4m3 : options.dtype;
  const RandomMatrix a(backend, stream, dtype, a_shape), b(backend, stream, dtype, b_shape);
  const RandomMatrix out(backend, stream, wgrad ? options.grad_dtype : options.dtype, Shape{info.rows, info.cols});
  const RandomMatrix scale(backend, stream, DType::f32, Shape{4});
  const auto operand = [&](const RandomMatrix& m, Shape shape) {
    if (!info.fp8) return QTensor::high_precision(m.tensor());
    QTensor q;
    q.scaling = Scaling::tensor;
    q.format = dtype;
    q.shape = shape;
    q.rowwise = m.tensor();
    q.columnwise = Tensor(m.tensor().data, dtype, Shape{shape[1], shape[0]});
    q.scale = Tensor(scale.tensor().data, DType::f32, Shape{1});
    q.rowwise_scale_inv = q.columnwise_scale_inv = q.scale;
    return q;
  };
  GemmArgs args;
  args.pass = info.pass;
  args.a = operand(a, a_shape);
  args.b = operand(b, b_shape);
  args.out = out.tensor();
  if (info.fp8 && info.pass == GemmPass::fprop) args.accumulation = Accumulation::fast;
  return planned_least_ms(backend, stream, [&](Ops& ops) { ops.gemm(args); });
}

struct AttentionTimes {
  double forward_ms = 0, backward_ms = 0;
};

// Attention over the documents of one batch, alone.
AttentionTimes attention_alone(Backend& backend, Stream& stream, const ModelConfig& config, const HostBatch& host, const BatchLimits& limits,
                               DType dtype) {
  DeviceBatch device(limits, backend);
  const Batch batch = device.upload(host, stream);
  const std::int64_t tokens = batch.capacity();
  const RandomMatrix qkv(backend, stream, dtype, Shape{tokens, config.qkv_size()}), out(backend, stream, dtype, Shape{tokens, config.q_size()});
  const RandomMatrix d_out(backend, stream, dtype, Shape{tokens, config.q_size()}), d_qkv(backend, stream, dtype, Shape{tokens, config.qkv_size()});
  const RandomMatrix lse(backend, stream, DType::f32, Shape{config.num_attention_heads, tokens});
  const AttentionShape shape = attention_shape(config, batch.max_doc_tokens, batch.equal_doc_tokens);
  const AttentionArgs forward{shape, qkv.tensor(), batch.cu_seqlens, batch.num_tokens(), out.tensor(), lse.tensor()};
  const AttentionBackwardArgs backward{shape, d_out.tensor(), qkv.tensor(), out.tensor(), lse.tensor(), batch.cu_seqlens, batch.num_tokens(), d_qkv.tensor()};
  AttentionTimes times;
  times.forward_ms = planned_least_ms(backend, stream, [&](Ops& ops) { ops.attention(forward); });
  times.backward_ms = planned_least_ms(backend, stream, [&](Ops& ops) { ops.attention_backward(backward); });
  return times;
}

double copy_rate(Backend& backend, Stream& stream) {
  const std::int64_t elements = backend.capabilities().asynchronous ? std::int64_t{1} << 30 : std::int64_t{1} << 24;
  Arena none;
  const std::unique_ptr<Ops> ops = backend.create_ops(stream, none);
  const Buffer from = backend.allocate(static_cast<std::size_t>(elements) * 2, "copy"), to = backend.allocate(static_cast<std::size_t>(elements) * 2, "copy");
  const Tensor x = from.tensor(DType::bf16, Shape{elements / 4096, 4096}), y = to.tensor(DType::bf16, Shape{elements / 4096, 4096});
  const double ms = AloneClock(backend, stream).least_ms(5, [&] { ops->copy(x, y); });
  return 4.0 * static_cast<double>(elements) / (ms / 1e3);
}

}  // namespace

std::string_view name(WorkKind kind) {
  static constexpr std::string_view kNames[] = {"products of the layers", "attention", "elementwise", "head and loss", "optimizer", "idle"};
  return kNames[static_cast<std::size_t>(kind)];
}

double least_bytes(const OpInfo& info, const EngineOptions& o) {
  const double n = static_cast<double>(info.rows) * static_cast<double>(info.cols), a = static_cast<double>(size_bytes(o.dtype));
  const double quantized = o.recipe == RecipeKind::none ? a : 2.0;  // both layouts
  const double grad = static_cast<double>(size_bytes(o.grad_dtype));
  const double state = o.optimizer.state == OptimState::fp32 ? 4 : o.optimizer.state == OptimState::bf16 ? 2 : 1;
  const double remainder = o.optimizer.weight_update == WeightUpdate::exact && o.dtype == DType::bf16 ? 2 : 0;
  const std::map<std::string_view, double> bytes = {
      {"zero", n * a}, {"copy", 2 * n * a}, {"embedding", 2 * n * a}, {"embedding_backward", n * (a + 2 * grad)},
      {"rmsnorm", 2 * n * a}, {"rmsnorm_quantize", n * (a + quantized)}, {"rmsnorm_backward", 4 * n * a},
      {"rope", 2 * n * a}, {"swiglu", 1.5 * n * a}, {"swiglu_quantize", n * (a + 0.5 * quantized)},
      {"swiglu_backward", 2.5 * n * a}, {"quantize", n * (a + quantized)}, {"bias_backward", n * a},
      {"swiglu_backward_quantize", n * (1.5 * a + quantized)}, {"rope_quantize", n * (a + quantized)},
      {"cross_entropy", 2 * n * a}, {"cross_entropy_quantize", n * (2 * a + 2)},
      {"accumulate_sum_of_squares", n * grad}, {"adamw", n * (2 * a + grad + 4 * state + 2 * remainder)},
      {"quantize_weight", n * (a + 2.0)},
  };
  const auto found = bytes.find(info.name);
  return found == bytes.end() ? 0.0 : found->second;
}

BenchmarkResult run_benchmark(Backend& backend, const BenchmarkOptions& options) {
  BenchmarkResult r;
  const double begin = now_ms();
  const TokenStore rows = random_rows(options);
  const BatchLoader loader(rows, loader_options(options));
  EngineOptions engine_options = options.engine;
  engine_options.train_limits = BatchLimits::of(loader);
  engine_options.flags = {"batch_size", "accumulation", "seq", "", ""};
  r.padding_share = loader.padding_share();
  std::vector<HostBatch> last_batches;
  {
    Engine engine(backend, options.model, engine_options);
    engine.load_random(kSeed);
    BenchmarkSteps steps(engine, loader);
    steps.run(1);
    r.start_seconds = (now_ms() - begin) / 1e3;
    steps.run(kBenchmarkWarmUp - 1);
    steps.warm_other_capacities();
    r.memory = engine.memory();

    std::int64_t tokens = 0;
    engine.ledger().clear();
    const double elapsed = 1e3 * steps.run(options.steps, [&](const StepResult& result) {
      tokens += result.num_tokens;
      r.loss = result.loss;
    });
    r.step_ms = elapsed / static_cast<double>(options.steps);
    r.tokens_a_step = static_cast<double>(tokens) / static_cast<double>(options.steps);
    r.tokens_per_second = static_cast<double>(tokens) / (elapsed / 1e3);
    r.fp8_share = engine.ledger().fp8_share();
    if (options.metrics != nullptr) r.costs = measure_run_costs(engine, steps, options.steps, *options.metrics, options.checkpoint_folder);

    OpClock clock(backend, engine.stream());
    engine.ops().set_observer(&clock);
    last_batches = steps.batches_of(steps.steps_done());
    steps.run(1);
    engine.ops().set_observer(nullptr);
    r.ops = clock.collect();
  }
  r.clocked_step_ms = r.ops.back().start_ms + r.ops.back().duration_ms;
  const std::unique_ptr<Stream> stream = backend.create_stream();
  r.copy_bytes_per_second = copy_rate(backend, *stream);
  const AttentionTimes attention = attention_alone(backend, *stream, options.model, last_batches.front(), engine_options.train_limits,
                                                   engine_options.dtype);
  std::map<ProductKey, ProductRate> products;
  double busy = 0;
  for (const TimedOp& op : r.ops) {
    const WorkKind kind = kind_of(op.info, options.model.vocab_size);
    const auto k = static_cast<std::size_t>(kind);
    r.split_ms[k] += op.duration_ms;
    busy += op.duration_ms;
    if (op.info.contraction > 0) {
      ProductRate& p = products[key_of(op.info)];
      p.info = op.info;
      ++p.calls;
      p.in_step_ms += op.duration_ms;
    } else {
      const double bytes = least_bytes(op.info, engine_options);
      if (kind == WorkKind::attention) {
        r.budget_ms[k] += op.info.name == std::string_view("attention") ? attention.forward_ms : attention.backward_ms;
      } else {
        r.budget_ms[k] += bytes / r.copy_bytes_per_second * 1e3;
      }
    }
  }
  r.split_ms[static_cast<std::size_t>(WorkKind::idle)] = r.clocked_step_ms - busy;
  for (auto& [key, p] : products) {
    p.in_step_ms /= static_cast<double>(p.calls);
    p.alone_ms = product_alone_ms(backend, *stream, p.info, engine_options);
    r.budget_ms[static_cast<std::size_t>(kind_of(p.info, options.model.vocab_size))] += static_cast<double>(p.calls) * p.alone_ms;
    r.products.push_back(p);
  }
  std::sort(r.products.begin(), r.products.end(), [](const ProductRate& a, const ProductRate& b) {
    return static_cast<double>(a.calls) * a.in_step_ms > static_cast<double>(b.calls) * b.in_step_ms;
  });
  return r;
}

}  // namespace llmfp8
