// The C interface of libllmfp8_onednn.so, opened on first use by onednn_matmul.cpp. Nothing of oneDNN shows here.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

enum { kLlmfp8OnednnAbi = 1 };

struct Llmfp8OnednnMatmul {
  std::int64_t m, n, k;
  const void* a;
  const void* b;
  void* c;
  std::int64_t lda, ldb, ldc;
  std::int32_t a_transposed, b_transposed, accumulate;
  std::int32_t in_bf16, out_bf16;  // else f32
};

// All return 0, or 1 with a message.
using Llmfp8OnednnRun = int (*)(const Llmfp8OnednnMatmul* call, char* message, std::size_t message_bytes);
using Llmfp8OnednnDescribe = int (*)(char* text, std::size_t text_bytes);  // "oneDNN 2.6.3, avx512_core_bf16"
using Llmfp8OnednnAbiVersion = int (*)();

int llmfp8_onednn_abi();
int llmfp8_onednn_describe(char* text, std::size_t text_bytes);
int llmfp8_onednn_matmul(const Llmfp8OnednnMatmul* call, char* message, std::size_t message_bytes);
}
