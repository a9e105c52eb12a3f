// AdamW over a list of parameters: owns moments, scales and remainders in a backend's memory and issues one Ops::adamw
// per parameter. Called by the engine; params/ provides the list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "core/settings.h"
#include "core/step_scalars.h"

namespace llmfp8 {

struct OptimizedParam {
  std::string name;         // as HF spells it
  Tensor weight;            // f32 | bf16, any shape, contiguous
  bool decay = true;        // weight decay applies
  std::uint32_t index = 0;  // keys the random bits; unique in the model and the same on every rank and after a resume
};

// Which parameters decay: train_fp8 decays everything, train_multi_gpu nothing with "bias" or "norm" in its name.
enum class DecayRule { everything, no_bias_or_norm };

struct OptimizerConfig {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
  OptimState state = OptimState::fp32;
  WeightUpdate weight_update = WeightUpdate::exact;
};

// Bytes by component, as the memory table shows them; alignment included.
struct OptimizerMemory {
  std::size_t m_bytes = 0, v_bytes = 0;
  std::size_t scale_bytes = 0;      // of 8-bit moments
  std::size_t remainder_bytes = 0;  // of the exact update of bf16 weights
  std::size_t total_bytes() const { return m_bytes + v_bytes + scale_bytes + remainder_bytes; }
};

// Needs shapes and dtypes alone.
OptimizerMemory optimizer_memory(std::span<const OptimizedParam> params, const OptimizerConfig& config);

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

class AdamWOptimizer {
 public:
  // State starts at zero: a bf16 weight's master is then the weight itself. backend outlives the optimizer.
  AdamWOptimizer(Backend& backend, std::vector<OptimizedParam> params, const OptimizerConfig& config);

  // Writes the host's group of scalars for step t = 1, 2, … and zeroes the device's group.
  void fill_scalars(StepScalars& host, std::uint32_t t, double learning_rate, double max_grad_norm,
                    std::uint64_t seed) const;

  // grads[i]: f32 | bf16, as many elements as params()[i]. scalars: device; step_ok 0 changes nothing.
  void step(Ops& ops, std::span<const Tensor> grads, const StepScalars* scalars) const;
  void step_param(Ops& ops, std::size_t i, const Tensor& grad, const StepScalars* scalars) const;

  // Weight i from an fp32 source on the host, f32 [numel]: keeps all 32 bits where there is a remainder, else the weight
  // is rounded to nearest even. Waits until the copy is done.
  void set_master(std::size_t i, const float* source);

  // Every state tensor by its checkpoint name: "optimizer.m.<param>", "optimizer.v.<param>",
  // "optimizer.remainder.<param>", "optimizer.m_scale.<param>", "optimizer.v_scale.<param>".
  std::vector<NamedTensor> state_tensors() const;
  Tensor state_tensor(std::string_view name) const;  // Error that names it where there is none

  const std::vector<OptimizedParam>& params() const { return params_; }
  const OptimizerConfig& config() const { return config_; }
  OptimizerMemory memory_bytes() const { return optimizer_memory(params_, config_); }

 private:
  struct State {
    Tensor m, v;              // f32 | bf16 | u8 [numel]
    Tensor m_scale, v_scale;  // f32 [ceil(numel / 256)], 8-bit state only
    Tensor remainder;         // u16 [numel], exact update of a bf16 weight only
  };

  Backend& backend_;
  std::vector<OptimizedParam> params_;
  OptimizerConfig config_;
  Buffer m_buffer_, v_buffer_, scale_buffer_, remainder_buffer_;
  std::vector<State> states_;
};

}  // namespace llmfp8
