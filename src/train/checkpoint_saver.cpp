#include "train/checkpoint_saver.h"

#include <new>
#include <set>

#include "core/clock.h"
#include "core/log.h"

namespace llmfp8 {
namespace {

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

CheckpointSaver::CheckpointSaver(Engine& engine, const ExportSpec& model, ModelSnapshots& snapshots, SaverOptions options)
    : engine_(engine), model_(model), snapshots_(snapshots), options_(std::move(options)), newest_(options_.first_step) {}

CheckpointSaver::~CheckpointSaver() { wait(); }

void CheckpointSaver::wait() {
  if (thread_.joinable()) thread_.join();
}

void CheckpointSaver::save(std::int64_t step, nlohmann::ordered_json state) {
  const double started = now_seconds();
  wait();
  CHECK(engine_.steps_in_flight() == 0, "a checkpoint while {} steps are in flight", engine_.steps_in_flight());
  CheckpointContent content{&model_, &engine_.params(), tensors_beside_model(engine_, model_), std::move(state)};
  // Copies that training would only wait for are not made.
  const bool must_be_whole = breaks_promise(step + 1);
  std::shared_ptr<HostCopy> copy = must_be_whole ? nullptr : copy_if_it_fits(tensors_to_copy(content));
  if (copy == nullptr) {
    waited_for_files_ = true;
    DeviceBytes values(engine_.backend(), engine_.stream());
    write_or_warn(step, content, values, -1);
    if (must_be_whole) say_cost_once(now_seconds() - started);
    return;
  }
  const double waited = now_seconds() - started;
  is_writing_ = true;
  thread_ = std::thread([this, step, content = std::move(content), copy = std::move(copy), waited] {
    write_or_warn(step, content, *copy, waited);
    is_writing_ = false;
  });
}

std::shared_ptr<HostCopy> CheckpointSaver::copy_if_it_fits(const std::vector<Tensor>& tensors) {
  // A part is left to whatever else needs memory meanwhile.
  const std::size_t wanted = HostCopy::bytes_of(tensors), free = options_.host_bytes();
  try {
    if (wanted <= free / 4 * 3) return std::make_shared<HostCopy>(tensors, engine_.backend(), engine_.stream());
  } catch (const std::bad_alloc&) {
    // A limit that host_bytes does not know (ulimit -v).
  }
  if (!has_said_memory_) {
    has_said_memory_ = true;
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
  newest_ = step;
  const double seconds = now_seconds() - started;
  log::info("checkpoint of step {}: {:.2f} GB in {:.1f} s, training waited {:.2f} s", step,
            static_cast<double>(checkpoint_bytes(content)) / 1e9, seconds,
            waited_seconds < 0 ? seconds : waited_seconds);
}

// Where waiting is no small part of the time between two saves, there is a flag for it.
void CheckpointSaver::say_cost_once(double waited_seconds) {
  constexpr double kMuch = 0.05;
  const double now = now_seconds(), between = now - last_save_;
  const bool is_first = last_save_ == 0;
  last_save_ = now;
  if (is_first || has_said_cost_ || waited_seconds < kMuch * between) return;
  has_said_cost_ = true;
  log::info("training waits {:.0f} % of the time for checkpoints; --save_ahead N lets it go on for N steps meanwhile, which a kill would "
            "cost beside the interval",
            100 * waited_seconds / between);
}

}  // namespace llmfp8
