// ParamUpdate: AdamW and the new codes of every weight, group by group in the order in which a forward pass reads them:
// embedding, layer 0, 1, …, final norm and head. On a device that works behind the host's back they run on a stream of
// their own, under the next step's forward pass, which waits for each group where it first reads it. Owned by the engine.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/plan/planned_ops.h"
#include "optim/optimizer.h"
#include "params/grad_target.h"
#include "params/param_store.h"

namespace llmfp8 {

// What an update works on. All outlive it.
struct UpdateParts {
  Backend& backend;
  const LocalParamStore& params;
  const LocalGradTarget& grads;
  const AdamWOptimizer& optimizer;
};

class ParamUpdate {
 public:
  explicit ParamUpdate(const UpdateParts& parts);
  ~ParamUpdate();

  // Everything on ops' own stream. scalars: device; step_ok 0 changes nothing.
  void run(Ops& ops, const StepScalars* scalars);

  // Allocates what start() needs. Once, before the first start().
  void prepare_overlap();
  bool overlaps() const { return stream_ != nullptr; }
  std::size_t bytes() const { return (planned_ ? planned_->bytes() : 0) + scalars_buffer_.bytes(); }

  // The same on a stream of its own, behind what ops has enqueued on `main`. scalars may change afterwards; gradients may
  // not before main waits for every group.
  void start(Ops& ops, Stream& main, const StepScalars* scalars);

  // What is enqueued on main from now on finds the new weights of a group. Nothing where that is known already.
  void wait_embedding(Stream& main) { wait(0, main); }
  void wait_layer(int layer, Stream& main) { wait(1 + static_cast<std::size_t>(layer), main); }
  void wait_head(Stream& main);  // final norm, head, and the embedding that a tied head is
  void wait_all(Stream& main);
  // The host waits, and nothing is under way.
  void synchronize();

 private:
  struct Group {
    std::vector<int> params;       // ParamSpec::index
    std::unique_ptr<Event> done;   // with overlap
    bool pending = false;          // main has not waited for it
  };
  void wait(std::size_t group, Stream& main);
  void run_group(Ops& ops, std::size_t group, const StepScalars* scalars) const;

  UpdateParts parts_;
  std::vector<Group> groups_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Event> gradient_known_;
  Buffer scalars_buffer_;  // the scalars as they were when start() was called
  std::unique_ptr<PlannedOps> planned_;
};

// The weights, where an update may be under way: whoever asks for some makes `main` wait for them.
class UpdatedParams : public ParamStore {
 public:
  UpdatedParams(LocalParamStore& params, ParamUpdate& update, Stream& main) : params_(params), update_(update), main_(main) {}

  const WeightTable& table() const override { return params_.table(); }
  DType dtype() const override { return params_.dtype(); }
  Tensor embedding() override {
    update_.wait_embedding(main_);
    return params_.embedding();
  }
  Tensor final_norm() override {
    update_.wait_head(main_);
    return params_.final_norm();
  }
  QTensor lm_head(Numerics numerics) override {
    update_.wait_head(main_);
    return params_.lm_head(numerics);
  }
  LayerWeights acquire(int layer, Numerics numerics) override {
    update_.wait_layer(layer, main_);
    return params_.acquire(layer, numerics);
  }
  void release(int layer) override { params_.release(layer); }

 private:
  LocalParamStore& params_;
  ParamUpdate& update_;
  Stream& main_;
};

}  // namespace llmfp8
