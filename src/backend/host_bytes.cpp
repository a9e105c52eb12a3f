#include "backend/host_bytes.h"

namespace llmfp8 {

DeviceBytes::DeviceBytes(Backend& backend, Stream& stream)
    : backend_(backend), stream_(stream), piece_(backend.allocate_host(kPieceBytes, "copies to files")) {}

std::span<const std::byte> DeviceBytes::read(const Tensor& tensor, std::size_t offset, std::size_t bytes) {
  CHECK(bytes <= kPieceBytes && offset <= tensor.bytes() && bytes <= tensor.bytes() - offset && tensor.contiguous(),
        "{} bytes at {} of a tensor of {}", bytes, offset, tensor.bytes());
  backend_.copy_to_host(piece_.data(), static_cast<const std::byte*>(tensor.data) + offset, bytes, stream_);
  backend_.synchronize(stream_);
  return {static_cast<const std::byte*>(piece_.data()), bytes};
}

}  // namespace llmfp8
