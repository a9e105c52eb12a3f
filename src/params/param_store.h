// ParamStore: the model asks it for a layer's weights and gives them back. Prefetch, shards, offload and adapters live
// behind it (dist/fsdp); LocalParamStore keeps everything resident on one device.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "fp8/quantizer.h"
#include "params/weight_table.h"

namespace llmfp8 {

// quantized: as the recipe says. high_precision: no FP8 anywhere (evaluation, generation, shadow checks).
enum class Numerics : std::uint8_t { quantized, high_precision };

// Views, valid until the layer is released. Shapes: weight_table.h.
struct LayerWeights {
  Tensor input_layernorm, post_attention_layernorm;
  Tensor qkv_bias;  // undefined where the model has none
  QTensor qkv, o, gate_up, down;
};

class ParamStore {
 public:
  virtual ~ParamStore() = default;
  virtual const WeightTable& table() const = 0;
  virtual DType dtype() const = 0;  // of the high-precision weights

  virtual Tensor embedding() = 0;   // [vocab_size, hidden_size]
  virtual Tensor final_norm() = 0;  // [hidden_size]
  virtual QTensor lm_head(Numerics numerics) = 0;
  virtual LayerWeights acquire(int layer, Numerics numerics) = 0;
  virtual void release(int layer) = 0;
};

class LocalParamStore : public ParamStore {
 public:
  // dtype: f32 | bf16. fp8: null or the run's state, which outlives the store. usages: which forms of a quantised weight
  // the backend reads. Weights are zero until they are loaded.
  LocalParamStore(const WeightTable& table, DType dtype, const Fp8State* fp8, const Ops& ops, Backend& backend);

  const WeightTable& table() const override { return table_; }
  DType dtype() const override { return dtype_; }
  Tensor embedding() override { return weight(table_.find(ParamKind::embedding).index); }
  Tensor final_norm() override { return weight(table_.find(ParamKind::final_norm).index); }
  QTensor lm_head(Numerics numerics) override;
  LayerWeights acquire(int layer, Numerics numerics) override;
  void release(int) override {}

  const Tensor& weight(int index) const { return weights_[static_cast<std::size_t>(index)]; }

  // Writes the codes of every quantised weight anew. scalars: device; step_ok 0 changes nothing.
  void quantize_weights(Ops& ops, const StepScalars* scalars) const;
  void quantize_layer(Ops& ops, int layer, const StepScalars* scalars) const;
  void quantize_head(Ops& ops, const StepScalars* scalars) const;

  std::size_t weight_bytes() const { return buffer_.bytes(); }
  std::size_t quantized_bytes() const;

 private:
  struct QuantizedWeight {
    QTensor codes;
    std::vector<Buffer> storage;
  };
  void quantize(Ops& ops, Site site, const StepScalars* scalars) const;
  QTensor product(int layer, Product product, ParamKind kind, Numerics numerics) const;
  static std::size_t position(int layer, Product product);

  WeightTable table_;
  DType dtype_;
  const Fp8State* fp8_;
  Buffer buffer_;
  std::vector<Tensor> weights_;              // by ParamSpec::index
  std::vector<QuantizedWeight> quantized_;   // by position(); storage empty where the recipe leaves it alone
};

// All parameters one after the other in one buffer, each at a multiple of kArenaAlignment bytes.
std::size_t packed_bytes(const WeightTable& table, DType dtype);
std::vector<Tensor> pack(const WeightTable& table, DType dtype, const Buffer& buffer);

}  // namespace llmfp8
