// HostCopy: the bytes of device tensors as they were at one moment, so that training goes on while they are written.
// Called by CheckpointSaver.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "backend/host_bytes.h"

namespace llmfp8 {

class HostCopy : public HostBytes {
 public:
  // Copies everything and waits for it, behind what the stream has to do. tensors: contiguous. Pinned memory for four
  // pieces is taken meanwhile where the device is asynchronous. Throws std::bad_alloc.
  HostCopy(const std::vector<Tensor>& tensors, Backend& backend, Stream& stream);

  // A tensor that was copied; others are refused.
  std::span<const std::byte> read(const Tensor& tensor, std::size_t offset, std::size_t bytes) override;

  static std::size_t bytes_of(const std::vector<Tensor>& tensors);

 private:
  struct Copy {
    std::unique_ptr<std::byte[]> data;
    std::size_t bytes = 0;
  };
  std::unordered_map<const void*, Copy> copies_;  // by address on the device
};

}  // namespace llmfp8
