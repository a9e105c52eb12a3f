// The backend-independent half of Ops: shape checks, scratch, and the default bodies of fused operations.
#include "backend/ops.h"

#include <algorithm>
#include <exception>

#include "core/error.h"

namespace llmfp8 {
namespace {

bool is_activation(const Tensor& t) { return t.dtype == DType::f32 || t.dtype == DType::bf16; }

void check_matrix(const char* op, const char* what, const Tensor& t, std::int64_t rows, std::int64_t cols) {
  CHECK(t.defined() && t.rows() == rows && t.cols() == cols, "{}: {} is {}, wanted [{}, {}]", op, what, to_string(t.shape), rows,
        cols);
}

void check_activation(const char* op, const char* what, const Tensor& t, std::int64_t rows, std::int64_t cols) {
  check_matrix(op, what, t, rows, cols);
  CHECK(is_activation(t), "{}: {} is {}, wanted f32 or bf16", op, what, name(t.dtype));
}

void check_vector(const char* op, const char* what, const Tensor& t, DType dtype, std::int64_t n) {
  CHECK(t.defined() && t.numel() == n && t.dtype == dtype && t.contiguous(), "{}: {} is {} {}, wanted {} of {}", op, what,
        name(t.dtype), to_string(t.shape), name(dtype), n);
}

void check_same(const char* op, const Tensor& a, const Tensor& b) {
  CHECK(a.rows() == b.rows() && a.cols() == b.cols() && a.dtype == b.dtype, "{}: {} {} and {} {} differ", op, name(a.dtype),
        to_string(a.shape), name(b.dtype), to_string(b.shape));
}

void check_count(const char* op, const Tensor& count) { check_vector(op, "count", count, DType::i32, 1); }

void check_destination(const char* op, const GradDestination& d, std::int64_t n) {
  CHECK(d.tensor.defined() && d.tensor.numel() == n && is_activation(d.tensor) && d.tensor.contiguous(),
        "{}: gradient is {} {}, wanted {} elements of f32 or bf16", op, name(d.tensor.dtype), to_string(d.tensor.shape), n);
}

void check_quantized(const char* op, const QTensor& q, std::int64_t rows, std::int64_t cols) {
  CHECK(q.shape.rank() == 2 && q.shape[0] == rows && q.shape[1] == cols, "{}: quantised matrix is {}, wanted [{}, {}]", op,
        to_string(q.shape), rows, cols);
  if (!q.quantized()) {
    check_activation(op, "matrix", q.rowwise, rows, cols);
    return;
  }
  CHECK(is_fp8(q.format), "{}: format {}, wanted e4m3 or e5m2", op, name(q.format));
  CHECK(q.scaling == Scaling::tensor || q.scaling == Scaling::mx_1x32, "{}: scaling {} is not built yet", op,
        static_cast<int>(q.scaling));
  CHECK(q.rowwise.defined() || q.columnwise.defined(), "{}: neither rowwise nor columnwise data", op);
  CHECK(!q.just_in_time || q.scaling == Scaling::tensor, "{}: just-in-time scaling of blocks", op);
  if (q.scaling == Scaling::tensor) {
    CHECK(q.scale.defined() && (q.rowwise_scale_inv.defined() || q.columnwise_scale_inv.defined()), "{}: no scale", op);
  }
  if (q.scaling == Scaling::mx_1x32) {
    CHECK(rows % 32 == 0 && cols % 32 == 0, "{}: MXFP8 wants multiples of 32, found [{}, {}]", op, rows, cols);
    const bool tiled = q.mx_scale_layout == MxScaleLayout::tiles_128x4;
    if (q.rowwise.defined()) {
      const Shape scales = mx_scale_shape(rows, cols / 32, q.mx_scale_layout);
      check_matrix(op, "rowwise scales", q.rowwise_scale_inv, scales[0], scales[1]);
    }
    if (q.columnwise.defined()) {
      check_matrix(op, "columnwise", q.columnwise, rows, cols);
      const Shape scales = tiled ? mx_scale_shape(cols, rows / 32, q.mx_scale_layout) : Shape{rows / 32, cols};
      check_matrix(op, "columnwise scales", q.columnwise_scale_inv, scales[0], scales[1]);
    }
  } else if (q.columnwise.defined()) {
    check_matrix(op, "columnwise", q.columnwise, cols, rows);
  }
  if (q.rowwise.defined()) check_matrix(op, "rowwise", q.rowwise, rows, cols);
}

std::int64_t qkv_width(const AttentionShape& s) { return (s.num_heads + 2 * s.num_kv_heads) * s.head_dim; }

void check_attention(const char* op, const AttentionShape& s) {
  CHECK(s.num_kv_heads > 0 && s.num_heads % s.num_kv_heads == 0 && s.head_dim > 0 && s.head_dim % 2 == 0,
        "{}: {} heads, {} kv heads, head_dim {}", op, s.num_heads, s.num_kv_heads, s.head_dim);
}

void check_cross_entropy(const CrossEntropyArgs& args) {
  const std::int64_t rows = args.labels.numel();
  check_activation("cross_entropy", "logits", args.logits, rows, args.logits.cols());
  check_vector("cross_entropy", "labels", args.labels, DType::i32, rows);
  check_vector("cross_entropy", "token_loss", args.token_loss, DType::f32, rows);
  check_count("cross_entropy", args.count);
}

OpInfo info_of(std::string_view op, const Tensor& t) { return {op, t.rows(), t.cols()}; }

OpOutput all(const Tensor& t) { return {&t}; }
OpOutput rows(const Tensor& t, const Tensor& count, std::int64_t row_offset = 0) { return {&t, nullptr, &count, row_offset}; }
OpOutput rows(const QTensor& q, const Tensor& count, std::int64_t row_offset = 0) { return {nullptr, &q, &count, row_offset}; }

}  // namespace

// Tells an observer of the operation that runs in its scope. The outputs' tensors outlive it.
class Observed {
 public:
  Observed(const Ops::Observation& observation, OpInfo info, const OpOutput& first = {}, const OpOutput& second = {})
      : observer_(observation.observer), outputs_{first, second} {
    if (observer_ == nullptr) return;
    info.scope = observation.scope;
    observer_->begin(info);
  }
  // What an observer does may fail as the operation itself may: the device can be lost at any call.
  ~Observed() noexcept(false) {
    if (observer_ == nullptr || std::uncaught_exceptions() > exceptions_) return;
    observer_->end();
    for (const OpOutput& output : outputs_) {
      if (output.tensor != nullptr || output.matrix != nullptr) observer_->written(output);
    }
  }
  Observed(const Observed&) = delete;
  Observed& operator=(const Observed&) = delete;

 private:
  OpObserver* observer_;
  OpOutput outputs_[2];
  int exceptions_ = std::uncaught_exceptions();
};

void Ops::zero(const Tensor& out) {
  CHECK(out.defined() && out.contiguous(), "zero: wanted a contiguous tensor, found {}", to_string(out.shape));
  const Observed observed(observed_, info_of("zero", out));
  do_zero(out);
}

void Ops::copy(const Tensor& from, const Tensor& to) {
  CHECK(from.rows() == to.rows() && from.cols() == to.cols(), "copy: {} to {}", to_string(from.shape), to_string(to.shape));
  CHECK(from.dtype == to.dtype || (is_activation(from) && is_activation(to)), "copy: {} to {}", name(from.dtype), name(to.dtype));
  const Observed observed(observed_, info_of("copy", to), all(to));
  do_copy(from, to);
}

void Ops::embedding(const EmbeddingArgs& args) {
  check_vector("embedding", "tokens", args.tokens, DType::i32, args.out.rows());
  check_activation("embedding", "table", args.table, args.table.rows(), args.out.cols());
  CHECK(args.table.dtype == args.out.dtype, "embedding: table {}, out {}", name(args.table.dtype), name(args.out.dtype));
  check_count("embedding", args.num_tokens);
  const Observed observed(observed_, info_of("embedding", args.out), rows(args.out, args.num_tokens));
  do_embedding(args);
}

void Ops::embedding_backward(const EmbeddingBackwardArgs& args) {
  check_activation("embedding_backward", "d_out", args.d_out, args.tokens.numel(), args.d_out.cols());
  check_count("embedding_backward", args.num_tokens);
  check_destination("embedding_backward", args.d_table, args.d_table.tensor.numel());
  CHECK(args.d_table.tensor.cols() == args.d_out.cols(), "embedding_backward: d_table {}", to_string(args.d_table.tensor.shape));
  const ArenaTensor scratch =
      arena_.take("embedding_backward scratch", DType::u8, Shape{static_cast<std::int64_t>(scratch_bytes(args))});
  const Observed observed(observed_, info_of("embedding_backward", args.d_out), all(args.d_table.tensor));
  do_embedding_backward(args, scratch.get().data);
}

void Ops::rmsnorm(const RmsnormArgs& args) {
  check_activation("rmsnorm", "x", args.x, args.x.rows(), args.weight.numel());
  check_vector("rmsnorm", "weight", args.weight, args.x.dtype, args.x.cols());
  check_same("rmsnorm", args.x, args.y);
  check_vector("rmsnorm", "rstd", args.rstd, DType::f32, args.x.rows());
  check_count("rmsnorm", args.num_rows);
  const Observed observed(observed_, info_of("rmsnorm", args.x), rows(args.y, args.num_rows));
  do_rmsnorm(args);
}

void Ops::rmsnorm_backward(const RmsnormBackwardArgs& args) {
  check_activation("rmsnorm_backward", "x", args.x, args.x.rows(), args.weight.numel());
  check_same("rmsnorm_backward", args.dy, args.x);
  check_same("rmsnorm_backward", args.dx, args.x);
  if (args.d_residual.defined()) check_same("rmsnorm_backward", args.d_residual, args.x);
  check_vector("rmsnorm_backward", "rstd", args.rstd, DType::f32, args.x.rows());
  check_count("rmsnorm_backward", args.num_rows);
  check_destination("rmsnorm_backward", args.d_weight, args.weight.numel());
  const ArenaTensor scratch =
      arena_.take("rmsnorm_backward scratch", DType::u8, Shape{static_cast<std::int64_t>(scratch_bytes(args))});
  const Observed observed(observed_, info_of("rmsnorm_backward", args.x), rows(args.dx, args.num_rows), all(args.d_weight.tensor));
  do_rmsnorm_backward(args, scratch.get().data);
}

void Ops::rope(const RopeArgs& args) {
  const AttentionShape shape{args.num_heads, args.num_kv_heads, args.head_dim, 0, 1.0f};
  check_attention("rope", shape);
  check_activation("rope", "qkv", args.qkv, args.positions.numel(), qkv_width(shape));
  check_matrix("rope", "cos_sin", args.cos_sin, args.cos_sin.rows(), args.head_dim);
  check_count("rope", args.num_tokens);
  const Observed observed(observed_, info_of("rope", args.qkv), rows(args.qkv, args.num_tokens));
  do_rope(args);
}

void Ops::swiglu(const SwigluArgs& args) {
  check_activation("swiglu", "gate_up", args.gate_up, args.y.rows(), 2 * args.y.cols());
  CHECK(args.gate_up.dtype == args.y.dtype, "swiglu: gate_up {}, y {}", name(args.gate_up.dtype), name(args.y.dtype));
  check_count("swiglu", args.num_rows);
  const Observed observed(observed_, info_of("swiglu", args.gate_up), rows(args.y, args.num_rows));
  do_swiglu(args);
}

void Ops::swiglu_backward(const SwigluBackwardArgs& args) {
  check_activation("swiglu_backward", "gate_up", args.gate_up, args.dy.rows(), 2 * args.dy.cols());
  check_same("swiglu_backward", args.gate_up, args.d_gate_up);
  check_count("swiglu_backward", args.num_rows);
  const Observed observed(observed_, info_of("swiglu_backward", args.gate_up), rows(args.d_gate_up, args.num_rows));
  do_swiglu_backward(args);
}

void Ops::attention(const AttentionArgs& args) {
  check_attention("attention", args.shape);
  check_activation("attention", "qkv", args.qkv, args.out.rows(), qkv_width(args.shape));
  check_activation("attention", "out", args.out, args.qkv.rows(), args.shape.num_heads * args.shape.head_dim);
  check_matrix("attention", "lse", args.lse, args.shape.num_heads, args.qkv.rows());
  check_count("attention", args.num_tokens);
  const ArenaTensor scratch = arena_.take("attention scratch", DType::u8, Shape{static_cast<std::int64_t>(scratch_bytes(args))});
  const Observed observed(observed_, info_of("attention", args.qkv), rows(args.out, args.num_tokens));
  do_attention(args, scratch.get().data);
}

void Ops::attention_backward(const AttentionBackwardArgs& args) {
  check_attention("attention_backward", args.shape);
  check_activation("attention_backward", "qkv", args.qkv, args.out.rows(), qkv_width(args.shape));
  check_same("attention_backward", args.qkv, args.d_qkv);
  check_same("attention_backward", args.out, args.d_out);
  check_matrix("attention_backward", "lse", args.lse, args.shape.num_heads, args.qkv.rows());
  check_count("attention_backward", args.num_tokens);
  const ArenaTensor scratch =
      arena_.take("attention_backward scratch", DType::u8, Shape{static_cast<std::int64_t>(scratch_bytes(args))});
  const Observed observed(observed_, info_of("attention_backward", args.qkv), rows(args.d_qkv, args.num_tokens));
  do_attention_backward(args, scratch.get().data);
}

void Ops::attention_decode(const AttentionDecodeArgs& args) {
  check_attention("attention_decode", args.shape);
  const std::int64_t batch = args.positions.numel();
  check_activation("attention_decode", "qkv", args.qkv, batch, qkv_width(args.shape));
  check_activation("attention_decode", "out", args.out, batch, args.shape.num_heads * args.shape.head_dim);
  check_vector("attention_decode", "slots", args.slots, DType::i32, batch);
  check_same("attention_decode", args.k_cache, args.v_cache);
  const Observed observed(observed_, info_of("attention_decode", args.qkv), all(args.out));
  do_attention_decode(args);
}

void Ops::cache_fill(const CacheFillArgs& args) {
  check_attention("cache_fill", args.shape);
  check_activation("cache_fill", "qkv", args.qkv, args.qkv.rows(), qkv_width(args.shape));
  check_vector("cache_fill", "slots", args.slots, DType::i32, args.cu_seqlens.numel() - 1);
  check_same("cache_fill", args.k_cache, args.v_cache);
  const Observed observed(observed_, info_of("cache_fill", args.qkv));
  do_cache_fill(args);
}

void Ops::gemm(const GemmArgs& args) {
  check_quantized("gemm", args.a, args.a.shape[0], args.a.shape[1]);
  check_quantized("gemm", args.b, args.b.shape[0], args.b.shape[1]);
  const Shape &a = args.a.shape, &b = args.b.shape;
  std::int64_t rows = 0, cols = 0, left = 0, right = 0;  // out [rows, cols]; contraction lengths of a and b
  switch (args.pass) {
    case GemmPass::fprop: rows = a[0], cols = b[0], left = a[1], right = b[1]; break;
    case GemmPass::dgrad: rows = a[0], cols = b[1], left = a[1], right = b[0]; break;
    case GemmPass::wgrad: rows = a[1], cols = b[1], left = a[0], right = b[0]; break;
  }
  CHECK(left == right, "gemm: contraction of {} and {}", to_string(a), to_string(b));
  CHECK(args.a.quantized() == args.b.quantized() && (args.a.quantized() || args.a.format == args.b.format),
        "gemm: operands {} and {}", name(args.a.format), name(args.b.format));
  check_activation("gemm", "out", args.out, rows, cols);
  if (args.addend.defined()) check_same("gemm", args.addend, args.out);
  if (args.bias.defined()) {
    CHECK(args.pass == GemmPass::fprop, "gemm: a bias belongs to fprop");
    check_vector("gemm", "bias", args.bias, args.bias.dtype, cols);
  }
  if (args.num_rows.defined()) check_count("gemm", args.num_rows);
  std::size_t bytes = scratch_bytes(args);
  if (args.pass == GemmPass::wgrad) {
    // A step's first micro-batch overwrites a gradient, the others add to it: one plan serves them all.
    GemmArgs accumulating = args;
    accumulating.addend = args.out;
    bytes = std::max(bytes, scratch_bytes(accumulating));
  }
  const ArenaTensor scratch = arena_.take("gemm scratch", DType::u8, Shape{static_cast<std::int64_t>(bytes)});
  const bool by_rows = args.pass != GemmPass::wgrad && args.num_rows.defined();
  const Observed observed(observed_, {"gemm", rows, cols, left, args.pass, args.a.quantized()},
                          {&args.out, nullptr, by_rows ? &args.num_rows : nullptr, args.row_offset});
  do_gemm(args, scratch.get().data);
}

void Ops::bias_backward(const BiasBackwardArgs& args) {
  check_activation("bias_backward", "dy", args.dy, args.dy.rows(), args.d_bias.tensor.numel());
  check_destination("bias_backward", args.d_bias, args.dy.cols());
  check_count("bias_backward", args.num_rows);
  const Observed observed(observed_, info_of("bias_backward", args.dy), all(args.d_bias.tensor));
  do_bias_backward(args);
}

void Ops::gather_rows(const GatherRowsArgs& args) {
  CHECK(args.x.dtype == args.out.dtype && args.x.cols() * args.x.rows() > 0, "gather_rows: x {} {}", name(args.x.dtype),
        to_string(args.x.shape));
  CHECK(args.x.shape.rank() == 1 || args.x.cols() == args.out.cols(), "gather_rows: {} to {}", to_string(args.x.shape),
        to_string(args.out.shape));
  check_count("gather_rows", args.count);
  const Observed observed(observed_, info_of("gather_rows", args.out), rows(args.out, args.count, args.row_offset));
  do_gather_rows(args);
}

void Ops::scatter_rows(const ScatterRowsArgs& args) {
  CHECK(args.x.dtype == args.out.dtype && args.x.cols() == args.out.cols(), "scatter_rows: {} to {}", to_string(args.x.shape),
        to_string(args.out.shape));
  check_count("scatter_rows", args.count);
  const Observed observed(observed_, info_of("scatter_rows", args.x));
  do_scatter_rows(args);
}

void Ops::cross_entropy(const CrossEntropyArgs& args) {
  check_cross_entropy(args);
  const Observed observed(observed_, info_of("cross_entropy", args.logits), rows(args.logits, args.count, args.row_offset),
                          rows(args.token_loss, args.count, args.row_offset));
  do_cross_entropy(args);
}

void Ops::accumulate_loss(const Tensor& token_loss, const Tensor& count, std::int64_t row_offset, StepScalars* scalars) {
  check_vector("accumulate_loss", "token_loss", token_loss, DType::f32, token_loss.numel());
  check_count("accumulate_loss", count);
  const Observed observed(observed_, info_of("accumulate_loss", token_loss));
  do_accumulate_loss(token_loss, count, row_offset, scalars);
}

void Ops::sample(const SampleArgs& args) {
  check_activation("sample", "logits", args.logits, args.out.numel(), args.logits.cols());
  check_vector("sample", "out", args.out, DType::i32, args.logits.rows());
  const Observed observed(observed_, info_of("sample", args.logits));
  do_sample(args);
}

void Ops::amax(const Tensor& x, const Tensor& num_rows, const Tensor& amax) {
  check_activation("amax", "x", x, x.rows(), x.cols());
  check_count("amax", num_rows);
  check_vector("amax", "amax", amax, DType::f32, 1);
  const Observed observed(observed_, info_of("amax", x));
  do_amax(x, num_rows, amax);
}

void Ops::quantize(const Tensor& x, const Tensor& num_rows, const QTensor& out) {
  check_activation("quantize", "x", x, x.rows(), x.cols());
  check_quantized("quantize", out, x.rows(), x.cols());
  check_count("quantize", num_rows);
  const Observed observed(observed_, info_of("quantize", x), rows(out, num_rows));
  do_quantize(x, num_rows, out);
}

void Ops::update_scales(const ScaleUpdateArgs& args) {
  const std::int64_t n = args.amax.numel();
  check_vector("update_scales", "amax", args.amax, DType::f32, n);
  check_matrix("update_scales", "history", args.history, n, args.history.cols());
  check_matrix("update_scales", "scale", args.scale, n, 4);
  check_matrix("update_scales", "scale_inv", args.scale_inv, n, 4);
  check_vector("update_scales", "format_max", args.format_max, DType::f32, n);
  const Observed observed(observed_, info_of("update_scales", args.history));
  do_update_scales(args);
}

void Ops::rmsnorm_quantize(const RmsnormQuantizeArgs& args) {
  check_quantized("rmsnorm_quantize", args.out, args.x.rows(), args.x.cols());
  if (fuses(FusedOp::rmsnorm_quantize, args.out)) {
    const Observed observed(observed_, info_of("rmsnorm_quantize", args.x), rows(args.out, args.num_rows));
    do_rmsnorm_quantize(args);
  } else if (!args.out.quantized()) {
    rmsnorm({args.x, args.weight, args.num_rows, args.eps, args.out.rowwise, args.rstd});
  } else {
    const ArenaTensor y = arena_.take("rmsnorm output", args.x.dtype, args.x.shape);
    rmsnorm({args.x, args.weight, args.num_rows, args.eps, y, args.rstd});
    quantize(y, args.num_rows, args.out);
  }
}

void Ops::swiglu_quantize(const SwigluQuantizeArgs& args) {
  check_quantized("swiglu_quantize", args.out, args.gate_up.rows(), args.gate_up.cols() / 2);
  if (fuses(FusedOp::swiglu_quantize, args.out)) {
    const Observed observed(observed_, info_of("swiglu_quantize", args.gate_up), rows(args.out, args.num_rows));
    do_swiglu_quantize(args);
  } else if (!args.out.quantized()) {
    swiglu({args.gate_up, args.num_rows, args.out.rowwise});
  } else {
    const ArenaTensor y = arena_.take("swiglu output", args.gate_up.dtype, args.out.shape);
    swiglu({args.gate_up, args.num_rows, y});
    quantize(y, args.num_rows, args.out);
  }
}

void Ops::swiglu_backward_quantize(const SwigluBackwardQuantizeArgs& args) {
  check_activation("swiglu_backward_quantize", "gate_up", args.gate_up, args.dy.rows(), 2 * args.dy.cols());
  check_quantized("swiglu_backward_quantize", args.out, args.gate_up.rows(), args.gate_up.cols());
  check_count("swiglu_backward_quantize", args.num_rows);
  if (!args.out.quantized()) {
    swiglu_backward({args.dy, args.gate_up, args.num_rows, args.out.rowwise});
  } else if (fuses(FusedOp::swiglu_backward_quantize, args.out)) {
    const Observed observed(observed_, info_of("swiglu_backward_quantize", args.gate_up), rows(args.out, args.num_rows));
    do_swiglu_backward_quantize(args);
  } else {
    swiglu_backward({args.dy, args.gate_up, args.num_rows, args.gate_up});
    quantize(args.gate_up, args.num_rows, args.out);
  }
}

void Ops::rope_quantize(const RopeQuantizeArgs& args) {
  check_quantized("rope_quantize", args.out, args.rope.qkv.rows(), args.rope.qkv.cols());
  CHECK(args.out.quantized(), "rope_quantize: out is not quantised");
  if (fuses(FusedOp::rope_quantize, args.out)) {
    const Observed observed(observed_, info_of("rope_quantize", args.rope.qkv), rows(args.out, args.rope.num_tokens));
    do_rope_quantize(args);
  } else {
    rope(args.rope);
    quantize(args.rope.qkv, args.rope.num_tokens, args.out);
  }
}

void Ops::cross_entropy_quantize(const CrossEntropyQuantizeArgs& args) {
  const CrossEntropyArgs& loss = args.loss;
  check_quantized("cross_entropy_quantize", args.out, loss.logits.rows(), loss.logits.cols());
  CHECK(loss.with_gradient, "cross_entropy_quantize: without a gradient");
  if (!args.out.quantized()) {
    cross_entropy(loss);
  } else if (fuses(FusedOp::cross_entropy_quantize, args.out)) {
    check_cross_entropy(loss);
    const ArenaTensor scratch =
        arena_.take("cross_entropy_quantize scratch", DType::u8, Shape{static_cast<std::int64_t>(scratch_bytes(args))});
    const Observed observed(observed_, info_of("cross_entropy_quantize", loss.logits), rows(args.out, loss.count, loss.row_offset),
                            rows(loss.token_loss, loss.count, loss.row_offset));
    do_cross_entropy_quantize(args, scratch.get().data);
  } else {
    cross_entropy(loss);
    // In a chunk with an offset the count covers all its rows; those beyond the last one that exists are zero already.
    quantize(loss.logits, loss.count, args.out);
  }
}

void Ops::do_rmsnorm_quantize(const RmsnormQuantizeArgs&) { fail("rmsnorm_quantize: said to be fused, but is not"); }
void Ops::do_swiglu_quantize(const SwigluQuantizeArgs&) { fail("swiglu_quantize: said to be fused, but is not"); }
void Ops::do_swiglu_backward_quantize(const SwigluBackwardQuantizeArgs&) {
  fail("swiglu_backward_quantize: said to be fused, but is not");
}
void Ops::do_rope_quantize(const RopeQuantizeArgs&) { fail("rope_quantize: said to be fused, but is not"); }
void Ops::do_cross_entropy_quantize(const CrossEntropyQuantizeArgs&, void*) {
  fail("cross_entropy_quantize: said to be fused, but is not");
}

void Ops::accumulate_sum_of_squares(const Tensor& grad, StepScalars* scalars) {
  CHECK(is_activation(grad) && grad.contiguous(), "accumulate_sum_of_squares: {} {}", name(grad.dtype), to_string(grad.shape));
  const Observed observed(observed_, info_of("accumulate_sum_of_squares", grad));
  do_accumulate_sum_of_squares(grad, scalars);
}

void Ops::finish_gradient(StepScalars* scalars) {
  const Observed observed(observed_, {"finish_gradient"});
  do_finish_gradient(scalars);
}

void Ops::adamw(const AdamwArgs& args) {
  const std::int64_t n = args.param.numel();
  CHECK(is_activation(args.param) && is_activation(args.grad) && args.grad.numel() == n && args.m.numel() == n && args.v.numel() == n,
        "adamw: parameter {}, gradient {}, m {}, v {}", n, args.grad.numel(), args.m.numel(), args.v.numel());
  CHECK(args.m.dtype == args.v.dtype && (is_activation(args.m) || args.m.dtype == DType::u8), "adamw: state {} and {}",
        name(args.m.dtype), name(args.v.dtype));
  if (args.remainder.defined()) {
    check_vector("adamw", "remainder", args.remainder, DType::u16, n);
    CHECK(args.param.dtype == DType::bf16, "adamw: a remainder belongs to a bf16 parameter, found {}", name(args.param.dtype));
  }
  if (args.m.dtype == DType::u8) {
    check_vector("adamw", "m_scale", args.m_scale, DType::f32, (n + 255) / 256);
    check_vector("adamw", "v_scale", args.v_scale, DType::f32, (n + 255) / 256);
  }
  const Observed observed(observed_, info_of("adamw", args.param), all(args.param));
  do_adamw(args);
}

void Ops::quantize_weight(const Tensor& weight, const QTensor& out, const StepScalars* scalars) {
  check_activation("quantize_weight", "weight", weight, weight.rows(), weight.cols());
  check_quantized("quantize_weight", out, weight.rows(), weight.cols());
  const Observed observed(observed_, info_of("quantize_weight", weight), {nullptr, &out});
  do_quantize_weight(weight, out, scalars);
}

}  // namespace llmfp8
