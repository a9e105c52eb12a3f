// What every main does with errors. Called by the programs of apps/ and bench/, through training_main for the trainers.
#pragma once

#include <functional>

namespace llmfp8 {

// body's exit code; where it throws, "error: …" on one line of standard error and 2 for a wrong command line, else 1.
int run_main(const std::function<int()>& body);

}  // namespace llmfp8
