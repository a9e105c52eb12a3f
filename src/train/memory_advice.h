// Memory as a user reads it, and what helps where it does not suffice for an engine. Called by Engine and Trainer.
#pragma once

#include <span>
#include <string>

#include "train/engine.h"

namespace llmfp8 {

// "269.0 MB", "1.08 GB".
std::string size_text(std::size_t bytes);

// error with the memory taken so far and the flags that help: first those for what was refused, then those that make
// smaller what lies there already. Names only flags that change something under these options.
// largest_phase: of the arena's plan, "" where it was not made yet.
OutOfMemory with_advice(const OutOfMemory& error, const EngineOptions& options, std::span<const MemoryLine> taken,
                        const std::string& largest_phase);

}  // namespace llmfp8
