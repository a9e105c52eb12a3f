// Owned memory of some device: freed when the Buffer goes.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>

#include "core/tensor.h"

namespace llmfp8 {

class Buffer {
 public:
  using Free = std::function<void(void*)>;

  Buffer() = default;
  Buffer(void* data, std::size_t bytes, Free free) : data_(data), bytes_(bytes), free_(std::move(free)) {}
  ~Buffer() { reset(); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer taken(std::move(other));
    swap(taken);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

  // A view of the elements at byte `offset`.
  Tensor tensor(DType dtype, Shape shape, std::size_t offset = 0) const {
    Tensor view(data_ == nullptr ? nullptr : static_cast<std::byte*>(data_) + offset, dtype, shape);
    CHECK(offset + view.bytes() <= bytes_, "{} bytes at {} of a buffer of {}", view.bytes(), offset, bytes_);
    return view;
  }

 private:
  void reset() {
    if (data_ != nullptr && free_) free_(data_);
    data_ = nullptr;
    bytes_ = 0;
  }
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(free_, other.free_);
  }

  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Free free_;
};

}  // namespace llmfp8
