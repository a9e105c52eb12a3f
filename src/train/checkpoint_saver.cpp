#include "train/checkpoint_saver.h"

#include <chrono>
#include <new>
#include <set>

#include "core/log.h"

namespace llmfp8 {
namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// What a save reads: the state's tensors and the model's weights, each once.
std::vector<Tensor> tensors_to_copy(const CheckpointContent& content) {
  std::vector<Tensor> tensors;
  std::set<const void*> seen;
  const auto add = [&](const Tensor& tensor) {
    if (seen.insert(tensor.data).second) tensors.push_back(tensor);
  };
  for (const NamedTensor& entry : content.tensors) add(entry.tensor);
  for (const ParamSpec& param : content.store->table().params()) add(content.store->weight(param.index));
  return tensors;
}

}  // namespace

CheckpointSaver::CheckpointSaver(Engine& engine, const ExportSpec& model, ModelSnapshots& snapshots,
                                 std::function<std::size_t()> host_bytes)
    : engine_(engine), model_(model), snapshots_(snapshots), host_bytes_(std::move(host_bytes)) {}

CheckpointSaver::~CheckpointSaver() { wait(); }

void CheckpointSaver::wait() {
  if (thread_.joinable()) thread_.join();
}

void CheckpointSaver::save(std::int64_t step, nlohmann::ordered_json state) {
  const double started = now_seconds();
  wait();
  CHECK(engine_.steps_in_flight() == 0, "a checkpoint while {} steps are in flight", engine_.steps_in_flight());
  CheckpointContent content{&model_, &engine_.params(), tensors_beside_model(engine_, model_), std::move(state)};
  std::shared_ptr<HostCopy> copy = copy_if_it_fits(tensors_to_copy(content));
  if (copy == nullptr) {
    waited_for_files_ = true;
    DeviceBytes values(engine_.backend(), engine_.stream());
    write_or_warn(step, content, values, -1);
    return;
  }
  const double waited = now_seconds() - started;
  thread_ = std::thread([this, step, content = std::move(content), copy = std::move(copy), waited] {
    write_or_warn(step, content, *copy, waited);
  });
}

std::shared_ptr<HostCopy> CheckpointSaver::copy_if_it_fits(const std::vector<Tensor>& tensors) {
  // A part is left to whatever else needs memory meanwhile.
  const std::size_t wanted = HostCopy::bytes_of(tensors), free = host_bytes_();
  try {
    if (wanted <= free / 4 * 3) return std::make_shared<HostCopy>(tensors, engine_.backend(), engine_.stream());
  } catch (const std::bad_alloc&) {
    // A limit that host_bytes_ does not know (ulimit -v).
  }
  if (!waited_for_files_) {
    log::info(
        "checkpoints are written while training waits: copies of the state take {:.2f} GB, {:.2f} GB of host memory "
        "are free",
        static_cast<double>(wanted) / 1e9, static_cast<double>(free) / 1e9);
  }
  return nullptr;
}

void CheckpointSaver::write_or_warn(std::int64_t step, const CheckpointContent& content, HostBytes& values,
                                    double waited_seconds) {
  const double started = now_seconds();
  try {
    snapshots_.save_step(step, [&](const std::filesystem::path& folder) { write_checkpoint(content, values, folder); });
  } catch (const DeviceFailed&) {
    throw;  // only where this is the training thread: copies need no device
  } catch (const std::exception& error) {
    failed_.push_back(step);
    const std::filesystem::path newest = snapshots_.newest();
    log::warning("the checkpoint of step {} was not saved: {}; {}", step, error.what(),
                 newest.empty() ? "there is no earlier one" : "the newest one is " + newest.string());
    return;
  }
  const double seconds = now_seconds() - started;
  log::info("checkpoint of step {}: {:.2f} GB in {:.1f} s, training waited {:.2f} s", step,
            static_cast<double>(checkpoint_bytes(content)) / 1e9, seconds,
            waited_seconds < 0 ? seconds : waited_seconds);
}

}  // namespace llmfp8
