// Runs that save checkpoints, cut off and compared. Used by the tests of --resume.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "e2e/workshop.h"

namespace llmfp8::testing {

namespace fs = std::filesystem;

// Fails the test unless the program ends with 0 and without an error.
Finished run_well(const char* program, const Args& args);

// 27 steps in three epochs of nine, a checkpoint every four steps and at the end, all kept; `more` wins.
Args saving_flags(const Args& more);

std::vector<std::int64_t> saved_steps(const fs::path& output);  // ascending
std::size_t lines_of(const fs::path& file);                     // 0 where there is none

// The run as it would lie there, had it been killed between its checkpoint `step` and the next: a fresh folder `to`.
fs::path copy_until(const fs::path& output, const fs::path& to, std::int64_t step);

// Model, state and everything logged but times are the same bits.
enum class Compare { all, without_checkpoint_names };
void expect_same_run(const fs::path& wanted, const fs::path& found, Compare compare = Compare::all);

}  // namespace llmfp8::testing
