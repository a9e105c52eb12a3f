// From --dataset_name and --split_name to the files of that split, downloaded where they are not here yet. Called by
// train/downloads.
#pragma once

#include <string>

#include "data/dataset.h"
#include "hub/hub_options.h"

namespace llmfp8 {

// name: a folder, a file that data_file_name knows, or a hub name "org/name". config: as DatasetOptions::config. Only the
// README and the files of the split are downloaded. Throws Error as resolve_model and open_dataset do.
DatasetFiles resolve_dataset(const std::string& name, const std::string& split, const std::string& config,
                             const HubOptions& options);

}  // namespace llmfp8
