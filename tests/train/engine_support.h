// The golden models in an Engine, and comparisons. Shared by the tests of engine, parity, params and export.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "hub/safetensors.h"
#include "optim/lr_schedule.h"
#include "support/golden.h"
#include "train/parity.h"

namespace llmfp8::testing {

inline constexpr const char* kModels[] = {"llama_tied", "llama_untied", "qwen2"};
inline constexpr Recompute kRecomputeLevels[] = {Recompute::none, Recompute::norm_swiglu, Recompute::mlp,
                                                 Recompute::block};
inline constexpr RecipeKind kFp8Recipes[] = {RecipeKind::standard, RecipeKind::hybrid, RecipeKind::mxfp8,
                                             RecipeKind::current};

inline std::filesystem::path model_dir(const std::string& model) { return golden_dir() / "models" / model; }

inline std::vector<float> floats(const SafetensorsEntry& entry) {
  EXPECT_EQ(entry.dtype, DType::f32) << entry.name;
  std::vector<float> values(static_cast<std::size_t>(entry.shape.numel()));
  std::memcpy(values.data(), entry.tensor.data, entry.tensor.bytes());
  return values;
}

// |a - b| / |b|
inline double rel_l2(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    size += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return std::sqrt(difference / size);
}

inline double max_abs(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = d <= worst ? worst : d;  // a NaN is the worst
  }
  return worst;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline bool same_bits(const HfTensors& a, const HfTensors& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, tensor] : a) {
    if (!same_bits(tensor.values, b.at(name).values)) {
      ADD_FAILURE() << name << " differs";
      return false;
    }
  }
  return true;
}

inline std::vector<HostBatch> hosts(const std::vector<ParityBatch>& batches) {
  std::vector<HostBatch> list;
  for (const ParityBatch& batch : batches) list.push_back(batch.host);
  return list;
}

// A golden model's weights and config.json in a new folder, each tensor stored as dtype_of(its HF name) says.
void write_golden_weights(const std::string& model, const std::filesystem::path& folder,
                          const std::function<DType(const std::string& name)>& dtype_of);

// A golden model, loaded, that takes batches of these shapes.
inline std::unique_ptr<Engine> golden_engine(Backend& backend, const std::filesystem::path& folder,
                                             EngineOptions options, const BatchLimits& limits) {
  const auto source = open_model(folder);
  options.train_limits = limits;
  auto engine = std::make_unique<Engine>(backend, source->config(), options);
  engine->load(*source);
  return engine;
}

inline ModelConfig config_of(const std::string& model) { return open_model(model_dir(model))->config(); }

// Documents of these lengths with random tokens; about every fifth token is not learnt.
ParityBatch random_batch(const ModelConfig& config, const std::vector<std::int64_t>& lengths, std::uint64_t seed);

// Engines of one golden model for the same batches, one a list of lengths.
struct Fixture {
  std::unique_ptr<Backend> backend = create_cpu_backend();
  std::string model;
  std::vector<ParityBatch> batches;
  BatchLimits limits;

  Fixture(std::string model_, const std::vector<std::vector<std::int64_t>>& lengths);
  std::unique_ptr<Engine> engine(const EngineOptions& options) {
    return golden_engine(*backend, model_dir(model), options, limits);
  }
  std::span<const HostBatch> batch(std::size_t i) const { return {&batches[i].host, 1}; }
};

// Stands for a rank that sends a value that is not finite: element of a parameter's gradient, in layer 1.
class PoisonedReducer : public RankReducer {
 public:
  PoisonedReducer(Engine& engine, ParamKind kind, std::int64_t element, float value)
      : engine_(engine), kind_(kind), element_(element), value_(value) {}
  void max_amaxes(const Tensor&) override {}
  void sum_squares(StepScalars*) override {}
  void sum_gradients(GradTarget&, StepScalars*) override;

 private:
  Engine& engine_;
  ParamKind kind_;
  std::int64_t element_;
  float value_;
};

// All that a step may change, as bytes.
std::vector<std::vector<std::byte>> state_bytes(Engine& engine);

}  // namespace llmfp8::testing
