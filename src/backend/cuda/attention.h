// Attention on CUDA: cuDNN's variable-length graphs for bf16; own kernels for f32, for shapes that cuDNN refuses and
// where its deterministic backward pass would need too much workspace. Called by CudaOps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <cuda_runtime_api.h>

#include "backend/op_args.h"

namespace llmfp8::cuda {

enum class AttentionEngine : std::uint8_t {
  automatic,
  cudnn,
  own
};  // cudnn: an error where it refuses; own: never cuDNN

struct AttentionOptions {
  bool deterministic = false;  // the same bytes from the same inputs, every time
  AttentionEngine engine = AttentionEngine::automatic;
};

// The cuDNN handle and the plans built so far, one for each shape. One per backend; several threads may call.
// Made for the device that is current, which stays current in every later call.
class AttentionContext {
 public:
  explicit AttentionContext(const AttentionOptions& options = {});
  ~AttentionContext();
  AttentionContext(const AttentionContext&) = delete;
  AttentionContext& operator=(const AttentionContext&) = delete;

  struct Impl;
  Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// Builds the plan of this shape where there is none yet (40-800 ms), so the first call must not lie inside a stream
// capture; a planning run makes it. Looks at shapes, strides and dtypes only: data may be null.
std::size_t attention_scratch_bytes(const AttentionArgs& args, const AttentionContext& context);
std::size_t attention_scratch_bytes(const AttentionBackwardArgs& args, const AttentionContext& context);

// scratch: attention_scratch_bytes(args, context) bytes, 256-byte aligned. Rows of out and d_qkv and columns of lse at
// and beyond num_tokens become zero. cuDNN reads whole tiles: up to 256 rows of qkv and d_out behind num_tokens become
// zero too, so that what they hold cannot reach a result.
void attention(const AttentionArgs& args, AttentionContext& context, void* scratch, cudaStream_t stream);
void attention_backward(const AttentionBackwardArgs& args, AttentionContext& context, void* scratch,
                        cudaStream_t stream);

}  // namespace llmfp8::cuda
