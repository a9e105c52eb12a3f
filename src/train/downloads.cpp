#include "train/downloads.h"

#include "hub/hf_config.h"
#include "train/interrupt.h"

namespace llmfp8 {
namespace {

// What `call` does with the hub.
template <typename Call>
auto with_hub(const std::string& cache_dir, Console& console, const Call& call) {
  HubOptions options;
  options.cache_dir = cache_dir;
  options.stopped = [] { return interrupted(); };
  options.progress = [&](const HubProgress& at) {
    constexpr std::int64_t kMega = 1000000;
    Progress progress;
    progress.what = "downloading " + at.what + ", MB";
    progress.total_steps = (at.total_bytes + kMega - 1) / kMega;
    progress.step = at.done_bytes >= at.total_bytes ? progress.total_steps : at.done_bytes / kMega;
    console.update(progress);
  };
  try {
    auto result = call(options);
    console.finish();
    return result;
  } catch (const HubStopped&) {
    throw_if_interrupted();
    throw;
  }
}

}  // namespace

std::filesystem::path fetch_model(const std::string& name, const std::string& cache_dir, Console& console,
                                  ModelParts parts) {
  return with_hub(cache_dir, console, [&](const HubOptions& options) { return resolve_model(name, options, parts); });
}

DatasetFiles fetch_dataset(const std::string& name, const std::string& split, const std::string& config,
                           const std::string& cache_dir, Console& console) {
  return with_hub(cache_dir, console,
                  [&](const HubOptions& options) { return resolve_dataset(name, split, config, options); });
}

RunFiles fetch_run_files(const RunConfig& config, Console& console) {
  RunFiles files;
  if (!find_local(RepoKind::model, config.model_name)) {
    read_hf_config(fetch_model(config.model_name, config.weights_cache_dir, console, ModelParts::without_weights));
  }
  const auto keep_in = [](std::optional<HubOrigin>& origin) { return [&origin](const HubOrigin& found) { origin = found; }; };
  files.dataset = with_hub(config.weights_cache_dir, console, [&](HubOptions options) {
    options.found = keep_in(files.dataset_origin);
    return resolve_dataset(config.dataset_name, config.split_name, config.dataset_config, options);
  });
  files.model = with_hub(config.weights_cache_dir, console, [&](HubOptions options) {
    options.found = keep_in(files.model_origin);
    return resolve_model(config.model_name, options);
  });
  return files;
}

}  // namespace llmfp8
