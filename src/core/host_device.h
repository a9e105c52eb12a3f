// Marks a function that both a CPU and a CUDA backend call.
#pragma once

#if defined(__CUDACC__)
#define LLMFP8_HD __host__ __device__
#else
#define LLMFP8_HD
#endif
