// AdamW on the CPU. Called by the CPU backend's Ops; arguments are checked there.
#pragma once

#include "backend/op_args.h"

namespace llmfp8::cpu {

// The rules are those of core/adamw_math.h; results do not depend on the number of threads or on the instruction set.
// 8-bit state: element_offset must be a multiple of 256 (a block of codes shares a scale); else any offset will do.
void adamw(const AdamwArgs& args);

}  // namespace llmfp8::cpu
