// The tokenizer inside a GGUF file, as the tokenizer.json and tokenizer_config.json that HF's `tokenizers` reads.
// Called by gguf_source; the text goes to Tokenizer::from_json and into exports.
#pragma once

#include <string>

#include "hub/gguf.h"

namespace llmfp8 {

struct GgufTokenizerFiles {
  std::string tokenizer_json;
  std::string tokenizer_config_json;  // with the chat template and the bos, eos, pad and unk tokens
};

// Pre-tokenizers smollm, llama-bpe, qwen2 and gpt-2; Error by name for any other, and for anything but byte-level BPE.
GgufTokenizerFiles make_tokenizer_files(const GgufFile& file);

}  // namespace llmfp8
