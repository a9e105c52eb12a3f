// HostRing: pinned host memory for copies to and from a device that the host does not wait for. A few blocks in turn,
// each with the event after which the host may touch it again. Used by DeviceBatch and Engine.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "backend/backend.h"

namespace llmfp8 {

class HostRing {
 public:
  // blocks: how many copies may be under way at once.
  HostRing(Backend& backend, std::size_t block_bytes, int blocks, std::string_view what)
      : backend_(backend), block_bytes_((block_bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment),
        buffer_(backend.allocate_host(block_bytes_ * static_cast<std::size_t>(blocks), what)),
        blocks_(static_cast<std::size_t>(blocks)) {
    for (Block& block : blocks_) block.done = backend.create_event(EventKind::ordering);
  }

  // The next block in turn, after the copy of its last use.
  void* next() {
    at_ = (at_ + 1) % blocks_.size();
    wait(at_);
    return data(at_);
  }
  // The copy from or to the block of the last next() has been enqueued on the stream. Returns the block's number.
  std::size_t enqueued(Stream& stream) {
    backend_.record(*blocks_[at_].done, stream);
    blocks_[at_].under_way = true;
    return at_;
  }
  // Waits for the copy of a block.
  void wait(std::size_t block) {
    if (!blocks_[block].under_way) return;
    backend_.synchronize(*blocks_[block].done);
    blocks_[block].under_way = false;
  }
  void* data(std::size_t block) const { return static_cast<std::byte*>(buffer_.data()) + block * block_bytes_; }

 private:
  struct Block {
    std::unique_ptr<Event> done;
    bool under_way = false;
  };
  Backend& backend_;
  std::size_t block_bytes_;
  Buffer buffer_;
  std::vector<Block> blocks_;
  std::size_t at_ = 0;
};

}  // namespace llmfp8
