// What a user can do where the device's memory does not suffice for an engine. Called by Engine.
#pragma once

#include <span>
#include <string>

#include "train/engine.h"

namespace llmfp8 {

// error with the memory taken so far and the flags that help: first those for what was refused, then those that make
// smaller what lies there already. Names only flags that change something under these options.
// largest_phase: of the arena's plan, "" where it was not made yet.
OutOfMemory with_advice(const OutOfMemory& error, const EngineOptions& options, std::span<const MemoryLine> taken,
                        const std::string& largest_phase);

}  // namespace llmfp8
