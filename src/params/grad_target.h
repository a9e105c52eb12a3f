// GradTarget: where the model hands its gradients. Before a weight gradient the target says where it goes; after it the
// target hears that it is ready. Buckets and reduce-scatter live behind it (dist/).
#pragma once

#include <vector>

#include "backend/backend.h"
#include "params/weight_table.h"

namespace llmfp8 {

class GradTarget {
 public:
  virtual ~GradTarget() = default;
  // Called before each contribution. The embedding of a tied model gets two in a micro-batch: head, then embedding.
  virtual GradDestination destination(const ParamSpec& param) = 0;
  // Called after the last contribution of a micro-batch.
  virtual void ready(const ParamSpec& param) = 0;
};

// All gradients resident in one buffer on one device.
class LocalGradTarget : public GradTarget {
 public:
  // dtype: f32 | bf16.
  LocalGradTarget(const WeightTable& table, DType dtype, Backend& backend);

  void begin_step();  // the next contribution to each parameter overwrites
  // Which parameters have had a contribution since: what a recorded micro-step, enqueued again, has to leave by itself.
  const std::vector<bool>& written() const { return written_; }
  void set_written(std::vector<bool> written) { written_ = std::move(written); }
  GradDestination destination(const ParamSpec& param) override;
  void ready(const ParamSpec&) override {}

  const Tensor& grad(int index) const { return grads_[static_cast<std::size_t>(index)]; }
  // All of them as one vector, with the zeros between them: their norm in one pass.
  Tensor all() const;
  std::size_t bytes() const { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  std::vector<Tensor> grads_;
  std::vector<bool> written_;
};

}  // namespace llmfp8
