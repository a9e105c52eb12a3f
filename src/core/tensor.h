// A view of elements in some device's memory; it owns nothing. Buffer owns.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"
#include "core/error.h"
#include "core/shape.h"

namespace llmfp8 {

struct Tensor {
  void* data = nullptr;         // null in a planning run, where only shapes matter
  DType dtype = DType::f32;
  Shape shape;
  std::int64_t row_stride = 0;  // elements from one row of the last dimension to the next; shape[last] where contiguous

  Tensor() = default;
  Tensor(void* data_, DType dtype_, Shape shape_)
      : data(data_), dtype(dtype_), shape(shape_), row_stride(shape_.rank() > 0 ? shape_[shape_.rank() - 1] : 1) {}

  bool defined() const { return shape.rank() > 0; }
  std::int64_t numel() const { return shape.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_bytes(dtype); }
  std::int64_t cols() const { return shape.rank() > 0 ? shape[shape.rank() - 1] : 1; }
  std::int64_t rows() const { return cols() == 0 ? 0 : numel() / cols(); }
  bool contiguous() const { return rows() <= 1 || row_stride == cols(); }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }

  // Rows [begin, begin + count) of the flattened matrix [rows, cols].
  Tensor slice_rows(std::int64_t begin, std::int64_t count) const {
    CHECK(begin >= 0 && count >= 0 && begin + count <= rows(), "rows {}..{} of {}", begin, begin + count, rows());
    Tensor view(offset(begin * row_stride), dtype, Shape{count, cols()});
    view.row_stride = row_stride;
    return view;
  }

  // Columns [begin, begin + count) of the flattened matrix [rows, cols].
  Tensor slice_cols(std::int64_t begin, std::int64_t count) const {
    CHECK(begin >= 0 && count >= 0 && begin + count <= cols(), "columns {}..{} of {}", begin, begin + count, cols());
    Tensor view(offset(begin), dtype, Shape{rows(), count});
    view.row_stride = row_stride;
    return view;
  }

  Tensor reshape(Shape other) const {
    CHECK(contiguous() && other.numel() == numel(), "cannot view {} as {}", to_string(shape), to_string(other));
    return Tensor(data, dtype, other);
  }

 private:
  void* offset(std::int64_t elements) const {
    return data == nullptr ? nullptr : static_cast<std::byte*>(data) + elements * static_cast<std::int64_t>(size_bytes(dtype));
  }
};

}  // namespace llmfp8
