// PlannedOps: operations on an arena that holds exactly what they need. The phases are run once on shapes to find that out;
// afterwards nothing is allocated. Used wherever something runs beside the engine's own arena.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "backend/backend.h"

namespace llmfp8 {

class PlannedOps {
 public:
  // plan: goes through every phase that will be run (Arena::begin_phase, end_phase of the given ops' arena). what: names
  // the memory where it does not suffice (OutOfMemory). backend and stream outlive it.
  PlannedOps(Backend& backend, Stream& stream, std::string_view what, const std::function<void(Ops&)>& plan);

  Ops& ops() { return *ops_; }
  Arena& arena() { return *arena_; }
  std::size_t bytes() const { return memory_.bytes(); }

 private:
  Buffer memory_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<Ops> ops_;
};

}  // namespace llmfp8
