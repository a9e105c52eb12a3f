// What both training programs do: parse, put the sinks together, run, and turn errors into one line and an exit code.
#pragma once

#include "core/run_config.h"

namespace llmfp8 {

// The exit code: 0 done, 1 a run that failed, 2 a wrong command line, 128 + signal when stopped by one.
int training_main(Program program, int argc, const char* const* argv);

}  // namespace llmfp8
