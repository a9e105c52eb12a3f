// What cuBLASLt does not do for a product: exact epilogues, tails, FP8 shapes that are not multiples of 16. Called by
// gemm.cpp.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "core/qtensor.h"

namespace llmfp8::cuda {

// The rows of out that are live: below *num_rows - row_offset; all where num_rows is null.
struct LiveRows {
  const std::int32_t* num_rows = nullptr;  // device
  std::int64_t row_offset = 0;
};

// out = product (+ bias) (+ addend), rounded once; rows beyond the live ones are the addend, or zero.
// product: f32 [rows, cols] contiguous; bias: f32 | bf16 [cols] or undefined; addend: like out, or undefined, or out itself
// out: f32 | bf16 [rows, cols]
void finish_product(const float* product, const Tensor& bias, const Tensor& addend, const Tensor& out, LiveRows live,
                    cudaStream_t stream);

// Rows of out beyond the live ones become zero. out: f32 | bf16 [rows, cols]
void zero_tail(const Tensor& out, LiveRows live, cudaStream_t stream);

// An FP8 product of any shape, summed in fp32 on the plain cores: slow. For what cuBLASLt's rules of alignment forbid.
struct PlainFp8Product {
  Tensor rows;  // e4m3 | e5m2 codes [out.rows(), k]
  Tensor cols;  // e4m3 | e5m2 codes [out.cols(), k]
  DType rows_format = DType::e4m3, cols_format = DType::e4m3;
  const float* rows_scale_inv = nullptr;  // device
  const float* cols_scale_inv = nullptr;
  Tensor bias;    // f32 | bf16 [out.cols()] or undefined
  Tensor addend;  // like out, or undefined, or out itself
  Tensor out;     // out f32 | bf16
  LiveRows live;
};
void plain_fp8_product(const PlainFp8Product& product, cudaStream_t stream);

// An MXFP8 matrix as bf16: every code times its scale, which bf16 holds exactly from 2^-126 on. A scale of NaN gives NaN.
// q: its scales lie plain; form: q.rowwise | q.columnwise; image: bf16 of form's shape, contiguous, 16-byte aligned
void mx_image(const QTensor& q, const Tensor& form, const Tensor& image, cudaStream_t stream);

// Whether this build holds machine code for the current device: cudaSuccess, or why not.
cudaError_t kernels_fit_device();

}  // namespace llmfp8::cuda
