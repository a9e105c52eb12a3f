// Casting to FP8: amax, per-tensor scales, MXFP8 blocks in both directions. Called by CudaOps.
//
// Numeric cases as on the CPU: zero tensor: scale 1, codes 0. Tiny amax: scale at most FLT_MAX. Infinity: the amax is
// infinite, the scale stays (delayed) or is 1 (just in time), the code saturates. NaN: ignored by the amax, its code is
// 0x7F. Codes, scales and amax do not depend on the order of blocks.
#include "backend/cuda/kernels/kernels.h"
#include "backend/cuda/kernels/quantize_tile.cuh"

namespace llmfp8::cuda {
namespace {

constexpr int kAmaxThreads = 256;
constexpr int kAmaxBlocks = 132 * 8;  // at most; one partial each
static_assert(kAmaxBlocks * sizeof(std::uint32_t) <= kWorkspaceBytes);

// Largest magnitude over the live rows. A thread takes N elements at a time and strides over the grid. Written to
// partials[block] where there are partials, else raised into `slot`.
template <typename A, int N>
__global__ void __launch_bounds__(kAmaxThreads)
    amax_kernel(Matrix<const A> x, const std::int32_t* num_rows, const StepScalars* scalars, float* slot,
                std::uint32_t* partials) {
  __shared__ std::uint32_t room[kWarp];
  if (scalars != nullptr && scalars->step_ok == 0) return;
  const std::int64_t per_row = x.cols / N, total = live_rows(num_rows, x.rows) * per_row;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  const bool flat = x.stride == x.cols;
  std::uint32_t best = 0;
#pragma unroll 4
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    const A* from = x.data + i * N;
    if (!flat) from = x.row(i / per_row) + i % per_row * N;
    float v[N];
    load<N>(from, v);
#pragma unroll
    for (int k = 0; k < N; ++k) best = max(best, amax_bits(v[k]));
  }
  best = block_max(best, room);
  if (threadIdx.x != 0) return;
  if (partials != nullptr) {
    partials[blockIdx.x] = best;
  } else {
    raise_amax(slot, best);
  }
}

// What just-in-time scaling sets from the amax of one tensor. slot: null, or combined with the amax (set: replaced by
// it).
struct ScaleOutputs {
  float* scale;
  float* rowwise_inv;
  float* columnwise_inv;
  float* slot;
  bool set_slot;
};

// One block: the maximum of the partials, then scale := current_scale(amax), IEEE division.
__global__ void set_scale_kernel(const std::uint32_t* partials, int count, float format_max, const StepScalars* scalars,
                                 ScaleOutputs out) {
  __shared__ std::uint32_t room[kWarp];
  if (scalars != nullptr && scalars->step_ok == 0) return;
  std::uint32_t best = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x))
    best = max(best, partials[i]);
  best = block_max(best, room);
  if (threadIdx.x != 0) return;
  const float amax = __uint_as_float(best), scale = current_scale(amax, format_max);
  *out.scale = scale;
  const float inverse = 1.0f / scale;
  if (out.rowwise_inv != nullptr) *out.rowwise_inv = inverse;
  if (out.columnwise_inv != nullptr) *out.columnwise_inv = inverse;
  if (out.slot != nullptr) *out.slot = out.set_slot ? amax : amax_combine(*out.slot, amax);
}

__global__ void clear_slot_kernel(float* slot, const StepScalars* scalars) {
  if (scalars == nullptr || scalars->step_ok != 0) *slot = 0.0f;
}

template <typename A>
int launch_amax(const Tensor& x, const std::int32_t* num_rows, const StepScalars* scalars, float* slot,
                std::uint32_t* partials, cudaStream_t stream) {
  const bool vector = vector_rows(x);
  const std::int64_t vectors = x.numel() / (vector ? kVector<A> : 1);
  const unsigned blocks = grid_for(ceil_div(vectors, kAmaxThreads), kAmaxBlocks);
  with_vector<A>(vector, [&](auto n) {
    amax_kernel<A, n()><<<blocks, kAmaxThreads, 0, stream>>>(matrix<const A>(x), num_rows, scalars, slot, partials);
  });
  check_launch("amax");
  return static_cast<int>(blocks);
}

// ---- MXFP8

constexpr int kMxBlock = 32;     // elements under one scale
constexpr int kMxColumns = 256;  // of a tile; its rows are 32
constexpr int kMxThreads = 256;

// The scales of one direction, of `outer` rows (row-wise) or columns (column-wise) with `blocks` scales each.
struct MxScales {
  std::uint8_t* data = nullptr;
  std::int64_t outer = 0, blocks = 0;
  std::int64_t outer_step = 0, block_step = 0;  // where they lie as they are
  bool tiled = false;                           // as MxScaleLayout::tiles_128x4

  __device__ void put(std::int64_t at, std::int64_t block, std::uint8_t code) const {
    data[tiled ? mx_tile_offset(at, block, blocks) : at * outer_step + block * block_step] = code;
  }
};

enum class Direction { rowwise, columnwise };

MxScales mx_scales(const QTensor& q, Direction direction) {
  const bool rowwise = direction == Direction::rowwise;
  const Tensor& t = rowwise ? q.rowwise_scale_inv : q.columnwise_scale_inv;
  const std::int64_t outer = q.shape[rowwise ? 0 : 1], blocks = q.shape[rowwise ? 1 : 0] / kMxBlock;
  if (!t.defined()) return {};
  return {t.as<std::uint8_t>(),       outer, blocks, rowwise ? t.row_stride : 1, rowwise ? 1 : t.row_stride,
          q.mx_scale_layout == MxScaleLayout::tiles_128x4};
}

// What pads the tiles becomes 0: a tensor core multiplies zeros by it, and 0xFF would stand for NaN. A thread takes one
// place and strides over the grid.
__global__ void mx_padding_kernel(MxScales scales) {
  const std::int64_t across = (scales.blocks + 3) / 4 * 4, total = (scales.outer + 127) / 128 * 128 * across;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    const std::int64_t at = i / across, block = i % across;
    if (at >= scales.outer || block >= scales.blocks) scales.put(at, block, 0);
  }
}

void clear_mx_padding(const MxScales& scales, cudaStream_t stream) {
  if (scales.data == nullptr || !scales.tiled || (scales.outer % 128 == 0 && scales.blocks % 4 == 0)) return;
  const std::int64_t tiles = ceil_div(scales.outer, 128) * ceil_div(scales.blocks, 4);  // of 512 places
  mx_padding_kernel<<<grid_for(2 * tiles), 256, 0, stream>>>(scales);
  check_launch("quantize (padding of MXFP8 scales)");
}

// v: the values at (row, col .. col + 7); zero at and beyond `live` rows and beyond the matrix.
template <typename Source>
__device__ inline void load_patch_row(const Source& source, std::int64_t live, std::int64_t row, std::int64_t col,
                                      float (&v)[8]) {
  if (Source::kVector) {
    if (row < live && col < source.cols) return source.values(source.fetch(source.at(row, col), 0), row, col, v);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = !Source::kVector && row < live && col + i < source.cols ? source.load1(row, col + i) : 0.0f;
}

// One E8M0 scale per 32 columns of a row and per 32 rows of a column. Block: a tile of 32 rows x 256 columns, a warp
// takes 4 rows, a thread 8 columns of each. The row-wise maximum is over 4 neighbouring lanes, the column-wise one over
// the warps through shared memory. Rows at and beyond the count are zero, so their codes and scale codes are 0. Rows
// and columns are multiples of 32, so that a thread's 8 columns and a tile's 32 rows are inside or outside as a whole.
template <DType Format, typename Source>
__global__ void __launch_bounds__(kMxThreads)
    mx_kernel(Source source, CodeOutputs out, MxScales rowwise_scale, MxScales columnwise_scale,
              const std::int32_t* num_rows, const StepScalars* scalars) {
  __shared__ std::uint32_t column_max[kMxThreads / kWarp][kMxColumns];
  __shared__ float column_multiplier[kMxColumns];
  __shared__ std::uint32_t room[kWarp];
  if (scalars != nullptr && scalars->step_ok == 0) return;
  constexpr float kMax = Format == DType::e4m3 ? kE4M3Max : kE5M2Max;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t live = live_rows(num_rows, source.rows);
  const std::int64_t row0 = static_cast<std::int64_t>(blockIdx.x) * kMxBlock, row = row0 + 4 * warp;
  const std::int64_t col0 = static_cast<std::int64_t>(blockIdx.y) * kMxColumns, col = col0 + 8 * lane;
  const bool inside = col < source.cols;
  float v[4][8];
#pragma unroll
  for (int r = 0; r < 4; ++r) load_patch_row(source, live, row + r, col, v[r]);
  std::uint32_t best = 0, of_column[8] = {};
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    std::uint32_t of_row = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t bits = amax_bits(v[r][i]);
      of_row = max(of_row, bits);
      of_column[i] = max(of_column[i], bits);
    }
    best = max(best, of_row);
    if (out.rowwise == nullptr) continue;
    of_row = max(of_row, __shfl_xor_sync(kAllLanes, of_row, 1));
    of_row = max(of_row, __shfl_xor_sync(kAllLanes, of_row, 2));
    const std::uint8_t code = mx_scale_code(__uint_as_float(of_row), kMax);
    const float m = mx_multiplier(code);
    if (!inside) continue;
    store_rowwise(out, row + r, col, source.cols, encode4<Format>(v[r][0] * m, v[r][1] * m, v[r][2] * m, v[r][3] * m),
                  encode4<Format>(v[r][4] * m, v[r][5] * m, v[r][6] * m, v[r][7] * m));
    if (lane % 4 == 0) rowwise_scale.put(row + r, col / kMxBlock, code);
  }
  if (out.columnwise != nullptr) {
#pragma unroll
    for (int i = 0; i < 8; ++i) column_max[warp][8 * lane + i] = of_column[i];
    __syncthreads();
    std::uint32_t of_all = 0;
    for (int w = 0; w < kMxThreads / kWarp; ++w) of_all = max(of_all, column_max[w][threadIdx.x]);
    const std::uint8_t code = mx_scale_code(__uint_as_float(of_all), kMax);
    column_multiplier[threadIdx.x] = mx_multiplier(code);
    if (col0 + threadIdx.x < source.cols) columnwise_scale.put(col0 + threadIdx.x, blockIdx.x, code);
    __syncthreads();
    CodeOutputs plain = out;  // not transposed
    plain.rowwise = out.columnwise, plain.rowwise_stride = out.columnwise_stride;
    plain.rowwise_vector = out.columnwise_vector;
    float m[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) m[i] = column_multiplier[8 * lane + i];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      if (!inside) continue;
      store_rowwise(plain, row + r, col, source.cols,
                    encode4<Format>(v[r][0] * m[0], v[r][1] * m[1], v[r][2] * m[2], v[r][3] * m[3]),
                    encode4<Format>(v[r][4] * m[4], v[r][5] * m[5], v[r][6] * m[6], v[r][7] * m[7]));
    }
  }
  if (out.amax == nullptr) return;
  __syncthreads();
  best = block_max(best, room);
  if (threadIdx.x == 0) raise_amax(out.amax, best);
}

template <typename Source>
void launch_mx(const Source& source, const QTensor& out, const std::int32_t* num_rows, const StepScalars* scalars,
               cudaStream_t stream) {
  if (source.rows == 0 || source.cols == 0) return;
  const CodeOutputs outputs = code_outputs(out);
  const dim3 grid(static_cast<unsigned>(ceil_div(source.rows, kMxBlock)),
                  static_cast<unsigned>(ceil_div(source.cols, kMxColumns)));
  const MxScales rowwise = mx_scales(out, Direction::rowwise), columnwise = mx_scales(out, Direction::columnwise);
  // Whatever step_ok says: padding is zero always.
  clear_mx_padding(rowwise, stream);
  clear_mx_padding(columnwise, stream);
  if (out.format == DType::e4m3) {
    mx_kernel<DType::e4m3><<<grid, kMxThreads, 0, stream>>>(source, outputs, rowwise, columnwise, num_rows, scalars);
  } else {
    mx_kernel<DType::e5m2><<<grid, kMxThreads, 0, stream>>>(source, outputs, rowwise, columnwise, num_rows, scalars);
  }
  check_launch("quantize (MXFP8)");
}

// ---- no quantisation: copies (and converts) live rows, zeroes the others. A thread takes N elements at a time.

template <typename From, typename To, int N>
__global__ void copy_live_kernel(Matrix<const From> from, Matrix<To> to, const std::int32_t* num_rows,
                                 const StepScalars* scalars) {
  if (scalars != nullptr && scalars->step_ok == 0) return;
  const std::int64_t live = live_rows(num_rows, from.rows), per_row = from.cols / N, total = from.rows * per_row;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  const bool in_place = static_cast<const void*>(from.data) == static_cast<const void*>(to.data);
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    const std::int64_t row = i / per_row, c = (i - row * per_row) * N;
    if (row >= live) {
      store_zero<N>(to.row(row) + c);
    } else if (!in_place) {
      if constexpr (!std::is_same_v<From, To>) {
        to.row(row)[c] = from_float<To>(as_float(from.row(row)[c]));
      } else if constexpr (N == 1) {
        to.row(row)[c] = from.row(row)[c];
      } else {
        *reinterpret_cast<uint4*>(to.row(row) + c) = *reinterpret_cast<const uint4*>(from.row(row) + c);
      }
    }
  }
}

template <typename A>
void launch_copy_live(const Tensor& x, const Tensor& to, const std::int32_t* num_rows, const StepScalars* scalars,
                      cudaStream_t stream) {
  if (x.numel() == 0) return;
  with_activation(to.dtype, [&](auto t) {
    using To = decltype(t);
    with_vector<A>(std::is_same_v<A, To> && vector_rows(x) && vector_rows(to), [&](auto n) {
      constexpr int kWidth = std::is_same_v<A, To> ? n() : 1;
      copy_live_kernel<A, To, kWidth><<<grid_for(ceil_div(x.numel(), 256 * kWidth)), 256, 0, stream>>>(
          matrix<const A>(x), matrix<To>(to), num_rows, scalars);
    });
  });
  check_launch("quantize (copy)");
}

// amax_slot: what happens to out.amax.
enum class AmaxSlot { combine, set };

template <typename A>
void quantize_as(const Tensor& x, const std::int32_t* num_rows, const QTensor& out, AmaxSlot amax_slot,
                 const StepScalars* scalars, void* workspace, cudaStream_t stream) {
  float* slot = out.amax.defined() ? out.amax.as<float>() : nullptr;
  const bool jit = out.quantized() && out.just_in_time;
  if (slot != nullptr && amax_slot == AmaxSlot::set && !jit) {
    clear_slot_kernel<<<1, 1, 0, stream>>>(slot, scalars);
    check_launch("quantize_weight (amax)");
  }
  if (!out.quantized()) {
    if (slot != nullptr) launch_amax<A>(x, num_rows, scalars, slot, nullptr, stream);
    launch_copy_live<A>(x, out.rowwise, num_rows, scalars, stream);
    return;
  }
  if (jit) {
    std::uint32_t* partials = static_cast<std::uint32_t*>(workspace);
    const int blocks = launch_amax<A>(x, num_rows, scalars, nullptr, partials, stream);
    const auto pointer = [](const Tensor& t) { return t.defined() ? t.as<float>() : nullptr; };
    const ScaleOutputs outputs{out.scale.as<float>(), pointer(out.rowwise_scale_inv), pointer(out.columnwise_scale_inv),
                               slot, amax_slot == AmaxSlot::set};
    set_scale_kernel<<<1, 256, 0, stream>>>(partials, blocks, fp8_max(out.format), scalars, outputs);
    check_launch("quantize (scale)");
  }
  const auto cast = [&](const auto& source) {
    if (out.scaling == Scaling::tensor) {
      launch_quantize(source, out, num_rows, !jit, scalars, stream);
    } else {
      launch_mx(source, out, num_rows, scalars, stream);
    }
  };
  const A* data = x.as<const A>();
  if (vectors_of_8(data, x.rows(), x.cols(), x.row_stride)) {
    cast(PlainSource<A, true>{data, x.rows(), x.cols(), x.row_stride});
  } else {
    cast(PlainSource<A, false>{data, x.rows(), x.cols(), x.row_stride});
  }
}

}  // namespace

void amax(const Tensor& x, const Tensor& num_rows, const Tensor& amax, cudaStream_t stream) {
  with_activation(x.dtype, [&](auto a) {
    launch_amax<decltype(a)>(x, count_of(num_rows), nullptr, amax.as<float>(), nullptr, stream);
  });
}

void quantize(const Tensor& x, const Tensor& num_rows, const QTensor& out, void* workspace, cudaStream_t stream) {
  with_activation(x.dtype, [&](auto a) {
    quantize_as<decltype(a)>(x, count_of(num_rows), out, AmaxSlot::combine, nullptr, workspace, stream);
  });
}

void quantize_weight(const Tensor& weight, const QTensor& out, const StepScalars* scalars, void* workspace,
                     cudaStream_t stream) {
  with_activation(weight.dtype, [&](auto a) {
    quantize_as<decltype(a)>(weight, nullptr, out, AmaxSlot::set, scalars, workspace, stream);
  });
}

}  // namespace llmfp8::cuda
