// What may differ between the run that wrote a checkpoint and the one that goes on from it. Called by the trainer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>


namespace llmfp8 {

// same: another value is refused. noted: allowed, and said, since the steps from there on are not those of a run that
// went through. open: says nothing about the numbers. judged: by a rule of its own.
enum class ResumeRule { same, noted, open, judged };

struct ResumeSetting {
  std::string_view name;  // of a flag, or of what ran
  ResumeRule rule = ResumeRule::open;
  std::string_view why = {};  // same: why not
};

// Every flag of the programs has one; null for an unknown name.
const ResumeSetting* resume_setting(std::string_view flag);

// saved, now: {"flags": {"batch_size": {"value": 4, …}, …}, "ran": {"recipe": …, …}, "hub": {"model": {"commit": …}}} as
// state.json has them ("hub" or a part of it may be absent). Returns a line for every difference that is allowed. Throws
// Error that names every one that is not, and why; folder: of the checkpoint.
std::vector<std::string> compare_for_resume(const nlohmann::ordered_json& saved, const nlohmann::ordered_json& now,
                                            const std::string& folder);

}  // namespace llmfp8
