// The one place where names become files: models and data sets that are not here yet are downloaded, with a line of progress, until a
// signal asks to stop. Called by run_inputs and the subcommands.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "core/run_config.h"
#include "data/dataset_source.h"
#include "hub/hub_repository.h"
#include "report/console.h"

namespace llmfp8 {

// Throws Error as resolve_model and resolve_dataset do, Interrupted.
std::filesystem::path fetch_model(const std::string& name, const std::string& cache_dir, Console& console,
                                  ModelParts parts = ModelParts::all);
// config: as DatasetOptions::config.
DatasetFiles fetch_dataset(const std::string& name, const std::string& split, const std::string& config,
                           const std::string& cache_dir, Console& console);

struct RunFiles {
  std::filesystem::path model;
  DatasetFiles dataset;
  std::optional<HubOrigin> model_origin, dataset_origin;  // nothing for what lay on this machine under its own name
};

// Of --model_name, --dataset_name and --split_name; the largest last, so that what is refused is refused before.
RunFiles fetch_run_files(const RunConfig& config, Console& console);

}  // namespace llmfp8
