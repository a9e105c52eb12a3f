// The head and its loss over the supervised rows only, in chunks, so that logits never exist for a whole batch.
#pragma once

#include "model/pass_context.h"

namespace llmfp8 {

// Rows of logits that are alive at once: a multiple of 128 whose logits take at most about logits_bytes, the same in
// every chunk of a batch.
std::int64_t loss_chunk_rows(std::int64_t vocab_size, DType dtype, std::int64_t capacity, std::size_t logits_bytes);

// Adds the batch's token losses and their number to scalars (device). hidden: A [T, hidden_size], the final norm's output.
// grads and d_hidden (out A [T, hidden_size]) are given together, or null and undefined for evaluation: then nothing but
// the loss is computed. Gradients are those of the *sum* of token losses.
void head_loss(const PassContext& pass, const Tensor& hidden, StepScalars* scalars, GradTarget* grads, const Tensor& d_hidden);

// logits of all rows: out A [T, vocab_size].
void head_logits(const PassContext& pass, const Tensor& hidden, const Tensor& logits);

}  // namespace llmfp8
