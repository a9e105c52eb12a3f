// A GGUF file as a WeightSource: HF names, q/k rows in HF order, ModelConfig from the metadata.
// Called by open_model, and by the fuzzer.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "core/model_config.h"
#include "hub/checkpoint_source.h"
#include "hub/gguf.h"

namespace llmfp8 {

// Throws Error for an architecture or setting that is not supported, by name.
ModelConfig read_gguf_config(const GgufFile& file);

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; empty if GGUF has no such name for these architectures.
std::string gguf_to_hf_name(const std::string& gguf_name, std::int64_t num_layers);

std::unique_ptr<WeightSource> open_gguf_model(const std::filesystem::path& path);
std::unique_ptr<WeightSource> open_gguf_model(GgufFile file);

}  // namespace llmfp8
