// llm-fp8 wandb-sync: hands a run that lies on disk to W&B, whether --use_wandb was given or not. What W&B has of it
// already is left out.
#include <csignal>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "cli/commands/commands.h"
#include "cli/commands/flags.h"
#include "cli/wandb_options.h"
#include "core/error.h"
#include "hub/file_io.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

Json read_object(const fs::path& path) {
  std::ifstream in(path);
  CHECK(in.good(), "{}: cannot be read; the output folder of a run is wanted", path.string());
  const Json json = Json::parse(in, nullptr, false);
  CHECK(json.is_object(), "{}: it is no JSON object", path.string());
  return json;
}

// As the training program would have called it.
WandbRun run_of(const Json& run_json, const std::string& project) {
  const Json::json_pointer flags("/flags");
  WandbRun fresh = {.id = WandbRun::new_id(),
                    .project = run_json.at(flags / "wandb_project" / "value"),
                    .name = run_json.at(flags / "wandb_run_name" / "value")};
  WandbRun run = continued_wandb_run(run_json, std::move(fresh));
  if (!project.empty()) run.project = project;
  return run;
}

WandbOptions options_of(const Json& run_json, const std::string& project, const fs::path& output_dir,
                        const fs::path& folder) {
  try {
    return wandb_options(run_of(run_json, project), run_json.at("flags"), output_dir, folder);
  } catch (const Json::exception& error) {
    fail("{}: {}", (output_dir / "run.json").string(), error.what());
  }
}

bool deliver(WandbOptions options, const Json& summary, Json& run_json) {
  WandbSink sink(std::move(options));
  for (const auto& [name, value] : summary.items()) {
    if (value.is_number()) sink.summary(name, value);
    if (value.is_string()) sink.text(name, value);
  }
  sink.finish();
  const bool is_delivered = sink.deliver();
  sink.describe(run_json);
  return is_delivered;
}

}  // namespace

int run_wandb_sync(CommandArgs args) {
  std::string run, project, log_dir = "./runs";
  double wait_s = 3600;
  FlagSet flags("wandb-sync", "hand a run that lies on disk to Weights & Biases", "RUN [flags]");
  flags.positional("RUN", &run, "output folder of the run, with run.json and metrics.jsonl");
  flags.text("project", "NAME", &project, "another project than run.json names");
  flags.text("log_dir", "DIR", &log_dir, "receives the SDK's own files and its log, in wandb-sync/");
  flags.real("wait", {.least = 0}, &wait_s, "seconds after which to give up");
  if (!flags.parse(args)) return 0;
  const fs::path folder = run;
  Json run_json = read_object(folder / "run.json");
  CHECK(fs::exists(folder / "metrics.jsonl"), "{}: not found", (folder / "metrics.jsonl").string());
  const Json summary = fs::exists(folder / "summary.json") ? read_object(folder / "summary.json") : Json::object();
  WandbOptions options = options_of(run_json, project, folder, fs::path(log_dir) / "wandb-sync");
  options.finish_wait_s = options.silence_s = wait_s;
  const bool is_delivered = deliver(std::move(options), summary, run_json);
  // A second call then continues this run at W&B.
  write_file_atomically(folder / "run.json", run_json.dump(2) + "\n");
  return is_delivered ? 0 : 1;
}

}  // namespace llmfp8
