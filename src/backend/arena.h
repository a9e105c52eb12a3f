// The memory of a step's temporary tensors. A planning pass runs the real code on shapes alone and records every take and
// release; the plan gives each block a fixed offset; a run replays the very same sequence and allocates nothing.
// Used by Ops (scratch), model (activations) and train.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace llmfp8 {

inline constexpr std::size_t kArenaAlignment = 256;  // bytes; what cuBLASLt and vector loads want at most

// One temporary tensor of one phase.
struct PlannedBlock {
  std::string what;         // "layer 3 gate_up": a line of the memory table
  std::size_t bytes = 0;    // rounded up to kArenaAlignment
  std::int64_t first = 0;   // event index of take
  std::int64_t last = 0;    // event index of release
  std::size_t offset = 0;   // from the arena's start, set by solve()
};

struct PhasePlan {
  std::vector<PlannedBlock> blocks;  // in the order of take
  std::size_t peak_bytes = 0;        // end of the highest block
};

// Phases by name ("micro_step 1024", "evaluate 2048", "optimizer"): one after the other, never at once.
class ArenaPlan {
 public:
  std::map<std::string, PhasePlan> phases;
  std::size_t peak_bytes() const;
};

class Arena;

// A tensor taken from the arena until it goes out of scope.
class ArenaTensor {
 public:
  ArenaTensor() = default;
  ArenaTensor(ArenaTensor&& other) noexcept;
  ArenaTensor& operator=(ArenaTensor&& other) noexcept;
  ArenaTensor(const ArenaTensor&) = delete;
  ArenaTensor& operator=(const ArenaTensor&) = delete;
  ~ArenaTensor() { reset(); }

  const Tensor& get() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }
  bool defined() const { return arena_ != nullptr; }
  void reset();

 private:
  friend class Arena;
  ArenaTensor(Arena* arena, std::size_t block, Tensor tensor) : arena_(arena), block_(block), tensor_(tensor) {}
  Arena* arena_ = nullptr;
  std::size_t block_ = 0;
  Tensor tensor_;
};

class Arena {
 public:
  Arena() = default;  // plans: tensors have no data
  // Runs: base holds at least plan.peak_bytes(), aligned to kArenaAlignment.
  Arena(ArenaPlan plan, void* base, std::size_t bytes);
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  bool planning() const { return base_ == nullptr; }
  bool has_phase(const std::string& phase) const { return plan_.phases.contains(phase); }

  // A phase begins and ends with nothing taken. Planning a phase again replaces it. Running one that was not planned,
  // or whose sequence of (what, bytes) differs from its plan, throws: the plan would be a lie.
  void begin_phase(const std::string& phase);
  void end_phase();
  // Forgets what is taken, after an exception left a phase half done.
  void abandon_phase();

  ArenaTensor take(std::string_view what, DType dtype, Shape shape);

  const ArenaPlan& plan() const { return plan_; }
  std::size_t high_water_bytes() const { return high_water_; }  // of the runs so far: end of the highest block handed out

 private:
  friend class ArenaTensor;
  void release(std::size_t block);

  ArenaPlan plan_;
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  std::string phase_;             // empty between phases
  PhasePlan* current_ = nullptr;
  std::size_t next_ = 0;          // run: index of the next block to hand out
  std::int64_t event_ = 0;        // plan: events so far
  std::size_t live_ = 0;
  std::size_t high_water_ = 0;
};

// Gives every block an offset so that blocks alive at the same time do not overlap: largest first, lowest fitting gap.
void solve(PhasePlan& phase);

}  // namespace llmfp8
