// Owners of CUDA and cuBLASLt objects: made in the constructor, destroyed with the owner.
#pragma once

#include <cstdint>
#include <utility>

#include "backend/backend.h"
#include "backend/cuda/check.h"

namespace llmfp8::cuda {

// Destruction cannot report; an error that matters is sticky and shows at the next checked call.
template <typename T, auto kDestroy>
class Handle {
 public:
  Handle() = default;
  explicit Handle(T raw) : raw_(raw) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept : raw_(std::exchange(other.raw_, T{})) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      reset();
      raw_ = std::exchange(other.raw_, T{});
    }
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  T get() const { return raw_; }

 private:
  void reset() {
    if (raw_ != T{}) static_cast<void>(kDestroy(raw_));
    raw_ = T{};
  }
  T raw_{};
};

using StreamHandle = Handle<cudaStream_t, cudaStreamDestroy>;
using EventHandle = Handle<cudaEvent_t, cudaEventDestroy>;
using GraphHandle = Handle<cudaGraph_t, cudaGraphDestroy>;
using GraphExecHandle = Handle<cudaGraphExec_t, cudaGraphExecDestroy>;
using DeviceMemory = Handle<void*, cudaFree>;
using LtHandle = Handle<cublasLtHandle_t, cublasLtDestroy>;
using MatmulDescHandle = Handle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using MatrixLayoutHandle = Handle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using MatmulPreferenceHandle = Handle<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

inline StreamHandle make_stream() {
  cudaStream_t raw = nullptr;
  // Non-blocking: work on the default stream (zero-filling of allocations) must not serialise the streams of a step.
  LLMFP8_CUDA_CHECK(cudaStreamCreateWithFlags(&raw, cudaStreamNonBlocking));
  return StreamHandle(raw);
}

inline EventHandle make_event(EventKind kind) {
  cudaEvent_t raw = nullptr;
  LLMFP8_CUDA_CHECK(
      cudaEventCreateWithFlags(&raw, kind == EventKind::timed ? cudaEventDefault : cudaEventDisableTiming));
  return EventHandle(raw);
}

inline LtHandle make_lt() {
  cublasLtHandle_t raw = nullptr;
  LLMFP8_CUDA_CHECK(cublasLtCreate(&raw));
  return LtHandle(raw);
}

inline MatmulDescHandle make_matmul_desc() {
  cublasLtMatmulDesc_t raw = nullptr;
  // Compute type fp32: with fp32 operands these are full fp32 products, without TF32.
  LLMFP8_CUDA_CHECK(cublasLtMatmulDescCreate(&raw, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  return MatmulDescHandle(raw);
}

template <typename T>
void set(const MatmulDescHandle& desc, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  LLMFP8_CUDA_CHECK(cublasLtMatmulDescSetAttribute(desc.get(), attribute, &value, sizeof value));
}

// Column-major [rows, cols] with ld elements from one column to the next.
inline MatrixLayoutHandle make_layout(cudaDataType_t type, std::int64_t rows, std::int64_t cols, std::int64_t ld) {
  cublasLtMatrixLayout_t raw = nullptr;
  LLMFP8_CUDA_CHECK(
      cublasLtMatrixLayoutCreate(&raw, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols), ld));
  return MatrixLayoutHandle(raw);
}

inline MatmulPreferenceHandle make_preference() {
  cublasLtMatmulPreference_t raw = nullptr;
  LLMFP8_CUDA_CHECK(cublasLtMatmulPreferenceCreate(&raw));
  return MatmulPreferenceHandle(raw);
}

template <typename T>
void set(const MatmulPreferenceHandle& preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  LLMFP8_CUDA_CHECK(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value));
}

}  // namespace llmfp8::cuda
