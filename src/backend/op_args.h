// The arguments of every operation, with shapes, dtypes and meaning. ops.h says what holds for all of them.
//
// A: activation dtype, f32 or bf16. T: a batch's capacity. num_rows / num_tokens: i32 [1] in device memory; rows at and
// beyond it are read as zero and written as exactly zero, whatever they hold. "out": written; "inout": read and written.
#pragma once

#include "core/fp8_scaling.h"
#include "core/qtensor.h"
#include "core/step_scalars.h"
#include "core/tensor.h"

namespace llmfp8 {

// Where a gradient goes. accumulate: added to what is there (one rounding), else overwritten.
struct GradDestination {
  Tensor tensor;  // f32 | bf16, the parameter's shape
  bool accumulate = false;
};

struct EmbeddingArgs {
  Tensor table;       // A [vocab_size, hidden_size]
  Tensor tokens;      // i32 [T]
  Tensor num_tokens;
  Tensor out;         // out A [T, hidden_size]
};

// d_table[token] += the sum of the d_out rows with that token, in ascending order of position.
struct EmbeddingBackwardArgs {
  Tensor d_out;       // A [T, hidden_size]
  Tensor tokens;      // i32 [T]
  Tensor num_tokens;
  GradDestination d_table;
};

// rstd = 1 / sqrt(mean(x^2) + eps); y = x * rstd * weight, computed in fp32, rounded once.
struct RmsnormArgs {
  Tensor x;           // A [T, hidden_size]
  Tensor weight;      // A [hidden_size]
  Tensor num_rows;
  double eps = 0;
  Tensor y;           // out A [T, hidden_size]
  Tensor rstd;        // out f32 [T]
};

struct RmsnormQuantizeArgs {
  Tensor x;           // A [T, hidden_size]
  Tensor weight;      // A [hidden_size]
  Tensor num_rows;
  double eps = 0;
  QTensor out;        // out [T, hidden_size], quantised or not
  Tensor rstd;        // out f32 [T]
};

// dx = d_residual + rstd * (dy * weight - x * rstd^2 * mean(dy * weight * x)); d_weight += sum over rows of dy * x * rstd.
struct RmsnormBackwardArgs {
  Tensor dy;          // A [T, hidden_size]
  Tensor x;           // A [T, hidden_size]
  Tensor weight;      // A [hidden_size]
  Tensor rstd;        // f32 [T]
  Tensor num_rows;
  Tensor d_residual;  // A [T, hidden_size] or undefined: the gradient that bypasses the norm; may be dx itself
  Tensor dx;          // out A [T, hidden_size]
  GradDestination d_weight;
};

// Rotates pairs (i, i + head_dim/2) of every q and k head in place by position * inv_freq[i].
// inverse: by the negative angle, which is the backward pass.
struct RopeArgs {
  Tensor qkv;         // inout A [T, (num_heads + 2 * num_kv_heads) * head_dim]: q heads, k heads, v heads
  Tensor positions;   // i32 [T]
  Tensor num_tokens;
  Tensor cos_sin;     // f32 [max_positions, head_dim]: cos for i < head_dim/2, then sin
  std::int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  bool inverse = false;
};

// rope, then the cast. rope.qkv holds anything afterwards.
struct RopeQuantizeArgs {
  RopeArgs rope;
  QTensor out;        // out, shape of rope.qkv, quantised
};

struct AttentionShape {
  std::int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  std::int64_t max_doc_tokens = 0;  // upper bound on a document's length
  float scale = 1.0f;               // of q·k, 1 / sqrt(head_dim)
  // Every document has exactly this many tokens and together they fill T: a promise that a backend may make use of; 0: none.
  std::int64_t equal_doc_tokens = 0;
};

// Causal self-attention inside each document of cu_seqlens; query head h reads key head h / (num_heads / num_kv_heads).
struct AttentionArgs {
  AttentionShape shape;
  Tensor qkv;         // A [T, (num_heads + 2 * num_kv_heads) * head_dim], rotated
  Tensor cu_seqlens;  // i32 [max_docs + 1]
  Tensor num_tokens;
  Tensor out;         // out A [T, num_heads * head_dim]
  Tensor lse;         // out f32 [num_heads, T]: log of the sum of exp(scale * q·k)
};

struct AttentionBackwardArgs {
  AttentionShape shape;
  Tensor d_out;       // A [T, num_heads * head_dim]
  Tensor qkv;         // as in the forward pass
  Tensor out;         // A [T, num_heads * head_dim]
  Tensor lse;         // f32 [num_heads, T]
  Tensor cu_seqlens;
  Tensor num_tokens;
  Tensor d_qkv;       // out A, shape of qkv
};

// One new token for each of B sequences against a cache of keys and values.
struct AttentionDecodeArgs {
  AttentionShape shape;
  Tensor qkv;         // A [B, (num_heads + 2 * num_kv_heads) * head_dim], rotated
  Tensor positions;   // i32 [B]: the new token's position; keys 0..position take part, its own included
  Tensor k_cache;     // inout A [slots, max_len * num_kv_heads * head_dim]: the new key is written at [slot, position]
  Tensor v_cache;     // inout, like k_cache
  Tensor slots;       // i32 [B]: the cache row of each sequence
  Tensor out;         // out A [B, num_heads * head_dim]
};

// After a prefill: copies the keys and values of each document of qkv into its cache row.
struct CacheFillArgs {
  AttentionShape shape;
  Tensor qkv;         // A [T, (num_heads + 2 * num_kv_heads) * head_dim], rotated
  Tensor cu_seqlens;  // i32 [max_docs + 1]
  Tensor slots;       // i32 [max_docs]
  Tensor k_cache, v_cache;  // out A [slots, max_len * num_kv_heads * head_dim]
};

// y = silu(gate) * up.
struct SwigluArgs {
  Tensor gate_up;     // A [T, 2 * intermediate_size]: gate, then up
  Tensor num_rows;
  Tensor y;           // out A [T, intermediate_size]
};

struct SwigluQuantizeArgs {
  Tensor gate_up;     // A [T, 2 * intermediate_size]
  Tensor num_rows;
  QTensor out;        // out [T, intermediate_size]
};

struct SwigluBackwardArgs {
  Tensor dy;          // A [T, intermediate_size]
  Tensor gate_up;     // A [T, 2 * intermediate_size]
  Tensor num_rows;
  Tensor d_gate_up;   // out A [T, 2 * intermediate_size]; may be gate_up itself
};

// SwiGLU's backward pass straight to the form that products read. gate_up holds anything afterwards.
struct SwigluBackwardQuantizeArgs {
  Tensor dy;          // A [T, intermediate_size]
  Tensor gate_up;     // inout A [T, 2 * intermediate_size]
  Tensor num_rows;
  QTensor out;        // out [T, 2 * intermediate_size], quantised or not; not quantised: may be gate_up itself
};

enum class GemmPass : std::uint8_t {
  fprop,  // out [T, N] = a [T, K] · b [N, K]^T     a: input, b: weight
  dgrad,  // out [T, K] = a [T, N] · b [N, K]       a: gradient of the output, b: weight
  wgrad,  // out [N, K] = a [T, N]^T · b [T, K]     a: gradient of the output, b: input
};

// How an FP8 tensor core may add: fast keeps fewer accumulator bits. Backends without the choice ignore it.
enum class Accumulation : std::uint8_t { fast, precise };

// out = product (+ bias) (+ addend), accumulated in fp32 and rounded once. Operands are FP8 with scales, or A, or f32.
struct GemmArgs {
  GemmPass pass = GemmPass::fprop;
  QTensor a, b;
  Tensor bias;              // A [N] or undefined (fprop only)
  Tensor addend;            // undefined, or of out's shape and dtype; may be out itself (beta = 1)
  Tensor out;               // out A | f32 | bf16
  // i32 [1] or undefined: rows of T at and beyond *num_rows - row_offset are zero in a (and b, for wgrad); a backend may skip them.
  // Rows of out that lie there (fprop, dgrad) are zero, or the addend.
  Tensor num_rows;
  std::int64_t row_offset = 0;
  Accumulation accumulation = Accumulation::precise;
};

// d_bias (+)= column sums of dy.
struct BiasBackwardArgs {
  Tensor dy;          // A [T, N]
  Tensor num_rows;
  GradDestination d_bias;
};

// Row i of out = row index[row_offset + i] of x, for row_offset + i < *count; zero beyond.
struct GatherRowsArgs {
  Tensor x;           // A [T, width], or i32 [T] (width 1)
  Tensor index;       // i32 [n]
  Tensor count;       // i32 [1]
  std::int64_t row_offset = 0;
  Tensor out;         // out [rows, width]
};

// Row index[row_offset + i] of out = row i of x, for row_offset + i < *count. Other rows stay.
struct ScatterRowsArgs {
  Tensor x;           // A [rows, width]
  Tensor index;       // i32 [n]
  Tensor count;       // i32 [1]
  std::int64_t row_offset = 0;
  Tensor out;         // inout A [T, width]
};

// Per row: loss = log(sum exp(logits)) - logits[label]; with gradient: logits := softmax(logits) - onehot(label).
// Rows at and beyond *count - row_offset: loss 0, gradient 0.
struct CrossEntropyArgs {
  Tensor logits;      // inout A [rows, vocab_size]
  Tensor labels;      // i32 [rows]
  Tensor count;       // i32 [1]
  std::int64_t row_offset = 0;
  bool with_gradient = true;
  Tensor token_loss;  // out f32 [rows]
};

// cross_entropy with its gradient straight to the form that products read. The logits hold anything afterwards.
struct CrossEntropyQuantizeArgs {
  CrossEntropyArgs loss;  // with_gradient
  QTensor out;            // out, shape of the logits, quantised or not; not quantised: the logits themselves
};

// The next token of each sequence. temperature 0: the largest logit (the lowest id among equals). Else a draw from
// softmax(logits / temperature) restricted to the smallest set of tokens with probability >= top_p.
struct SampleArgs {
  Tensor logits;      // A [B, vocab_size]
  float temperature = 0.0f;
  float top_p = 1.0f;
  std::uint64_t key = 0;      // Philox key; row b draws with counter (draw, b)
  std::uint64_t draw = 0;
  Tensor out;         // out i32 [B]
};

// How AdamW stores a parameter and its moments (core/adamw_math.h has the rules).
struct AdamwArgs {
  Tensor param;          // inout f32 | bf16 [n]
  Tensor remainder;      // inout u16 [n]: low half of the fp32 master; undefined: no remainder
  bool stochastic_rounding = true;  // of a bf16 param without remainder; false: nearest even, as the Python stack
  Tensor grad;           // f32 | bf16 [n]: gradient of the *sum* of token losses
  Tensor m, v;           // inout f32 | bf16 | 8-bit codes (u8) [n]
  Tensor m_scale, v_scale;          // inout f32 [ceil(n / 256)], 8-bit state only
  double beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  std::uint32_t param_index = 0;    // keys the random bits, with scalars.rounding_key and the element's index
  std::uint64_t element_offset = 0; // of param[0] in its whole parameter: shards and pieces draw the same bits
  const StepScalars* scalars = nullptr;  // device
};

// The scaling state of n quantised matrices: one contiguous buffer each, one 16-byte slot a scale.
struct ScaleUpdateArgs {
  Tensor amax;        // inout f32 [n]: this step's amaxes; not changed
  Tensor history;     // inout f32 [n, length]
  Tensor scale;       // inout f32 [n, 4]: column 0
  Tensor scale_inv;   // inout f32 [n, 4]: column 0 = 1 / scale
  Tensor format_max;  // f32 [n]: 448 or 57344; 0: the slot is not delayed-scaled and stays
  AmaxAlgorithm algorithm = AmaxAlgorithm::max;
  int margin = 0;
  const StepScalars* scalars = nullptr;  // device; step_ok 0 changes nothing
};

}  // namespace llmfp8
