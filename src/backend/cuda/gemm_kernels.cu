#include "backend/cuda/gemm_kernels.h"

#include <algorithm>

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "backend/cuda/check.h"
#include "core/float8.h"

namespace llmfp8::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxBlocks = 2048;
constexpr int kTile = 16;

__device__ void store(float* to, float x) { *to = x; }
__device__ void store(__nv_bfloat16* to, float x) { *to = __float2bfloat16_rn(x); }

__device__ std::int64_t count_live(LiveRows live, std::int64_t rows) {
  if (live.num_rows == nullptr) return rows;
  const std::int64_t n = static_cast<std::int64_t>(*live.num_rows) - live.row_offset;
  return n < 0 ? 0 : (n < rows ? n : rows);
}

// A matrix of float or bfloat16, or a vector of either; null: absent.
struct Values {
  const void* data = nullptr;
  std::int64_t stride = 0;
  bool wide = false;  // f32

  __device__ float at(std::int64_t row, std::int64_t col) const {
    const std::int64_t i = row * stride + col;
    return wide ? static_cast<const float*>(data)[i] : __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
  }
};

Values values_of(const Tensor& t) {
  if (!t.defined()) return {};
  return {t.data, t.row_stride, t.dtype == DType::f32};
}

// sum: the scaled product of one element. Bias, then addend, as on the CPU.
__device__ float epilogue(float sum, const Values& bias, const Values& addend, std::int64_t row, std::int64_t col,
                          bool live) {
  float x = live ? sum : 0.0f;
  if (live && bias.data != nullptr) x += bias.at(0, col);
  if (addend.data != nullptr) x = live ? x + addend.at(row, col) : addend.at(row, col);
  return x;
}

// product: f32 [rows, cols]; out: Out [rows, cols], row stride out_stride
template <typename Out>
__global__ void finish_kernel(const float* product, Values bias, Values addend, Out* out, std::int64_t out_stride,
                              std::int64_t rows, std::int64_t cols, LiveRows live_rows) {
  const std::int64_t live = count_live(live_rows, rows);
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * cols; i += step) {
    const std::int64_t row = i / cols, col = i % cols;
    store(out + row * out_stride + col, epilogue(product[i], bias, addend, row, col, row < live));
  }
}

// out: Out [rows, cols], row stride out_stride
template <typename Out>
__global__ void zero_tail_kernel(Out* out, std::int64_t out_stride, std::int64_t rows, std::int64_t cols,
                                 LiveRows live_rows) {
  const std::int64_t first = count_live(live_rows, rows) * cols;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = first + static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * cols;
       i += step) {
    store(out + i / cols * out_stride + i % cols, 0.0f);
  }
}

struct Codes {
  const __nv_fp8_storage_t* data = nullptr;
  std::int64_t stride = 0, rows = 0;
  __nv_fp8_interpretation_t format = __NV_E4M3;

  __device__ float at(std::int64_t row, std::int64_t i, std::int64_t k) const {
    if (row >= rows || i >= k) return 0.0f;
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(data[row * stride + i], format)));
  }
};

// a: codes [m, k]; b: codes [n, k]; out: Out [m, n]. One thread an element; the sum runs upwards along k.
template <typename Out>
__global__ void plain_fp8_kernel(Codes a, Codes b, std::int64_t k, const float* a_scale_inv, const float* b_scale_inv,
                                 Values bias, Values addend, Out* out, std::int64_t out_stride, LiveRows live_rows) {
  __shared__ float a_tile[kTile][kTile + 1], b_tile[kTile][kTile + 1];
  const int x = threadIdx.x, y = threadIdx.y;
  const std::int64_t col_tile = static_cast<std::int64_t>(blockIdx.x) * kTile, col = col_tile + x;
  const float scale = *a_scale_inv * *b_scale_inv;
  const std::int64_t live = count_live(live_rows, a.rows);
  for (std::int64_t row_tile = static_cast<std::int64_t>(blockIdx.y) * kTile; row_tile < a.rows;
       row_tile += static_cast<std::int64_t>(gridDim.y) * kTile) {
    float sum = 0.0f;
    for (std::int64_t i = 0; i < k; i += kTile) {
      a_tile[y][x] = a.at(row_tile + y, i + x, k);
      b_tile[y][x] = b.at(col_tile + y, i + x, k);
      __syncthreads();
      for (int j = 0; j < kTile; ++j) sum = fmaf(a_tile[y][j], b_tile[x][j], sum);
      __syncthreads();
    }
    const std::int64_t row = row_tile + y;
    if (row < a.rows && col < b.rows) {
      store(out + row * out_stride + col, epilogue(sum * scale, bias, addend, row, col, row < live));
    }
  }
}

unsigned blocks_for(std::int64_t elements) {
  return static_cast<unsigned>(std::clamp<std::int64_t>((elements + kThreads - 1) / kThreads, 1, kMaxBlocks));
}

constexpr int kMxBlock = 32;  // elements under one scale

// codes: [rows, cols], row stride `stride`; scales: e8m0 [rows, cols / 32] (Rowwise) or [rows / 32, cols], row stride
// scale_stride; image: bf16 [rows, cols]. A thread takes 8 codes beside each other and strides over the grid; cols is a
// multiple of 32.
template <DType Format, bool Rowwise>
__global__ void mx_image_kernel(const std::uint8_t* codes, std::int64_t stride, const std::uint8_t* scales,
                                std::int64_t scale_stride, __nv_bfloat16* image, std::int64_t rows, std::int64_t cols) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x, patches = cols / 8;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * patches; i += step) {
    const std::int64_t row = i / patches, col = i % patches * 8;
    const std::uint8_t* scale = Rowwise ? scales + row * scale_stride + col / kMxBlock : scales + row / kMxBlock * scale_stride + col;
    const std::uint8_t* code = codes + row * stride + col;
    __align__(16) __nv_bfloat16 out[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      out[j] = __float2bfloat16_rn(decode_fp8(code[j], Format) * decode_e8m0(scale[Rowwise ? 0 : j]));
    }
    *reinterpret_cast<uint4*>(image + i * 8) = *reinterpret_cast<const uint4*>(out);
  }
}

template <DType Format>
void launch_mx_image(const QTensor& q, const Tensor& form, const Tensor& image, cudaStream_t stream) {
  const bool rowwise = form.data == q.rowwise.data;
  const Tensor& scales = rowwise ? q.rowwise_scale_inv : q.columnwise_scale_inv;
  const auto run = rowwise ? mx_image_kernel<Format, true> : mx_image_kernel<Format, false>;
  run<<<blocks_for(image.numel() / 8), kThreads, 0, stream>>>(form.as<const std::uint8_t>(), form.row_stride,
                                                              scales.as<const std::uint8_t>(), scales.row_stride,
                                                              image.as<__nv_bfloat16>(), image.rows(), image.cols());
}

template <typename F>
void with_output(const Tensor& out, F&& f) {
  CHECK(out.dtype == DType::f32 || out.dtype == DType::bf16, "gemm: out is {}, wanted f32 or bf16", name(out.dtype));
  if (out.dtype == DType::f32) {
    f(out.as<float>());
  } else {
    f(out.as<__nv_bfloat16>());
  }
}

Codes codes_of(const Tensor& t, DType format) {
  return {t.as<const __nv_fp8_storage_t>(), t.row_stride, t.rows(), format == DType::e5m2 ? __NV_E5M2 : __NV_E4M3};
}

}  // namespace

void finish_product(const float* product, const Tensor& bias, const Tensor& addend, const Tensor& out, LiveRows live,
                    cudaStream_t stream) {
  with_output(out, [&](auto* data) {
    finish_kernel<<<blocks_for(out.numel()), kThreads, 0, stream>>>(product, values_of(bias), values_of(addend), data,
                                                                    out.row_stride, out.rows(), out.cols(), live);
  });
  check_launch("finish_product");
}

void zero_tail(const Tensor& out, LiveRows live, cudaStream_t stream) {
  // Few rows as a rule: a small grid.
  const unsigned blocks = std::min(blocks_for(out.numel()), 128u);
  with_output(out, [&](auto* data) {
    zero_tail_kernel<<<blocks, kThreads, 0, stream>>>(data, out.row_stride, out.rows(), out.cols(), live);
  });
  check_launch("zero_tail");
}

void plain_fp8_product(const PlainFp8Product& p, cudaStream_t stream) {
  const std::int64_t rows = p.out.rows(), cols = p.out.cols();
  const dim3 grid(static_cast<unsigned>((cols + kTile - 1) / kTile),
                  static_cast<unsigned>(std::min<std::int64_t>((rows + kTile - 1) / kTile, 65535)));
  with_output(p.out, [&](auto* data) {
    plain_fp8_kernel<<<grid, dim3(kTile, kTile), 0, stream>>>(
        codes_of(p.rows, p.rows_format), codes_of(p.cols, p.cols_format), p.rows.cols(), p.rows_scale_inv,
        p.cols_scale_inv, values_of(p.bias), values_of(p.addend), data, p.out.row_stride, p.live);
  });
  check_launch("plain_fp8_product");
}

void mx_image(const QTensor& q, const Tensor& form, const Tensor& image, cudaStream_t stream) {
  CHECK(form.cols() % kMxBlock == 0, "MXFP8 matrix of {} columns, wanted a multiple of {}", form.cols(), kMxBlock);
  (q.format == DType::e4m3 ? launch_mx_image<DType::e4m3> : launch_mx_image<DType::e5m2>)(q, form, image, stream);
  check_launch("mx_image");
}

cudaError_t kernels_fit_device() {
  cudaFuncAttributes attributes{};
  const cudaError_t status = cudaFuncGetAttributes(&attributes, zero_tail_kernel<float>);
  if (status != cudaSuccess) cudaGetLastError();
  return status;
}

}  // namespace llmfp8::cuda
