// --resume: which checkpoint a run goes on from, and what becomes of the others. Called by the trainer.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "train/checkpoint.h"

namespace llmfp8 {

struct ResumePoint {
  Checkpoint checkpoint;
  // Whether it lies in the run's own folder, whose metrics and checkpoints then go on; else it is only read.
  bool is_own = false;
  std::vector<std::filesystem::path> kept;  // own checkpoints up to it, oldest first
  // Own ones that the run leaves behind: of later steps, which it will do again, and damaged ones.
  std::vector<std::filesystem::path> superseded;
};

// Gives these folders below `checkpoints` names that nothing resumes from, so that two histories never mix:
// "step-9.superseded". Returns all that lie there under such a name, those of an earlier run too.
std::vector<std::filesystem::path> set_aside(const std::filesystem::path& checkpoints,
                                             const std::vector<std::filesystem::path>& folders);

// resume: "" | "auto" | a checkpoint's folder | a run's folder. Null: the run starts from the beginning, which "auto"
// says in a line where output_dir has no checkpoint. A damaged checkpoint is named in a warning and the one before it
// is taken, unless it was asked for itself. Throws Error: no such folder, none of the two, or no undamaged checkpoint
// in it.
std::unique_ptr<ResumePoint> choose_resume_point(const std::string& resume, const std::filesystem::path& output_dir);

}  // namespace llmfp8
