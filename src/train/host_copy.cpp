#include "train/host_copy.h"

#include <algorithm>
#include <cstring>
#include <deque>

#include "core/thread_pool.h"
#include "train/host_ring.h"

namespace llmfp8 {
namespace {

constexpr int kPinnedPieces = 4;

// In ranges on all cores: most of the time goes into the first touch of fresh pages.
void copy_in_parallel(std::byte* to, const std::byte* from, std::size_t bytes) {
  parallel_for(static_cast<std::int64_t>(bytes), std::int64_t{1} << 20, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(to + begin, from + begin, static_cast<std::size_t>(end - begin));
  });
}

struct Piece {
  std::byte* to = nullptr;
  std::size_t bytes = 0, block = 0;
};

}  // namespace

std::size_t HostCopy::bytes_of(const std::vector<Tensor>& tensors) {
  std::size_t bytes = 0;
  for (const Tensor& tensor : tensors) bytes += tensor.bytes();
  return bytes;
}

HostCopy::HostCopy(const std::vector<Tensor>& tensors, Backend& backend, Stream& stream) {
  // A device that works behind the host's back copies fast into pinned memory only; the host empties one piece while
  // the next ones arrive.
  std::unique_ptr<HostRing> ring;
  if (backend.capabilities().asynchronous) {
    ring = std::make_unique<HostRing>(backend, std::min(bytes_of(tensors), kPieceBytes), kPinnedPieces,
                                      "copies for a checkpoint");
  }
  std::deque<Piece> arriving;
  const auto take_oldest = [&] {
    const Piece piece = arriving.front();
    arriving.pop_front();
    ring->wait(piece.block);
    copy_in_parallel(piece.to, static_cast<const std::byte*>(ring->data(piece.block)), piece.bytes);
  };
  for (const Tensor& tensor : tensors) {
    CHECK(tensor.contiguous(), "a tensor {} that is not contiguous", to_string(tensor.shape));
    Copy& copy = copies_[tensor.data];
    copy.bytes = tensor.bytes();
    copy.data = std::make_unique_for_overwrite<std::byte[]>(copy.bytes);
    for_each_piece(copy.bytes, [&](std::size_t offset, std::size_t bytes) {
      const auto* from = static_cast<const std::byte*>(tensor.data) + offset;
      if (ring == nullptr) return backend.copy_to_host(copy.data.get() + offset, from, bytes, stream);
      if (arriving.size() == kPinnedPieces) take_oldest();
      backend.copy_to_host(ring->next(), from, bytes, stream);
      arriving.push_back({copy.data.get() + offset, bytes, ring->enqueued(stream)});
    });
  }
  while (!arriving.empty()) take_oldest();
  backend.synchronize(stream);
}

std::span<const std::byte> HostCopy::read(const Tensor& tensor, std::size_t offset, std::size_t bytes) {
  const auto found = copies_.find(tensor.data);
  CHECK(found != copies_.end(), "a tensor {} was not copied", to_string(tensor.shape));
  CHECK(offset <= found->second.bytes && bytes <= found->second.bytes - offset, "{} bytes at {} of a copy of {}", bytes,
        offset, found->second.bytes);
  return {found->second.data.get() + offset, bytes};
}

}  // namespace llmfp8
