// Choices that both a run's configuration and the code that acts on them name.
#pragma once

#include <cstdint>

namespace llmfp8 {

// What the backward pass computes again instead of keeping it. Each level includes the ones before.
enum class Recompute : std::uint8_t {
  none,
  norm_swiglu,  // outputs of both norms and of SwiGLU
  mlp,          // and gate_up
  block,        // everything but the residual stream that enters the layer
};

// How AdamW keeps its moments: fp32; bf16 rounded stochastically; 8-bit codes with a scale per 256 elements.
enum class OptimState : std::uint8_t { fp32, bf16, eight_bit };

// How a bf16 weight takes an update smaller than its last bit. exact: 16 remainder bits beside it make it an fp32 master.
// stochastic: no remainder, rounded stochastically. python: no remainder, weight and bf16 state rounded to nearest even as
// the Python stack does: small updates are lost.
enum class WeightUpdate : std::uint8_t { exact, stochastic, python };

// In what the gradients of weights are kept between the backward pass and AdamW. automatic: bf16 on a GPU where a step has
// one micro-batch, else fp32, since sums of many would lose bits.
enum class GradPrecision : std::uint8_t { automatic, fp32, bf16 };

// Where delayed scaling begins. calibrate: one micro-batch in just-in-time scaling fills the empty amax histories. te:
// scales start at 1, as in Transformer Engine.
enum class Fp8Start : std::uint8_t { calibrate, te };

// What becomes of a run at a step whose loss or gradient norm is not finite.
enum class OnNonFinite : std::uint8_t { stop, skip };

// After a linear warm-up.
enum class LrScheduler : std::uint8_t { linear, cosine, constant };

// Which tokens are learnt. all: every token but the first, which nothing predicts. completion: the assistants' turns, the
// completion, or all of a plain text.
// completion: what follows the last user message that is answered; assistant: every assistant's turn.
enum class LossOn : std::uint8_t { all, completion, assistant };

}  // namespace llmfp8
