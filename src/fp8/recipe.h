// Recipe: which matrices of the model are quantised, to which format and how they are scaled. Pure policy: a recipe
// holds no state and touches no device. Adding one touches fp8/ and the backends, nothing in model/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "backend/op_args.h"
#include "core/fp8_scaling.h"
#include "core/qtensor.h"

namespace llmfp8 {

// The fused matrix products of a model. One scale per product and role.
enum class Product : std::uint8_t { qkv, o, gate_up, down, lm_head };
inline constexpr int kLayerProducts = 4;  // qkv, o, gate_up, down

enum class Role : std::uint8_t { input, weight, gradient };  // gradient: of the product's output

struct Site {
  int layer = 0;  // of lm_head: ignored
  Product product = Product::qkv;
};

enum class ScalePolicy : std::uint8_t {
  none,     // the matrix stays in high precision
  delayed,  // per tensor, from the amaxes of the last steps
  current,  // per tensor, from its own amax, just in time
  mx,       // one E8M0 scale per 32 values
};

struct QuantSpec {
  ScalePolicy policy = ScalePolicy::none;
  DType format = DType::bf16;  // e4m3 | e5m2 where quantised
  int history_length = 0;      // delayed only
  AmaxAlgorithm algorithm = AmaxAlgorithm::max;
  int margin = 0;

  bool quantized() const { return policy != ScalePolicy::none; }
  Scaling scaling() const;
};

enum class RecipeKind : std::uint8_t {
  none,     // bf16 or fp32: nothing is quantised
  standard, // --fp8_scenario default: delayed; attention projections HYBRID, MLP E4M3
  hybrid,   // delayed, HYBRID everywhere
  mxfp8,    // E4M3, blocks of 32, both directions
  current,  // just-in-time per-tensor scaling, HYBRID
};

// HYBRID: E4M3 forward (input, weight), E5M2 for gradients.
class Recipe {
 public:
  explicit Recipe(RecipeKind kind = RecipeKind::none, bool fp8_lm_head = false) : kind_(kind), fp8_lm_head_(fp8_lm_head) {}

  RecipeKind kind() const { return kind_; }
  std::string_view name() const;         // as --fp8_scenario spells it; "none"
  bool delayed() const { return kind_ == RecipeKind::standard || kind_ == RecipeKind::hybrid; }
  bool quantizes(Product product) const;
  QuantSpec spec(Site site, Role role) const;
  // Fast accumulation in the forward pass only, as Transformer Engine does.
  Accumulation accumulation(Site site, GemmPass pass) const;

 private:
  RecipeKind kind_;
  bool fp8_lm_head_;
};

std::string_view name(Product product);  // "qkv", …
std::string_view name(Role role);

}  // namespace llmfp8
