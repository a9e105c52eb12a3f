// The table of operation cases: every operation of Ops, forward and backward, against naive fp64 references. It takes any
// Backend, so that each backend runs the very same table.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace llmfp8::testing {

struct OpCase {
  std::string name;  // "rmsnorm/bf16/69": operation, dtype, count
  std::function<void(Backend&)> run;
};

inline void PrintTo(const OpCase& op_case, std::ostream* out) { *out << op_case.name; }

std::vector<OpCase> op_cases();

// Parts of the table, by family.
void add_dense_cases(std::vector<OpCase>& cases);      // memory, embedding, rmsnorm, rope, swiglu, bias, sums
void add_attention_cases(std::vector<OpCase>& cases);  // attention, decode, cache_fill
void add_loss_cases(std::vector<OpCase>& cases);       // gather, scatter, cross_entropy, sample, step scalars
void add_gemm_cases(std::vector<OpCase>& cases);       // all passes and formats
void add_quantize_cases(std::vector<OpCase>& cases);   // casts, scales, fused operations

}  // namespace llmfp8::testing
