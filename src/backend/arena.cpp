#include "backend/arena.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace llmfp8 {

std::size_t ArenaPlan::peak_bytes() const {
  std::size_t peak = 0;
  for (const auto& [name, phase] : phases) peak = std::max(peak, phase.peak_bytes);
  return peak;
}

void solve(PhasePlan& phase) {
  std::vector<std::size_t> order(phase.blocks.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return phase.blocks[a].bytes > phase.blocks[b].bytes; });
  std::vector<const PlannedBlock*> placed;  // sorted by offset
  phase.peak_bytes = 0;
  for (std::size_t index : order) {
    PlannedBlock& block = phase.blocks[index];
    std::size_t offset = 0;
    for (const PlannedBlock* other : placed) {
      const bool together = other->first < block.last && block.first < other->last;
      if (!together) continue;
      if (offset + block.bytes <= other->offset) break;
      offset = std::max(offset, other->offset + other->bytes);
    }
    block.offset = offset;
    phase.peak_bytes = std::max(phase.peak_bytes, offset + block.bytes);
    const auto at = std::upper_bound(placed.begin(), placed.end(), offset,
                                     [](std::size_t value, const PlannedBlock* other) { return value < other->offset; });
    placed.insert(at, &block);
  }
}

ArenaTensor::ArenaTensor(ArenaTensor&& other) noexcept { *this = std::move(other); }

ArenaTensor& ArenaTensor::operator=(ArenaTensor&& other) noexcept {
  if (this != &other) {
    reset();
    arena_ = std::exchange(other.arena_, nullptr);
    block_ = other.block_;
    tensor_ = std::exchange(other.tensor_, Tensor());
  }
  return *this;
}

void ArenaTensor::reset() {
  if (arena_ != nullptr) std::exchange(arena_, nullptr)->release(block_);
  tensor_ = Tensor();
}

Arena::Arena(ArenaPlan plan, void* base, std::size_t bytes)
    : plan_(std::move(plan)), base_(static_cast<std::byte*>(base)), bytes_(bytes) {
  CHECK(base_ != nullptr && plan_.peak_bytes() <= bytes_, "arena of {} bytes, the plan needs {}", bytes_, plan_.peak_bytes());
}

void Arena::begin_phase(const std::string& phase) {
  CHECK(current_ == nullptr, "phase {} begins inside phase {}", phase, phase_);
  if (planning()) {
    plan_.phases[phase] = PhasePlan();
  } else {
    CHECK(plan_.phases.contains(phase), "phase {} was not planned", phase);
  }
  phase_ = phase;
  current_ = &plan_.phases.at(phase);
  next_ = 0;
  event_ = 0;
  live_ = 0;
}

void Arena::end_phase() {
  CHECK(current_ != nullptr, "no phase to end");
  CHECK(live_ == 0, "phase {} ends with {} tensors still taken", phase_, live_);
  if (planning()) {
    solve(*current_);
  } else {
    CHECK(next_ == current_->blocks.size(), "phase {} took {} tensors, {} were planned", phase_, next_, current_->blocks.size());
  }
  current_ = nullptr;
}

void Arena::abandon_phase() {
  current_ = nullptr;
  live_ = 0;
}

ArenaTensor Arena::take(std::string_view what, DType dtype, Shape shape) {
  CHECK(current_ != nullptr, "tensor '{}' is taken outside a phase", what);
  Tensor tensor(nullptr, dtype, shape);
  const std::size_t bytes = (tensor.bytes() + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  const std::size_t block = next_++;
  if (planning()) {
    current_->blocks.push_back({std::string(what), bytes, event_, 0, 0});
    ++event_;
  } else {
    CHECK(block < current_->blocks.size(), "phase {} takes '{}', which was not planned", phase_, what);
    const PlannedBlock& planned = current_->blocks[block];
    CHECK(planned.what == what && planned.bytes == bytes, "phase {} takes '{}' of {} bytes, planned was '{}' of {}", phase_, what,
          bytes, planned.what, planned.bytes);
    tensor.data = base_ + planned.offset;
    high_water_ = std::max(high_water_, planned.offset + bytes);
  }
  ++live_;
  return ArenaTensor(this, block, tensor);
}

void Arena::release(std::size_t block) {
  if (current_ == nullptr) return;  // the phase was abandoned
  --live_;
  if (planning()) current_->blocks[block].last = event_++;
}

}  // namespace llmfp8
