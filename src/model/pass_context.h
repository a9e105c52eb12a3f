// What one forward and backward pass over a batch runs with.
#pragma once

#include "core/batch.h"
#include "fp8/quantizer.h"
#include "model/activation_store.h"
#include "model/gemm_ledger.h"
#include "params/grad_target.h"
#include "params/param_store.h"

namespace llmfp8 {

struct PassContext {
  Ops& ops;
  const Batch& batch;
  ParamStore& params;
  ActivationStore& activations;
  const Fp8State* fp8 = nullptr;                 // null: nothing is quantised
  Numerics numerics = Numerics::high_precision;
  GemmLedger* ledger = nullptr;
  std::size_t logits_bytes = std::size_t{64} << 20;  // of the head, at once

  std::int64_t tokens() const { return batch.capacity(); }   // T
  Tensor num_tokens() const { return batch.num_tokens(); }
  DType dtype() const { return params.dtype(); }             // A

  Quantizer quantizer(Site site, Role role) const {
    if (fp8 == nullptr || numerics == Numerics::high_precision) return Quantizer(QuantSpec(), nullptr, 0, false);
    return fp8->quantizer(site, role);
  }
};

}  // namespace llmfp8
