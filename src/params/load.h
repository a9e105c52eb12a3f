// Weights from a checkpoint into the engine.
#pragma once

#include <functional>

#include "hub/checkpoint_source.h"
#include "params/param_store.h"

namespace llmfp8 {

// Takes a parameter's fp32 values from the host, f32 [numel], where they hold more than the store's bf16 keeps.
using SetMaster = std::function<void(const ParamSpec& param, const float* values)>;

// Reads every HF tensor of the table, checks its shape, and writes it to its rows of the store. Where the checkpoint is
// fp32 or fp16 and the store bf16, whole parameters go through set_master. A tied model whose file has an lm_head.weight is accepted only if
// it equals the embedding. Throws Error: missing tensor, wrong shape (name, found, wanted).
void load_weights(const WeightSource& source, const LocalParamStore& store, Backend& backend, Stream& stream,
                  const SetMaster& set_master);

// Weights of an untrained model: matrices normal with standard deviation 0.02, as HF initialises them, norms 1, biases 0.
// The values repeat after some millions: good for speed and memory, not for training from nothing.
void fill_random(const LocalParamStore& store, std::uint64_t seed, Backend& backend, Stream& stream);

}  // namespace llmfp8
