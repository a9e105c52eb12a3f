#include "model/linear.h"

namespace llmfp8 {
namespace {

void record(const PassContext& pass, Site site, const GemmArgs& gemm, const RowCount& rows) {
  if (pass.ledger == nullptr) return;
  const Shape& b = gemm.b.shape;
  const double in_out = gemm.pass == GemmPass::wgrad ? static_cast<double>(gemm.out.numel()) : static_cast<double>(b.numel());
  pass.ledger->record(site, gemm.pass, gemm.a, gemm.b, 2.0 * static_cast<double>(rows.host_rows) * in_out);
}

// The module as Hugging Face names it; q, k and v are one product here, as are gate and up.
OpScope scope_of(Site site) {
  switch (site.product) {
    case Product::qkv: return {"self_attn.qkv_proj", site.layer};
    case Product::o: return {"self_attn.o_proj", site.layer};
    case Product::gate_up: return {"mlp.gate_up_proj", site.layer};
    case Product::down: return {"mlp.down_proj", site.layer};
    case Product::lm_head: break;
  }
  return {"lm_head"};
}

void run(const PassContext& pass, Site site, GemmArgs gemm, const RowCount& rows) {
  gemm.num_rows = rows.count;
  gemm.row_offset = rows.row_offset;
  if (pass.fp8 != nullptr) gemm.accumulation = pass.fp8->recipe().accumulation(site, gemm.pass);
  record(pass, site, gemm, rows);
  const Scope scope(pass.ops, scope_of(site));
  pass.ops.gemm(gemm);
}

}  // namespace

RowCount token_rows(const PassContext& pass) { return {pass.num_tokens(), 0, pass.batch.host_counts.num_tokens}; }

void linear_forward(const PassContext& pass, const LinearForward& args, const RowCount& rows) {
  GemmArgs gemm;
  gemm.pass = GemmPass::fprop;
  gemm.a = args.input;
  gemm.b = args.weight;
  gemm.bias = args.bias;
  gemm.addend = args.addend;
  gemm.out = args.out;
  run(pass, args.site, gemm, rows);
}

OutputGradient::OutputGradient(const PassContext& pass, Site site, const Tensor& plain)
    : gradient_(QTensor::high_precision(plain)) {
  const Quantizer quantizer = pass.quantizer(site, Role::gradient);
  if (!quantizer.quantizes()) return;
  gradient_ = quantizer.create(gradient_.shape, plain.dtype, pass.ops.usages(quantizer.spec().scaling()),
                               [&](std::string_view what, DType dtype, Shape shape) {
                                 storage_.push_back(pass.ops.arena().take(what, dtype, shape));
                                 return storage_.back().get();
                               });
}

OutputGradient quantize_gradient(const PassContext& pass, Site site, const Tensor& plain, const RowCount& rows) {
  OutputGradient gradient(pass, site, plain);
  // In a chunk with an offset the count covers all its rows; those beyond the last one that exists are zero already.
  if (gradient.quantized()) {
    const Scope scope(pass.ops, scope_of(site));
    pass.ops.quantize(plain, rows.count, gradient.get());
  }
  return gradient;
}

void linear_backward(const PassContext& pass, const LinearBackward& args, const RowCount& rows) {
  GemmArgs dgrad;
  dgrad.pass = GemmPass::dgrad;
  dgrad.a = args.d_out;
  dgrad.b = args.weight;
  dgrad.out = args.d_input;
  run(pass, args.site, dgrad, rows);

  GemmArgs wgrad;
  wgrad.pass = GemmPass::wgrad;
  wgrad.a = args.d_out;
  wgrad.b = args.input;
  wgrad.out = args.d_weight.tensor;
  if (args.d_weight.accumulate) wgrad.addend = args.d_weight.tensor;
  run(pass, args.site, wgrad, rows);
}

}  // namespace llmfp8
