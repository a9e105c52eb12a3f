#include "model/linear.h"

#include <vector>

namespace llmfp8 {
namespace {

void record(const PassContext& pass, Site site, const GemmArgs& gemm, const RowCount& rows) {
  if (pass.ledger == nullptr) return;
  const Shape& b = gemm.b.shape;
  const double in_out = gemm.pass == GemmPass::wgrad ? static_cast<double>(gemm.out.numel()) : static_cast<double>(b.numel());
  pass.ledger->record(site, gemm.pass, gemm.a, gemm.b, 2.0 * static_cast<double>(rows.host_rows) * in_out);
}

void run(const PassContext& pass, Site site, GemmArgs gemm, const RowCount& rows) {
  gemm.num_rows = rows.count;
  gemm.row_offset = rows.row_offset;
  if (pass.fp8 != nullptr) gemm.accumulation = pass.fp8->recipe().accumulation(site, gemm.pass);
  record(pass, site, gemm, rows);
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

void linear_backward(const PassContext& pass, const LinearBackward& args, const RowCount& rows) {
  std::vector<ArenaTensor> storage;
  QTensor d_out = QTensor::high_precision(args.d_out);
  const Quantizer quantizer = pass.quantizer(args.site, Role::gradient);
  if (quantizer.quantizes()) {
    d_out = quantizer.create(d_out.shape, d_out.format, pass.ops.usages(quantizer.spec().scaling()),
                             [&](std::string_view what, DType dtype, Shape shape) {
                               storage.push_back(pass.ops.arena().take(what, dtype, shape));
                               return storage.back().get();
                             });
    // In a chunk with an offset the count covers all its rows; those beyond the last one that exists are zero already.
    pass.ops.quantize(args.d_out, rows.count, d_out);
  }
  GemmArgs dgrad;
  dgrad.pass = GemmPass::dgrad;
  dgrad.a = d_out;
  dgrad.b = args.weight;
  dgrad.out = args.d_input;
  run(pass, args.site, dgrad, rows);

  GemmArgs wgrad;
  wgrad.pass = GemmPass::wgrad;
  wgrad.a = d_out;
  wgrad.b = args.input;
  wgrad.out = args.d_weight.tensor;
  if (args.d_weight.accumulate) wgrad.addend = args.d_weight.tensor;
  run(pass, args.site, wgrad, rows);
}

}  // namespace llmfp8
