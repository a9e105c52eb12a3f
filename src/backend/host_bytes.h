// HostBytes: the bytes of device tensors, piece by piece, for whoever writes them into files: straight from the device,
// or from copies that were taken earlier (train/host_copy.h). Called by params/export.h and by the checkpoints of
// train/.
#pragma once

#include <cstddef>
#include <span>

#include "backend/backend.h"

namespace llmfp8 {

class HostBytes {
 public:
  // No piece that is asked for is larger.
  static constexpr std::size_t kPieceBytes = std::size_t{64} << 20;

  virtual ~HostBytes() = default;
  // Bytes [offset, offset + bytes) of a contiguous tensor; valid until the next call.
  virtual std::span<const std::byte> read(const Tensor& tensor, std::size_t offset, std::size_t bytes) = 0;
};

// Copies each piece when it is asked for, behind what the stream has to do, through one piece of pinned memory.
class DeviceBytes : public HostBytes {
 public:
  // Both outlive the reader.
  DeviceBytes(Backend& backend, Stream& stream);
  std::span<const std::byte> read(const Tensor& tensor, std::size_t offset, std::size_t bytes) override;

 private:
  Backend& backend_;
  Stream& stream_;
  Buffer piece_;
};

// Calls visit(offset, bytes) for each piece of `total` bytes, in order.
template <typename Visit>
void for_each_piece(std::size_t total, const Visit& visit) {
  for (std::size_t offset = 0; offset < total; offset += HostBytes::kPieceBytes) {
    visit(offset, total - offset < HostBytes::kPieceBytes ? total - offset : HostBytes::kPieceBytes);
  }
}

}  // namespace llmfp8
