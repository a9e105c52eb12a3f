// What `llm-fp8 parity` writes, so that anybody can hold the engine against PyTorch: the forward pass seen from inside,
// gradients and weights under their HF names. Called by the command and by the golden tests.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "train/engine.h"
#include "train/parity_batch.h"

namespace llmfp8 {

// The forward pass over one batch, without its padding.
struct ForwardTrace {
  std::vector<float> logits;                         // [num_tokens, vocab_size]
  std::vector<float> token_loss;                     // [num_tokens]; 0 where not supervised
  std::map<std::string, std::vector<float>> hidden;  // "embed", "layer0", …, "norm": [num_tokens, hidden_size]
};

// In the precision of the engine's recipe, with its scales as they stand. Amaxes of the step in progress take part in it:
// trace between steps, not between the micro-batches of one.
ForwardTrace trace_forward(Engine& engine, const HostBatch& batch);

// HF tensors by name, on the host.
struct NamedValues {
  Shape shape;
  std::vector<float> values;
};
using HfTensors = std::map<std::string, NamedValues>;

// The engine's gradients, divided by `denominator`: those of the mean loss where it is the number of supervised tokens.
HfTensors hf_gradients(Engine& engine, double denominator);
// The weights that the model computes with.
HfTensors hf_weights(Engine& engine);

void write_hf_tensors(const std::filesystem::path& file, const HfTensors& tensors);

// trace, loss and gradients in the shapes of the batch's file: logits [B, S, V], loss [1], token_loss [B, S - 1],
// hidden.<name> [S, H] of row 0, and the gradients; all f32, zero at padding.
void write_parity(const std::filesystem::path& file, const ParityBatch& batch, const ForwardTrace& trace, double loss,
                  HfTensors gradients);

}  // namespace llmfp8
