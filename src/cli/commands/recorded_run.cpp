#include "cli/commands/recorded_run.h"

#include <system_error>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "hub/file_io.h"
#include "report/json_values.h"

namespace llmfp8 {

namespace fs = std::filesystem;

std::string RecordedRun::flag(std::string_view name) const {
  const auto it = flags.find(name);
  return it == flags.end() ? "" : it->second;
}

RecordedRun recorded_run(const fs::path& model) {
  RecordedRun run;
  std::error_code ignored;
  if (!fs::is_directory(model, ignored)) return run;
  std::vector<fs::path> places = {model / "state" / "state.json", model / "run.json"};
  if (model.filename() == "checkpoint_best") places.push_back(model.parent_path() / "run.json");
  for (const fs::path& place : places) {
    if (!fs::is_regular_file(place, ignored)) continue;
    try {
      const nlohmann::ordered_json json = parse_bounded(read_text_file(place));
      CHECK(json.is_object() && member(json, "flags").is_object(), "{}: no JSON object with \"flags\"", place.string());
      for (const auto& [name, entry] : member(json, "flags").items()) run.flags[name] = text_at(entry, "value");
      run.file = place;
      return run;
    } catch (const Error& error) {
      log::warning("{}; the flags of that run are no defaults here", error.what());
    }
  }
  return run;
}

}  // namespace llmfp8
