// bench_ops: rates of single operations at the model's shapes: matrix products of every pass and format beside the matrix
// engine's raw rate, attention, the bandwidth-bound kernels, AdamW, the tokenizer. Run by tools/bench.sh.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "bench_flags.h"
#include "cli/run_main.h"
#include "core/bf16.h"
#include "core/step_scalars.h"
#include "core/thread_pool.h"
#include "fp8/quantizer.h"
#include "hub/checkpoint_source.h"
#include "measure.h"
#include "report/text_table.h"
#include "text/tokenizer.h"

namespace llmfp8::bench {
namespace {

// Tensors of a benchmark: filled with values in (-1, 1), freed together.
class Store {
 public:
  explicit Store(Backend& backend) : backend_(backend) {}

  Tensor make(DType dtype, Shape shape) {
    buffers_.push_back(backend_.allocate(static_cast<std::size_t>(shape.numel()) * size_bytes(dtype), "benchmark"));
    return Tensor(buffers_.back().data(), dtype, shape);
  }
  Tensor values(DType dtype, Shape shape) {
    const Tensor t = make(dtype, shape);
    std::uint32_t state = 1;
    for (std::int64_t i = 0; i < t.numel(); ++i) {
      state = state * 1664525u + 1013904223u;
      const float x = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f;
      if (dtype == DType::bf16) {
        t.as<bf16>()[i] = to_bf16(x);
      } else {
        t.as<float>()[i] = x;
      }
    }
    return t;
  }
  Tensor count(std::int64_t n) {
    const Tensor t = make(DType::i32, Shape{1});
    *t.as<std::int32_t>() = static_cast<std::int32_t>(n);
    return t;
  }

 private:
  Backend& backend_;
  std::vector<Buffer> buffers_;
};

struct Bench {
  Backend& backend;
  const ModelConfig& config;
  std::int64_t tokens;
  Json rows = Json::array();

  // amount: flops, bytes or elements of one call, in units of `unit` per second.
  void add(const std::string& what, const std::string& variant, double seconds, double amount,
           const std::string& unit) {
    rows.push_back({{"what", what},
                    {"variant", variant},
                    {"threads", num_threads()},
                    {"seconds", seconds},
                    {"rate", amount / seconds / 1e9},
                    {"unit", unit}});
  }
};

const char* pass_name(GemmPass pass) {
  return pass == GemmPass::fprop ? "fprop" : pass == GemmPass::dgrad ? "dgrad" : "wgrad";
}

// One product's three passes in one recipe's formats. n x k: the weight.
void products(Bench& bench, Product product, std::int64_t n, std::int64_t k, RecipeKind kind) {
  Store store(bench.backend);
  const std::unique_ptr<Stream> stream = bench.backend.create_stream();
  const Fp8State state(Recipe(kind), 1, bench.backend, *stream);
  const std::int64_t t = bench.tokens;
  const Tensor x = store.values(DType::bf16, Shape{t, k}), w = store.values(DType::bf16, Shape{n, k});
  const Tensor dy = store.values(DType::bf16, Shape{t, n}), all = store.count(t), rows = store.count(n);
  Arena none;
  const std::unique_ptr<Ops> ops = bench.backend.create_ops(*stream, none);
  const auto operand = [&](const Tensor& value, const Tensor& live, Role role) {
    if (kind == RecipeKind::none) return QTensor::high_precision(value);
    const Quantizer quantizer = state.quantizer({0, product}, role);
    const QTensor q =
        quantizer.create(Shape{value.rows(), value.cols()}, value.dtype, ops->usages(quantizer.spec().scaling()),
                         [&](std::string_view, DType dtype, Shape shape) { return store.make(dtype, shape); });
    ops->quantize(value, live, q);
    return q;
  };
  const QTensor qx = operand(x, all, Role::input), qw = operand(w, rows, Role::weight),
                qdy = operand(dy, all, Role::gradient);
  const Tensor y = store.make(DType::bf16, Shape{t, n}), dx = store.make(DType::bf16, Shape{t, k});
  const Tensor dw = store.make(DType::f32, Shape{n, k});
  for (const GemmPass pass : {GemmPass::fprop, GemmPass::dgrad, GemmPass::wgrad}) {
    GemmArgs args;
    args.pass = pass;
    args.a = pass == GemmPass::fprop ? qx : qdy;
    args.b = pass == GemmPass::wgrad ? qx : qw;
    args.out = pass == GemmPass::fprop ? y : pass == GemmPass::dgrad ? dx : dw;
    args.num_rows = all;
    const std::string what = fmt::format("{} {}, {}x{}", name(product), pass_name(pass), n, k);
    const double flops = 2.0 * static_cast<double>(t) * static_cast<double>(n) * static_cast<double>(k);
    bench.add(what, kind == RecipeKind::none ? "bf16" : std::string(Recipe(kind).name()),
              op_seconds(bench.backend, [&](Ops& o) { o.gemm(args); }), flops, "GFLOP/s");
    if (kind != RecipeKind::none) continue;
    const ProductShape raw{pass,
                           args.out.rows(),
                           args.out.cols(),
                           pass == GemmPass::wgrad ? t : pass == GemmPass::fprop ? k : n,
                           args.out.dtype,
                           false};
    bench.add(what, "raw engine", raw_product_seconds(raw), flops, "GFLOP/s");
  }
}

void all_products(Bench& bench) {
  const ModelConfig& c = bench.config;
  const std::int64_t heads = (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim;
  for (const RecipeKind kind : {RecipeKind::none, RecipeKind::standard, RecipeKind::mxfp8, RecipeKind::current}) {
    products(bench, Product::qkv, heads, c.hidden_size, kind);
    products(bench, Product::o, c.hidden_size, c.num_attention_heads * c.head_dim, kind);
    products(bench, Product::gate_up, 2 * c.intermediate_size, c.hidden_size, kind);
    products(bench, Product::down, c.hidden_size, c.intermediate_size, kind);
  }
  products(bench, Product::lm_head, c.vocab_size, c.hidden_size, RecipeKind::none);
}

void attention(Bench& bench, std::int64_t doc_tokens) {
  const ModelConfig& c = bench.config;
  Store store(bench.backend);
  const std::int64_t t = bench.tokens / doc_tokens * doc_tokens, docs = t / doc_tokens;
  const std::int64_t width = (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim;
  const AttentionShape shape{c.num_attention_heads, c.num_key_value_heads, c.head_dim, doc_tokens, 0.125f};
  const Tensor bounds = store.make(DType::i32, Shape{docs + 1});
  for (std::int64_t d = 0; d <= docs; ++d) bounds.as<std::int32_t>()[d] = static_cast<std::int32_t>(d * doc_tokens);
  const Tensor qkv = store.values(DType::bf16, Shape{t, width}), all = store.count(t);
  const Tensor out = store.make(DType::bf16, Shape{t, c.num_attention_heads * c.head_dim});
  const Tensor lse = store.make(DType::f32, Shape{c.num_attention_heads, t});
  const Tensor d_out = store.values(DType::bf16, Shape{t, c.num_attention_heads * c.head_dim});
  const Tensor d_qkv = store.make(DType::bf16, Shape{t, width});
  // Two products forward and five backward, over the causal half.
  const double pairs =
      0.5 * static_cast<double>(doc_tokens) * static_cast<double>(doc_tokens + 1) * static_cast<double>(docs);
  const double flops = 2.0 * pairs * static_cast<double>(c.num_attention_heads * c.head_dim);
  const std::string variant = fmt::format("documents of {}", doc_tokens);
  bench.add("attention", variant,
            op_seconds(bench.backend,
                       [&](Ops& o) {
                         o.attention({shape, qkv, bounds, all, out, lse});
                       }),
            2 * flops, "GFLOP/s");
  bench.add("attention backward", variant,
            op_seconds(bench.backend,
                       [&](Ops& o) {
                         o.attention_backward({shape, d_out, qkv, out, lse, bounds, all, d_qkv});
                       }),
            5 * flops, "GFLOP/s");
}

// Kernels whose least time is that of reading their inputs and writing their outputs once.
void streaming(Bench& bench) {
  const ModelConfig& c = bench.config;
  Store store(bench.backend);
  const std::int64_t t = bench.tokens, h = c.hidden_size, f = c.intermediate_size;
  const Tensor all = store.count(t), weight = store.values(DType::bf16, Shape{h}),
               rstd = store.make(DType::f32, Shape{t});
  const Tensor x = store.values(DType::bf16, Shape{t, h}), y = store.make(DType::bf16, Shape{t, h});
  const Tensor dy = store.values(DType::bf16, Shape{t, h}), d_weight = store.make(DType::f32, Shape{h});
  const auto bytes = [](std::initializer_list<Tensor> tensors) {
    double total = 0;
    for (const Tensor& tensor : tensors) total += static_cast<double>(tensor.bytes());
    return total;
  };
  const auto add = [&](const std::string& what, double moved, const std::function<void(Ops&)>& body) {
    bench.add(what, "bf16", op_seconds(bench.backend, body), moved, "GB/s");
  };
  add("rmsnorm", bytes({x, y}), [&](Ops& o) { o.rmsnorm({x, weight, all, 1e-5, y, rstd}); });
  add("rmsnorm backward", bytes({x, dy, y}), [&](Ops& o) {
    o.rmsnorm_backward({dy, x, weight, rstd, all, Tensor(), y, {d_weight, false}});
  });
  const Tensor gate_up = store.values(DType::bf16, Shape{t, 2 * f}),
               d_gate_up = store.make(DType::bf16, Shape{t, 2 * f});
  const Tensor act = store.make(DType::bf16, Shape{t, f}), d_act = store.values(DType::bf16, Shape{t, f});
  add("swiglu", bytes({gate_up, act}), [&](Ops& o) { o.swiglu({gate_up, all, act}); });
  add("swiglu backward", bytes({gate_up, d_act, d_gate_up}), [&](Ops& o) {
    o.swiglu_backward({d_act, gate_up, all, d_gate_up});
  });
  const std::int64_t chunk = std::min<std::int64_t>(t, 512);
  const Tensor logits = store.values(DType::bf16, Shape{chunk, c.vocab_size}),
               loss = store.make(DType::f32, Shape{chunk});
  const Tensor labels = store.make(DType::i32, Shape{chunk});
  add("cross-entropy", 2 * bytes({logits}), [&](Ops& o) { o.cross_entropy({logits, labels, all, 0, true, loss}); });
  const std::unique_ptr<Stream> stream = bench.backend.create_stream();
  Arena none;
  const std::unique_ptr<Ops> ops = bench.backend.create_ops(*stream, none);
  for (const RecipeKind kind : {RecipeKind::standard, RecipeKind::current, RecipeKind::mxfp8}) {
    const Fp8State state(Recipe(kind), 1, bench.backend, *stream);
    for (const Role role : {Role::input, Role::gradient}) {
      const Quantizer quantizer = state.quantizer({0, Product::qkv}, role);
      const QTensor q =
          quantizer.create(Shape{t, 2 * f}, DType::bf16, ops->usages(quantizer.spec().scaling()),
                           [&](std::string_view, DType dtype, Shape shape) { return store.make(dtype, shape); });
      bench.add("quantise", fmt::format("{}, {}", Recipe(kind).name(), name(quantizer.spec().format)),
                op_seconds(bench.backend, [&](Ops& o) { o.quantize(gate_up, all, q); }), bytes({gate_up, q.rowwise}),
                "GB/s");
    }
  }
}

void adamw(Bench& bench) {
  Store store(bench.backend);
  constexpr std::int64_t kElements = std::int64_t{16} << 20;
  const Shape shape{kElements}, scales{kElements / 256};
  StepScalars scalars;
  scalars.learning_rate = 1e-5f;
  scalars.grad_scale = 1.0f;
  scalars.step_ok = 1;
  for (const DType state : {DType::f32, DType::bf16, DType::u8}) {
    AdamwArgs args;
    args.param = store.values(DType::bf16, shape);
    args.remainder = store.make(DType::u16, shape);
    args.grad = store.values(DType::f32, shape);
    args.m = store.make(state, shape);
    args.v = store.make(state, shape);
    if (state == DType::u8) {
      args.m_scale = store.make(DType::f32, scales);
      args.v_scale = store.make(DType::f32, scales);
    }
    args.beta1 = 0.9;
    args.beta2 = 0.999;
    args.eps = 1e-8;
    args.scalars = &scalars;
    bench.add("AdamW", fmt::format("state {}", state == DType::u8 ? "8bit" : std::string(name(state))),
              op_seconds(bench.backend, [&](Ops& o) { o.adamw(args); }), kElements, "G elements/s");
  }
}

void tokenizer(Bench& bench, const WeightSource& source) {
  const std::map<std::string, std::string> files = source.companion_files();
  if (!files.contains("tokenizer.json")) return;
  const auto config = files.find("tokenizer_config.json");
  const Tokenizer tokenizer =
      Tokenizer::from_json(files.at("tokenizer.json"), config != files.end() ? config->second : "{}", source.origin());
  std::string text;
  for (int i = 0; text.size() < (1u << 20); ++i) {
    text += fmt::format(
        "Question {}: Maria buys {} boxes of apples at ${}.50 each. How much does she pay?\nSolution: She pays "
        "{} * {}.50 dollars, so the final answer is \\boxed{{{}}}.\n",
        i, i % 17 + 2, i % 9, i % 17 + 2, i % 9, i * 7 % 1000);
  }
  bench.add("tokenizer, encode", "one thread", best_seconds([&] { tokenizer.encode(text); }),
            static_cast<double>(text.size()), "GB/s");
}

Json measure(const CommonFlags& flags, std::int64_t tokens, int threads) {
  set_num_threads(threads);
  const std::unique_ptr<WeightSource> source = open_model(flags.model);
  const std::unique_ptr<Backend> backend = create_cpu_backend();
  Bench bench{*backend, source->config(), tokens};
  all_products(bench);
  for (const std::int64_t doc : {128, 1024}) {
    if (doc <= tokens) attention(bench, doc);
  }
  streaming(bench);
  adamw(bench);
  if (threads == 1) tokenizer(bench, *source);
  return {{"matmul", backend->capabilities().matmul}, {"rows", bench.rows}};
}

std::string rate_text(const Json& row) {
  const double rate = row["rate"].get<double>();
  const std::string unit = row["unit"].get<std::string>();
  if (unit == "GB/s" && rate < 0.1) return fmt::format("{:.1f} MB/s", 1e3 * rate);
  if (unit == "G elements/s") return fmt::format("{:.2f} ns/element", 1 / rate);
  return fmt::format("{:.{}f} {}", rate, rate < 100 ? 1 : 0, unit);
}

int run(int argc, char** argv) {
  TypedFlags typed;
  std::int64_t tokens = 1152;
  FlagSet declared("bench_ops", "rates of single operations at the model's shapes", "[flags]", "");
  declare_common_flags(declared, typed);
  declared.whole("tokens", {128, 1 << 20}, &tokens, "tokens of a batch, a multiple of 128");
  if (!declared.parse(std::vector<std::string>(argv + 1, argv + argc))) return 0;
  finish_common_flags(typed);
  const CommonFlags& flags = typed.common;
  if (tokens % 128 != 0) fail_usage("--tokens {}: wanted a multiple of 128", tokens);

  Json document = machine();
  document["clock"] = flags.cpu_time ? "processor" : "wall";
  Json rows = Json::array();
  for (int threads : flags.threads) {
    const Json child = in_child([&] { return measure(flags, tokens, threads); });
    document["matmul"] = child["matmul"];
    for (const Json& row : child["rows"]) rows.push_back(row);
  }
  document["rows"] = rows;
  if (flags.json) {
    std::printf("%s\n", document.dump(2).c_str());
    return 0;
  }
  std::printf("%s, load average %.1f at the start and %.1f at the end; %s; %ld tokens%s\n\n",
              document["processor"].get<std::string>().c_str(), document["load_average"].get<double>(), load_average(),
              document["matmul"].get<std::string>().c_str(), static_cast<long>(tokens),
              flags.cpu_time ? "; processor time instead of wall time" : "");
  TextTable table({{"operation", Align::left},
                   {"variant", Align::left},
                   {"cores", Align::right},
                   {"ms", Align::right},
                   {"rate", Align::right}});
  for (const Json& row : rows) {
    table.add_row({row["what"].get<std::string>(), row["variant"].get<std::string>(),
                   std::to_string(row["threads"].get<int>()), fmt::format("{:.3f}", 1e3 * row["seconds"].get<double>()),
                   rate_text(row)});
  }
  std::fputs(table.text(style_of_stdout()).c_str(), stdout);
  return 0;
}

}  // namespace
}  // namespace llmfp8::bench

int main(int argc, char** argv) {
  return llmfp8::run_main([&] { return llmfp8::bench::run(argc, argv); });
}
