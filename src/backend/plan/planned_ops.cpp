#include "backend/plan/planned_ops.h"

#include <algorithm>

#include "backend/plan/plan_ops.h"

namespace llmfp8 {

PlannedOps::PlannedOps(Backend& backend, Stream& stream, std::string_view what, const std::function<void(Ops&)>& plan) {
  Arena planning;
  const std::unique_ptr<Ops> real = backend.create_ops(stream, planning);
  PlanOps shapes(*real, planning);
  plan(shapes);
  const std::size_t bytes = std::max(planning.plan().peak_bytes(), kArenaAlignment);
  memory_ = backend.allocate(bytes, what);
  arena_ = std::make_unique<Arena>(planning.plan(), memory_.data(), bytes);
  ops_ = backend.create_ops(stream, *arena_);
}

}  // namespace llmfp8
