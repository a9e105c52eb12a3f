// The flags of the run that wrote a model's folder, as defaults for what looks at that model. Called by eval.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace llmfp8 {

struct RecordedRun {
  std::filesystem::path file;  // where it stands; empty: the folder is no run's
  std::map<std::string, std::string, std::less<>> flags;  // as they would be typed

  // "" where the run has no such flag.
  std::string flag(std::string_view name) const;
};

// model: a run's folder (run.json), one of its checkpoints (state/state.json) or its checkpoint_best; anything else has no
// record. What cannot be read there is left out with a warning: it is only a source of defaults.
RecordedRun recorded_run(const std::filesystem::path& model);

}  // namespace llmfp8
