#include "optim/optimizer.h"

#include <cmath>
#include <memory>
#include <set>
#include <utility>

#include "core/adamw_math.h"

namespace llmfp8 {
namespace {

constexpr std::size_t kAlignment = 256;  // what vector loads and device kernels ask of every tensor

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

DType state_dtype(OptimState state) {
  switch (state) {
    case OptimState::fp32: return DType::f32;
    case OptimState::bf16: return DType::bf16;
    case OptimState::eight_bit: break;
  }
  return DType::u8;
}

std::int64_t blocks(const Tensor& weight) { return (weight.numel() + kMomentBlock - 1) / kMomentBlock; }

bool has_remainder(const OptimizedParam& param, const OptimizerConfig& config) {
  return config.weight_update == WeightUpdate::exact && param.weight.dtype == DType::bf16;
}

// The next tensor of a buffer that holds one after the other.
Tensor take(const Buffer& buffer, std::size_t& offset, DType dtype, std::int64_t count) {
  const Tensor tensor = buffer.tensor(dtype, Shape{count}, offset);
  offset += aligned(tensor.bytes());
  return tensor;
}

Tensor flat(const Tensor& tensor) { return tensor.reshape(Shape{tensor.numel()}); }

}  // namespace

OptimizerMemory optimizer_memory(std::span<const OptimizedParam> params, const OptimizerConfig& config) {
  OptimizerMemory memory;
  for (const OptimizedParam& param : params) {
    const std::size_t n = static_cast<std::size_t>(param.weight.numel());
    memory.m_bytes += aligned(n * size_bytes(state_dtype(config.state)));
    memory.v_bytes += aligned(n * size_bytes(state_dtype(config.state)));
    if (config.state == OptimState::eight_bit) {
      memory.scale_bytes += 2 * aligned(static_cast<std::size_t>(blocks(param.weight)) * sizeof(float));
    }
    if (has_remainder(param, config)) memory.remainder_bytes += aligned(n * sizeof(std::uint16_t));
  }
  return memory;
}

AdamWOptimizer::AdamWOptimizer(Backend& backend, std::vector<OptimizedParam> params, const OptimizerConfig& config)
    : backend_(backend), params_(std::move(params)), config_(config) {
  std::set<std::uint32_t> indices;
  for (const OptimizedParam& param : params_) {
    CHECK(param.weight.dtype == DType::f32 || param.weight.dtype == DType::bf16,
          "optimizer: {} is {}, f32 or bf16 wanted", param.name, name(param.weight.dtype));
    CHECK(param.weight.contiguous(), "optimizer: {} {} is not contiguous", param.name, to_string(param.weight.shape));
    // Two parameters with one index would draw the same random bits.
    CHECK(indices.insert(param.index).second, "optimizer: {} has index {}, which another parameter has too", param.name,
          param.index);
  }
  const OptimizerMemory memory = memory_bytes();
  m_buffer_ = backend_.allocate(memory.m_bytes, "AdamW first moment");
  v_buffer_ = backend_.allocate(memory.v_bytes, "AdamW second moment");
  if (memory.scale_bytes > 0) scale_buffer_ = backend_.allocate(memory.scale_bytes, "AdamW scales of 8-bit moments");
  if (memory.remainder_bytes > 0)
    remainder_buffer_ = backend_.allocate(memory.remainder_bytes, "AdamW remainders of bf16 weights");

  std::size_t m_offset = 0, v_offset = 0, scale_offset = 0, remainder_offset = 0;
  const DType dtype = state_dtype(config_.state);
  for (const OptimizedParam& param : params_) {
    State state;
    state.m = take(m_buffer_, m_offset, dtype, param.weight.numel());
    state.v = take(v_buffer_, v_offset, dtype, param.weight.numel());
    if (config_.state == OptimState::eight_bit) {
      state.m_scale = take(scale_buffer_, scale_offset, DType::f32, blocks(param.weight));
      state.v_scale = take(scale_buffer_, scale_offset, DType::f32, blocks(param.weight));
    }
    if (has_remainder(param, config_)) {
      state.remainder = take(remainder_buffer_, remainder_offset, DType::u16, param.weight.numel());
    }
    states_.push_back(state);
  }
}

void AdamWOptimizer::fill_scalars(StepScalars& host, std::uint32_t t, double learning_rate, double max_grad_norm,
                                  std::uint64_t seed) const {
  CHECK(t >= 1, "optimizer: step {}, 1 or more wanted", t);
  host = StepScalars{};
  host.learning_rate = static_cast<float>(learning_rate);
  host.bias_correction1 = static_cast<float>(1.0 - std::pow(config_.beta1, t));
  host.bias_correction2 = static_cast<float>(1.0 - std::pow(config_.beta2, t));
  host.max_grad_norm = static_cast<float>(max_grad_norm);
  // A Philox word pair of (seed, t): neighbouring seeds and steps give unrelated keys.
  const Philox4 words = philox4x32(seed, t, 0);
  host.rounding_key = (static_cast<std::uint64_t>(words.x[1]) << 32) | words.x[0];
  host.step = t;
}

void AdamWOptimizer::step(Ops& ops, std::span<const Tensor> grads, const StepScalars* scalars) const {
  CHECK(grads.size() == params_.size(), "optimizer: {} gradients for {} parameters", grads.size(), params_.size());
  for (std::size_t i = 0; i < params_.size(); ++i) step_param(ops, i, grads[i], scalars);
}

void AdamWOptimizer::step_param(Ops& ops, std::size_t i, const Tensor& grad, const StepScalars* scalars) const {
  const OptimizedParam& param = params_.at(i);
  const State& state = states_[i];
  CHECK(grad.numel() == param.weight.numel(), "optimizer: gradient {} of {} {}", to_string(grad.shape), param.name,
        to_string(param.weight.shape));
  AdamwArgs args;
  args.param = flat(param.weight);
  args.remainder = state.remainder;
  args.stochastic_rounding = config_.weight_update != WeightUpdate::python;
  args.grad = flat(grad);
  args.m = state.m;
  args.v = state.v;
  args.m_scale = state.m_scale;
  args.v_scale = state.v_scale;
  args.beta1 = config_.beta1;
  args.beta2 = config_.beta2;
  args.eps = config_.eps;
  args.weight_decay = param.decay ? config_.weight_decay : 0.0;
  args.param_index = param.index;
  args.scalars = scalars;
  ops.adamw(args);
}

void AdamWOptimizer::set_master(std::size_t i, const float* source) {
  const OptimizedParam& param = params_.at(i);
  const std::unique_ptr<Stream> stream = backend_.create_stream();
  const std::size_t n = static_cast<std::size_t>(param.weight.numel());
  if (param.weight.dtype == DType::f32) {
    backend_.copy_to_device(param.weight.data, source, n * sizeof(float), *stream);
    backend_.synchronize(*stream);
    return;
  }
  const Tensor& remainder = states_[i].remainder;
  std::vector<std::uint16_t> hi(n), lo(n);
  for (std::size_t k = 0; k < n; ++k) {
    const SplitFloat split = split_master(source[k]);
    hi[k] = remainder.defined() ? split.hi : to_bf16(source[k]).bits;
    lo[k] = split.lo;
  }
  backend_.copy_to_device(param.weight.data, hi.data(), n * sizeof(std::uint16_t), *stream);
  if (remainder.defined()) backend_.copy_to_device(remainder.data, lo.data(), n * sizeof(std::uint16_t), *stream);
  backend_.synchronize(*stream);
}

std::vector<NamedTensor> AdamWOptimizer::state_tensors() const {
  std::vector<NamedTensor> tensors;
  for (std::size_t i = 0; i < params_.size(); ++i) {
    const auto add = [&](std::string_view kind, const Tensor& tensor) {
      if (tensor.defined()) tensors.push_back({fmt::format("optimizer.{}.{}", kind, params_[i].name), tensor});
    };
    add("m", states_[i].m);
    add("v", states_[i].v);
    add("m_scale", states_[i].m_scale);
    add("v_scale", states_[i].v_scale);
    add("remainder", states_[i].remainder);
  }
  return tensors;
}

Tensor AdamWOptimizer::state_tensor(std::string_view name) const {
  for (const NamedTensor& entry : state_tensors()) {
    if (entry.name == name) return entry.tensor;
  }
  fail("optimizer: no state tensor '{}'", name);
}

}  // namespace llmfp8
