// From the precision flags to what the engine runs, by what the device supports; and the table of what really ran.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/run_config.h"
#include "train/engine.h"

namespace llmfp8 {

struct PrecisionChoice {
  DType dtype = DType::bf16;
  RecipeKind recipe = RecipeKind::none;
  Fp8Start fp8_start = Fp8Start::calibrate;
  std::string fallback;            // empty, or why another recipe runs than was asked for
  std::vector<std::string> notes;  // one line each, for the user
  std::string description;         // "fp8 (default)", "bf16", "fp32"
};

// Throws Error where --fp8_strict forbids a fallback.
PrecisionChoice choose_precision(const RunConfig& config, const Capabilities& device);

// One line per product: the formats of its forward product and of both gradients, over all layers, from the ledger.
std::string recipe_table(const GemmLedger& ledger, const ModelConfig& config);
nlohmann::ordered_json recipe_json(const GemmLedger& ledger, const ModelConfig& config);

}  // namespace llmfp8
