// How far a generation has come, as the console shows it. Used by whoever generates many answers.
#pragma once

#include <string>
#include <utility>

#include "model/generator.h"
#include "report/console.h"

namespace llmfp8 {

inline Progress shown(const GenerateProgress& progress, std::size_t total, std::string what) {
  return {.step = progress.finished, .total_steps = static_cast<std::int64_t>(total), .work = progress.work, .what = std::move(what)};
}

}  // namespace llmfp8
